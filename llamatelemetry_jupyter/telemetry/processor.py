"""The one span processor that we put on a provider: it packs ended spans into rows.

A provider has no way to remove a processor, so there is one per provider for good; it can be switched off and aimed at
another store, and it never keeps a span object (rows cost a fraction of the memory).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from ..values import JSON, SpanRow
from . import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from .store import SpanStore

_log = logging.getLogger(__name__)
_ATTRIBUTE = "_llamatelemetry_processor"
_MAX_TEXT = 8192
_MAX_CELLS = 1024
_MAX_INT = 2**63  # what a column of the file holds
#: graphistry traces its own uploads: an upload would add to the trace that it uploads.
_UNWANTED_SCOPE = "graphistry"
_KINDS = {kind: kind.name.lower() for kind in SpanKind}
_STATUSES = {code: code.name.lower() for code in StatusCode}


@dataclass(slots=True)
class CellTrace:
    """A cell's part in a trace: whether a span was recorded in it, and whether the cell's own span was dropped."""

    span_id: int
    cell_id: str | None
    used: bool = False
    dropped: bool = False


class RowProcessor(SpanProcessor):
    """Appends a :class:`SpanRow` to ``store`` for each span that ends; inert while ``store`` is ``None``."""

    def __init__(self) -> None:
        self.store: SpanStore | None = None
        #: The running cell's context, for calls on threads, which do not inherit one.
        self.cell_context: Context | None = None
        self._cells: dict[int, CellTrace] = {}
        self._complained = False

    @classmethod
    def of(cls, provider: Any) -> RowProcessor:
        """The processor of ``provider``, added when it has none."""
        found = getattr(provider, _ATTRIBUTE, None)
        # After a reload the object on the provider is of the class's earlier incarnation; it does the same.
        if found is None:
            found = cls()
            provider.add_span_processor(found)
            setattr(provider, _ATTRIBUTE, found)
        processor: RowProcessor = found
        return processor

    def watch(self, trace_id: int, span_id: int, cell_id: str | None) -> CellTrace:
        """Follow the trace of a cell's span; spans that end in it, however late, get its cell id."""
        while len(self._cells) >= _MAX_CELLS:
            self._cells.pop(next(iter(self._cells)))
        self._cells[trace_id] = cell = CellTrace(span_id, cell_id)
        return cell

    def switch_off(self) -> None:
        """Record nothing more."""
        self.store = None
        self.cell_context = None
        self._cells.clear()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 (the SDK's signature)
        """Note that a running cell's trace has a span."""
        if self._cells and span.parent is not None and (cell := self._cells.get(span.parent.trace_id)) is not None:
            scope = span.instrumentation_scope
            if scope is None or scope.name != _UNWANTED_SCOPE:
                cell.used = True

    def on_end(self, span: ReadableSpan) -> None:
        """Pack and append."""
        store = self.store
        scope = span.instrumentation_scope
        if store is None or (scope is not None and scope.name == _UNWANTED_SCOPE):
            return
        try:
            store.append(self._row(span, scope.name if scope is not None else None))
        except Exception:  # noqa: BLE001 (this runs inside other people's code)
            if not self._complained:
                self._complained = True
                _log.exception("a span could not be recorded; further failures are not logged")

    def shutdown(self) -> None:
        """The provider is shut down: write what is pending."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 (the SDK's signature)
        """Write what is pending."""
        if self.store is not None:
            self.store.flush()
        return True

    def _row(self, span: ReadableSpan, scope: str | None) -> SpanRow:
        context, parent = span.context, span.parent
        assert context is not None
        trace_id = context.trace_id
        # copy() of the proxy is one copy of the dict beneath; iterating it would take a call per attribute.
        attributes: dict[str, Any] = span.attributes.copy()  # type: ignore[union-attr]
        get = attributes.get
        cell = self._cells.get(trace_id) if self._cells else None
        cell_id = get(semconv.CELL_ID)
        if cell_id is None and cell is not None:
            cell_id = cell.cell_id
        orphan = parent is not None and cell is not None and cell.dropped and parent.span_id == cell.span_id
        address, port, error = get(semconv.SERVER_ADDRESS), get(semconv.SERVER_PORT), get(semconv.ERROR_TYPE)
        if (model := get(semconv.REQUEST_MODEL)) is None:
            model = _other(attributes, semconv.REQUEST_MODEL)
        if (input_tokens := get(semconv.USAGE_INPUT_TOKENS)) is None:
            input_tokens = _other(attributes, semconv.USAGE_INPUT_TOKENS)
        if (output_tokens := get(semconv.USAGE_OUTPUT_TOKENS)) is None:
            output_tokens = _other(attributes, semconv.USAGE_OUTPUT_TOKENS)
        if (cached_tokens := get(semconv.USAGE_CACHE_READ)) is None:
            cached_tokens = _other(attributes, semconv.USAGE_CACHE_READ)
        if (ttft_s := get(semconv.RESPONSE_TIME_TO_FIRST_CHUNK)) is None:
            ttft_s = _other(attributes, semconv.RESPONSE_TIME_TO_FIRST_CHUNK)
        for key, value in attributes.items():
            kind = type(value)
            if kind is str:
                if len(value) > _MAX_TEXT:
                    attributes[key] = _plain(value)
            elif kind not in _SCALARS:
                attributes[key] = _plain(value)
        return SpanRow(
            f"{trace_id:032x}",
            f"{context.span_id:016x}",
            f"{parent.span_id:016x}" if parent is not None and not orphan else None,
            span.name,
            _KINDS[span.kind],
            _integer(span.start_time) or 0,
            _integer(span.end_time) or _integer(span.start_time) or 0,
            _STATUSES[span.status.status_code],
            str(error) if error is not None else None,
            scope,
            str(cell_id) if cell_id is not None else None,
            f"{address}:{port}" if address and port else None,
            str(model) if model is not None else None,
            _integer(input_tokens),
            _integer(output_tokens),
            _integer(cached_tokens),
            _number(ttft_s),
            _number(get(semconv.DECODE_RATE)),
            None,
            None,
            attributes,
        )


_SCALARS = frozenset({int, float, bool, type(None)})


def _other(attributes: Mapping[str, Any], name: str) -> Any:
    """The attribute under one of its other names."""
    for other in semconv.ALIASES[name]:
        if (value := attributes.get(other)) is not None:
            return value
    return None


def _integer(value: object) -> int | None:
    if type(value) is int and 0 <= value < _MAX_INT:
        return value
    # Other libraries' attributes: what is not a number (nan included) is not available.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124
        return None
    return int(value) if abs(value) < _MAX_INT else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _plain(value: Any) -> JSON:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…truncated"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value)[:_MAX_TEXT]

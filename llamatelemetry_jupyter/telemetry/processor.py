"""The one span processor that we put on a provider: it turns ended spans into rows.

A provider has no way to remove a processor, so there is one per provider for good; it can be switched off and aimed at
another store. It keeps no span object: the garbage collector would walk them, on the thread that ends spans, at more
cost than all the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from ..values import JSON
from . import privacy, semconv
from ._packed import Fields

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from .store import SpanStore

_ATTRIBUTE = "_llamatelemetry_processor"
_MAX_TEXT = 8192
_MAX_NAME = 1024
_MAX_ITEMS = 1024
_MAX_DEPTH = 8
_CUT = "…truncated"
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # JSON has none; these are protobuf's names
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
    """Gives ``store`` a row for each span that ends; inert while ``store`` is ``None``."""

    def __init__(self) -> None:
        self.store: SpanStore | None = None
        #: The running cell's context, for calls on threads, which do not inherit one.
        self.cell_context: Context | None = None
        self._cells: dict[int, CellTrace] = {}

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
        """Note what its row is made of: the row is made, packed and written on the store's thread."""
        store = self.store
        if store is None:
            return
        try:
            scope, context, parent = span.instrumentation_scope, span.context, span.parent
            assert context is not None
            trace_id = context.trace_id
            parent_id = parent.span_id if parent is not None else None
            cell_id = None
            if self._cells and (cell := self._cells.get(trace_id)) is not None:
                cell_id = cell.cell_id
                if cell.dropped and parent_id == cell.span_id:
                    parent_id = None
            store.ended(
                _fields,
                (
                    trace_id,
                    context.span_id,
                    parent_id,
                    span.name,
                    span.kind,
                    span.start_time,
                    span.end_time,
                    span.status.status_code,
                    scope.name if scope is not None else None,
                    cell_id,
                    # copy() of the proxy is one copy of the dict beneath; iterating it would take a call per attribute.
                    span.attributes.copy(),  # type: ignore[union-attr]
                    # What may be kept is decided as the span ends: the row is made a moment later.
                    privacy.allowed(scope.name if scope is not None else None),
                    privacy.redactors(),
                ),
            )
        except Exception:  # noqa: BLE001 (this runs inside other people's code)
            store.lost()

    def shutdown(self) -> None:
        """The provider is shut down: write what is pending."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 (the SDK's signature)
        """Write what is pending."""
        if self.store is not None:
            self.store.flush()
        return True


Ended = tuple[
    int,
    int,
    int | None,
    str,
    SpanKind,
    int | None,
    int | None,
    StatusCode,
    str | None,
    str | None,
    dict[str, Any],
    bool,
    tuple[privacy.Redactor, ...],
]


def _fields(ended: Ended) -> Fields | None:
    """The row of a span that has ended; ``None`` for one that is not wanted."""
    trace_id, span_id, parent_id, name, kind, start, end, status, scope, cell_id, attributes, content, redactors = ended
    if scope == _UNWANTED_SCOPE:
        return None
    privacy.clean(attributes, content=content, functions=redactors)
    name = privacy.text("name", str(name)[:_MAX_NAME], redactors) or "span"
    get = attributes.get
    own_cell_id = server = error = model = inputs = outputs = cached = ttft_s = rate = None
    if not _TOLD.isdisjoint(attributes):
        own_cell_id, error = get(semconv.CELL_ID), get(semconv.ERROR_TYPE)
        address, port = get(semconv.SERVER_ADDRESS), get(semconv.SERVER_PORT)
        server = f"{address}:{port}" if address and port else None
        model = get(semconv.REQUEST_MODEL)
        if not _FIGURES.isdisjoint(attributes):
            inputs, outputs = get(semconv.USAGE_INPUT_TOKENS), get(semconv.USAGE_OUTPUT_TOKENS)
            cached, ttft_s = get(semconv.USAGE_CACHE_READ), get(semconv.RESPONSE_TIME_TO_FIRST_CHUNK)
            rate = _number(get(semconv.DECODE_RATE))
        if not _OTHER_NAMES.isdisjoint(attributes):
            model = _other(attributes, semconv.REQUEST_MODEL) if model is None else model
            inputs = _other(attributes, semconv.USAGE_INPUT_TOKENS) if inputs is None else inputs
            outputs = _other(attributes, semconv.USAGE_OUTPUT_TOKENS) if outputs is None else outputs
            cached = _other(attributes, semconv.USAGE_CACHE_READ) if cached is None else cached
            ttft_s = _other(attributes, semconv.RESPONSE_TIME_TO_FIRST_CHUNK) if ttft_s is None else ttft_s
        inputs, outputs, cached, ttft_s = _integer(inputs), _integer(outputs), _integer(cached), _number(ttft_s)
    for key, value in attributes.items():
        sort = type(value)
        if sort is str:
            if len(value) > _MAX_TEXT:
                attributes[key] = _plain(value)
        elif sort is float:
            if value - value != 0.0:  # nan, inf
                attributes[key] = _plain(value)
        elif (sort is not int and sort is not bool) or not -_MAX_INT <= value < _MAX_INT:
            attributes[key] = _plain(value)
    begun = start if type(start) is int and 0 <= start < _MAX_INT else _integer(start) or 0
    return (
        trace_id.to_bytes(16, "big").hex(),  # a third of the time that a format takes
        span_id.to_bytes(8, "big").hex(),
        parent_id.to_bytes(8, "big").hex() if parent_id is not None else None,
        name,
        _KINDS[kind],
        begun,
        end if type(end) is int and 0 < end < _MAX_INT else _integer(end) or begun,
        _STATUSES[status],
        str(error) if error is not None else None,
        scope,
        str(own_cell_id) if own_cell_id is not None else cell_id,
        server,
        str(model) if model is not None else None,
        inputs,
        outputs,
        cached,
        ttft_s,
        rate,
        None,
        None,
        attributes,
    )


_OTHER_NAMES = frozenset(other for others in semconv.ALIASES.values() for other in others)
#: Most spans have none of these: one look tells.
_FIGURES = frozenset(semconv.ALIASES) - {semconv.REQUEST_MODEL} | {semconv.DECODE_RATE}
_TOLD = (
    _OTHER_NAMES
    | _FIGURES
    | {semconv.REQUEST_MODEL, semconv.CELL_ID, semconv.ERROR_TYPE, semconv.SERVER_ADDRESS, semconv.SERVER_PORT}
)


def _other(attributes: Mapping[str, Any], name: str) -> Any:
    """The attribute under one of its other names."""
    return next((value for other in semconv.ALIASES[name] if (value := attributes.get(other)) is not None), None)


def _integer(value: object) -> int | None:
    if type(value) is int and 0 <= value < _MAX_INT:
        return value
    # Other libraries' attributes: what is not a number (nan included) is not available.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124
        return None
    return int(value) if abs(value) < _MAX_INT else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MAX_INT <= value < _MAX_INT:
        return None
    return float(value)


def _plain(value: Any, depth: int = 0) -> JSON:
    """``value`` as JSON of a bounded size; what JSON has no form for is its text."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + _CUT
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_MAX_INT <= value < _MAX_INT else hex(value)[:_MAX_TEXT]
    if isinstance(value, float):
        return (
            float(value) if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        )
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple, Mapping)):
        if isinstance(value, Mapping):
            pairs = itertools.islice(value.items(), _MAX_ITEMS)
            return {str(key)[:_MAX_NAME]: _plain(one, depth + 1) for key, one in pairs}
        cut: list[JSON] = [_CUT] if len(value) > _MAX_ITEMS else []
        return [_plain(one, depth + 1) for one in value[:_MAX_ITEMS]] + cut
    return str(value)[:_MAX_TEXT]

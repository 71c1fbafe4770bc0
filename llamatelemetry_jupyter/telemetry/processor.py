"""The one span processor that we put on a provider: it packs ended spans into rows.

A provider has no way to remove a processor, so there is one per provider for good; it can be switched off and aimed at
another store, and it never keeps a span object (rows cost an eighth of the memory).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor

from ..values import JSON, SpanRow
from . import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from .store import SpanStore

_ATTRIBUTE = "_llamatelemetry_processor"
_MAX_TEXT = 8192
#: Names that other instrumentations use for what we show → ours.
_ALIASES = {
    semconv.USAGE_INPUT_TOKENS: ("gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    semconv.USAGE_OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    semconv.REQUEST_MODEL: (semconv.RESPONSE_MODEL, "llm.model_name"),
}


class RowProcessor(SpanProcessor):
    """Appends a :class:`SpanRow` to ``store`` for each span that ends; inert while ``store`` is ``None``."""

    def __init__(self) -> None:
        self.store: SpanStore | None = None
        #: Trace id → cell id of cells that are running; a trace that got a span is in :attr:`used`.
        self.cells: dict[str, str | None] = {}
        self.used: set[str] = set()

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

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 (the SDK's signature)
        """Note that a running cell's trace has a span."""
        if self.cells and span.parent is not None:
            trace = f"{span.parent.trace_id:032x}"
            if trace in self.cells:
                self.used.add(trace)

    def on_end(self, span: ReadableSpan) -> None:
        """Pack and append."""
        store = self.store
        scope = span.instrumentation_scope
        if store is None or (scope is not None and scope.name == "graphistry"):
            return
        store.append(pack(span, self.cells))

    def shutdown(self) -> None:
        """The provider is shut down: write what is pending."""
        if self.store is not None:
            self.store.flush()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 (the SDK's signature)
        """Write what is pending."""
        if self.store is not None:
            self.store.flush()
        return True


def pack(span: ReadableSpan, cells: Mapping[str, str | None]) -> SpanRow:
    """The row of an ended span."""
    attributes: Mapping[str, Any] = span.attributes or {}
    context, scope = span.get_span_context(), span.instrumentation_scope
    assert context is not None
    trace_id = f"{context.trace_id:032x}"
    address, port = attributes.get(semconv.SERVER_ADDRESS), attributes.get(semconv.SERVER_PORT)
    error = attributes.get(semconv.ERROR_TYPE)
    return SpanRow(
        trace_id=trace_id,
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        name=span.name,
        kind=span.kind.name.lower(),
        start_ns=span.start_time or 0,
        end_ns=span.end_time or span.start_time or 0,
        status=span.status.status_code.name.lower(),
        error_type=str(error) if error is not None else None,
        scope=scope.name if scope else None,
        cell_id=attributes.get(semconv.CELL_ID) or cells.get(trace_id),
        server=f"{address}:{port}" if address and port else None,
        model=_first(attributes, semconv.REQUEST_MODEL),
        input_tokens=_integer(_first(attributes, semconv.USAGE_INPUT_TOKENS)),
        output_tokens=_integer(_first(attributes, semconv.USAGE_OUTPUT_TOKENS)),
        cached_tokens=_integer(attributes.get(semconv.USAGE_CACHE_READ)),
        ttft_s=attributes.get(semconv.RESPONSE_TIME_TO_FIRST_CHUNK),
        decode_tokens_per_s=attributes.get(semconv.DECODE_RATE),
        attributes={key: _plain(value) for key, value in attributes.items()},
    )


def _first(attributes: Mapping[str, Any], name: str) -> Any:
    for key in (name, *_ALIASES.get(name, ())):
        if (value := attributes.get(key)) is not None:
            return value
    return None


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None


def _plain(value: Any) -> JSON:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…truncated"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value)[:_MAX_TEXT]

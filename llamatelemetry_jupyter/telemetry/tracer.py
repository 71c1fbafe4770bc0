"""Requests as OpenTelemetry spans, on whatever provider the notebook has.

A request is one CLIENT span with three children that say where its time went (queue, prefill, decode), built when it
ends from the server's own timings on the client's clock. Nothing is current while a stream is suspended, so that a
generator that is dropped half way leaves no trace in anybody's context.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from ..clock import now_ns
from ..values import JSON, Outcome
from . import semconv
from .processor import RowProcessor

if TYPE_CHECKING:
    from .store import SpanStore

SCOPE = "llamatelemetry_jupyter"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_MAX_CONTENT = 8192


class Telemetry:
    """The tracer of one session; :meth:`attach` and :meth:`detach` switch its recording on and off."""

    def __init__(self, store: SpanStore, resource: Mapping[str, str] | None = None) -> None:
        self.store = store
        self._resource = dict(resource or {})
        self.processor: RowProcessor | None = None
        self.observer = Observer()

    def attach(self) -> None:
        """Record from now on: on the provider that is set, on one of ours when there is none."""
        provider = trace.get_tracer_provider()
        if not hasattr(provider, "add_span_processor"):
            name = os.environ.get("OTEL_SERVICE_NAME", "notebook")
            provider = TracerProvider(resource=Resource.create({"service.name": name, **self._resource}))
            trace.set_tracer_provider(provider)
        self.processor = RowProcessor.of(provider)
        self.processor.store = self.store

    def detach(self) -> None:
        """Record nothing more; the provider stays, because OpenTelemetry lets it be set only once."""
        if self.processor is not None and self.processor.store is self.store:
            self.processor.store = None
            self.processor.cells.clear()
            self.processor.used.clear()


class Observer:
    """A :class:`~llamatelemetry_jupyter.values.CallObserver` that makes spans."""

    def start(
        self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]
    ) -> RecordedCall:
        """Start the span of a request as a child of the caller's current span."""
        attributes: dict[str, Any] = {
            semconv.OPERATION_NAME: operation,
            semconv.PROVIDER_NAME: semconv.PROVIDER,
            semconv.SERVER_ADDRESS: address,
            semconv.SERVER_PORT: port,
        }
        if model:
            attributes[semconv.REQUEST_MODEL] = model
        if request.get("stream"):
            attributes[semconv.REQUEST_STREAM] = True
        if request.get("response_format") or request.get("json_schema"):
            attributes[semconv.OUTPUT_TYPE] = "json"
        for option, name in semconv.REQUEST_OPTIONS.items():
            value = request.get(option)
            if isinstance(value, (bool, int, float)):
                attributes[name] = value
            elif option == "stop" and value:
                attributes[name] = [value] if isinstance(value, str) else [str(v) for v in _sequence(value)]
        if _captures() and request.get("messages"):
            attributes[semconv.INPUT_MESSAGES] = _cut(json.dumps(request["messages"], ensure_ascii=False))
        tracer = trace.get_tracer(SCOPE, version("llamatelemetry-jupyter"))
        name = f"{operation} {model}" if model else operation
        span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=now_ns())
        return RecordedCall(tracer, span)


class RecordedCall:
    """The span of one request."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer, self._span = tracer, span
        self._context = trace.set_span_in_context(span)
        found = span.get_span_context()
        self.trace_id: str | None = f"{found.trace_id:032x}" if found.is_valid else None
        self.span_id: str | None = f"{found.span_id:016x}" if found.is_valid else None
        headers: dict[str, str] = {}
        inject(headers, context=self._context)
        self.headers: Mapping[str, str] = headers

    def end(self, outcome: Outcome) -> None:
        """The request finished, was interrupted or was abandoned."""
        self._describe(outcome)
        if outcome.abandoned:
            self._span.set_attribute(semconv.STREAM_ABANDONED, True)
        elif outcome.finish_reason == "interrupted":
            self._error("KeyboardInterrupt", "interrupted", outcome)
        self._span.end(end_time=outcome.end_ns)

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        """The request failed; what had arrived is kept."""
        if outcome is not None:
            self._describe(outcome)
        kind = getattr(error, "kind", None) or getattr(error, "status", None) or type(error).__name__
        self._error(str(kind), str(error), outcome)
        self._span.end(end_time=outcome.end_ns if outcome else now_ns())

    def _error(self, kind: str, message: str, outcome: Outcome | None) -> None:
        self._span.set_attribute(semconv.ERROR_TYPE, kind)
        if outcome is not None:
            self._span.set_attribute(semconv.RESPONSE_FINISH_REASONS, ["error"])
        self._span.set_status(Status(StatusCode.ERROR, message))

    def _describe(self, outcome: Outcome) -> None:
        times = outcome.timings
        optional: dict[str, Any] = {
            semconv.RESPONSE_ID: outcome.response_id,
            semconv.RESPONSE_MODEL: outcome.response_model,
            semconv.RESPONSE_FINISH_REASONS: [outcome.finish_reason] if outcome.finish_reason else None,
            semconv.RESPONSE_TIME_TO_FIRST_CHUNK: times.ttft_s,
            semconv.USAGE_INPUT_TOKENS: outcome.input_tokens,
            semconv.USAGE_OUTPUT_TOKENS: outcome.output_tokens,
            semconv.USAGE_CACHE_READ: times.cached_tokens,
            semconv.DECODE_RATE: times.decode_tokens_per_s,
            semconv.SLOT_ID: outcome.slot,
            semconv.OUTPUT_MESSAGES: _cut(outcome.output) if _captures() and outcome.output else None,
            **{semconv.TIMINGS + name: value for name, value in outcome.raw_timings.items()},
            **{semconv.TOKEN_GAP + name: value for name, value in _gaps(outcome.gaps_s).items()},
        }
        self._span.set_attributes({name: value for name, value in optional.items() if value is not None})
        self._phases(outcome)

    def _phases(self, outcome: Outcome) -> None:
        first = outcome.first_token_ns
        if first is None:
            return
        # The server says how long prefill took, the client when the first token came; the rest before it is waiting.
        prefill_ns = round((outcome.timings.prefill_s or 0.0) * 1e9)
        begin = max(outcome.sent_ns, first - prefill_ns)
        for name, start, end in (
            ("queue", outcome.sent_ns, begin),
            ("prefill", begin, first),
            ("decode", first, outcome.end_ns),
        ):
            self._tracer.start_span(name, context=self._context, start_time=start).end(end_time=max(start, end))


def _gaps(gaps_s: Sequence[float]) -> dict[str, float]:
    if not gaps_s:
        return {}
    ordered = sorted(gaps_s)
    last = len(ordered) - 1
    return {"p50_s": ordered[round(0.5 * last)], "p95_s": ordered[round(0.95 * last)], "max_s": ordered[last]}


def _captures() -> bool:
    return os.environ.get(_CAPTURE, "").upper() in ("SPAN_ONLY", "SPAN_AND_EVENT", "TRUE")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CONTENT else text[:_MAX_CONTENT] + "…truncated"


def _sequence(value: JSON) -> Sequence[JSON]:
    return value if isinstance(value, list) else []

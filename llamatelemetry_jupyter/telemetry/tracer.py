"""Requests as OpenTelemetry spans, on whatever provider the notebook has.

A request is one CLIENT span with three children that say where its time went (queue, prefill, decode), built when it
ends from the server's own timings on the client's clock. Nothing is current while a stream is suspended, so that a
generator that is dropped half way leaves no trace in anybody's context.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..clock import now_ns
from ..values import JSON, Outcome
from . import content, privacy, resource, semconv
from .block import Block
from .processor import RowProcessor

if TYPE_CHECKING:
    from .store import SpanStore

SCOPE = "llamatelemetry_jupyter"
# Not the user's configured propagators: baggage is not the server's business.
_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """The tracer of one session; :meth:`attach` and :meth:`detach` switch its recording on and off.

    ``resource`` adds to :func:`.resource.attributes` where the provider has to be ours.
    """

    def __init__(self, store: SpanStore, resource: Mapping[str, str | int] | None = None) -> None:
        self.store = store
        self.processor: RowProcessor | None = None
        self.tracer: trace.Tracer = trace.NoOpTracer()
        self.observer = Observer(self)
        #: The same for calls that no cell makes: each begins a trace of its own, whatever runs meanwhile.
        self.apart = Observer(self, apart=True)
        self._resource = dict(resource or {})
        self._own: TracerProvider | None = None

    @property
    def attached(self) -> bool:
        """Whether spans are recorded in this session's store."""
        return self.processor is not None and self.processor.store is self.store

    def attach(self) -> None:
        """Record from now on: on the provider that is set, on one of ours when there is none."""
        provider: Any = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one
            trace.set_tracer_provider(self._provider())
            provider = trace.get_tracer_provider()
        if not hasattr(provider, "add_span_processor"):  # a provider that only its owner can read
            provider = self._provider()
        self.processor = RowProcessor.of(provider)
        self.processor.store = self.store
        self.tracer = provider.get_tracer(SCOPE, __version__)

    def detach(self) -> None:
        """Record nothing more; the provider stays, because OpenTelemetry lets it be set only once."""
        if self.attached:
            assert self.processor is not None
            self.processor.switch_off()

    def parent(self) -> Context:
        """The context that a span started now belongs to: the current one, on a bare thread the running cell's."""
        current = get_current()
        if self.processor is None or self.processor.cell_context is None:
            return current
        if trace.get_current_span(current).get_span_context().is_valid:
            return current
        return self.processor.cell_context

    def _provider(self) -> TracerProvider:
        if self._own is None:
            self._own = TracerProvider(resource=Resource.create({**resource.attributes(), **self._resource}))
        return self._own


class Observer:
    """A :class:`~llamatelemetry_jupyter.values.CallObserver` that makes spans."""

    def __init__(self, telemetry: Telemetry, *, apart: bool = False) -> None:
        self._telemetry = telemetry
        self._apart = apart

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
        attributes |= _options(request)
        if content.captured() and (said := content.request(request)) is not None:
            attributes[semconv.INPUT_MESSAGES] = said
        span = self._telemetry.tracer.start_span(
            f"{operation} {model}" if model else operation,
            context=Context() if self._apart else self._telemetry.parent(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now_ns(),
        )
        return RecordedCall(self._telemetry, span, {name: attributes[name] for name in _OF_PHASES})

    def step(self, name: str, attributes: Mapping[str, Any]) -> Block:
        """A span around work that sends requests."""
        return Block(lambda: self._telemetry, name, attributes)


_OF_PHASES = (semconv.SERVER_ADDRESS, semconv.SERVER_PORT)


class RecordedCall:
    """The span of one request; only the first :meth:`end` or :meth:`fail` counts, on whatever thread it comes."""

    def __init__(self, telemetry: Telemetry, span: trace.Span, server: Mapping[str, Any]) -> None:
        self._telemetry, self._tracer, self._span, self._server = telemetry, telemetry.tracer, span, server
        self._context = trace.set_span_in_context(span)
        self._lock = threading.Lock()
        self._ended = False
        found = span.get_span_context()
        self.trace_id: str | None = f"{found.trace_id:032x}" if found.is_valid else None
        self.span_id: str | None = f"{found.span_id:016x}" if found.is_valid else None
        headers: dict[str, str] = {}
        _propagator.inject(headers, context=self._context)
        self.headers: Mapping[str, str] = headers

    def end(self, outcome: Outcome) -> None:
        """The request finished, was interrupted or was abandoned."""
        if not self._first():
            return
        self._describe(outcome)
        if outcome.abandoned:
            self._span.set_attribute(semconv.STREAM_ABANDONED, True)
        elif outcome.finish_reason == "interrupted":
            self._error("KeyboardInterrupt", "interrupted")
        elif outcome.finish_reason == "error":
            self._error("_OTHER", "the answer broke off")
        self._finish(outcome)

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        """The request failed; what had arrived is kept."""
        if not self._first():
            return
        if outcome is not None:
            self._describe(outcome)
        if isinstance(error, GeneratorExit):  # the caller left the loop early: its right, no error
            self._span.set_attribute(semconv.STREAM_ABANDONED, True)
        else:
            kind = getattr(error, "kind", None) or getattr(error, "status", None) or type(error).__name__
            self._error(str(kind), str(error))
        self._finish(outcome)

    def _first(self) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
            return first

    def _error(self, kind: str, message: str) -> None:
        self._span.set_attribute(semconv.ERROR_TYPE, kind)
        self._span.set_attribute(semconv.RESPONSE_FINISH_REASONS, ["error"])
        self._span.set_status(Status(StatusCode.ERROR, privacy.message(message)))

    def _finish(self, outcome: Outcome | None) -> None:
        if outcome is not None and self._span.is_recording():
            if outcome.gaps_s and self.span_id is not None and self._telemetry.attached:
                self._telemetry.store.keep_gaps(self.span_id, outcome.gaps_s)
            self._phases(outcome)
        self._span.end(end_time=outcome.end_ns if outcome is not None else now_ns())

    def _describe(self, outcome: Outcome) -> None:
        times = outcome.timings
        optional: dict[str, Any] = {
            semconv.RESPONSE_ID: outcome.response_id,
            semconv.RESPONSE_MODEL: outcome.response_model,
            semconv.RESPONSE_FINISH_REASONS: [outcome.finish_reason]
            if outcome.finish_reason and not outcome.abandoned
            else None,
            semconv.RESPONSE_TIME_TO_FIRST_CHUNK: times.ttft_s if outcome.first_token_ns is not None else None,
            semconv.USAGE_INPUT_TOKENS: outcome.input_tokens,
            semconv.USAGE_OUTPUT_TOKENS: outcome.output_tokens,
            semconv.USAGE_CACHE_READ: times.cached_tokens,
            semconv.DECODE_RATE: times.decode_tokens_per_s,
            semconv.SLOT_ID: outcome.slot,
            semconv.OUTPUT_MESSAGES: content.answer(outcome.output) if outcome.output and content.captured() else None,
            **{semconv.TIMINGS + name: value for name, value in outcome.raw_timings.items()},
            **{semconv.TOKEN_GAP + name: value for name, value in _gaps(outcome.gaps_s).items()},
        }
        self._span.set_attributes({name: value for name, value in optional.items() if value is not None})

    def _phases(self, outcome: Outcome) -> None:
        """Queue, prefill and decode as spans.

        The server says how long prefill took, the client when the first token came; the rest before it is waiting.
        Without the server's word (an answer that broke off) waiting cannot be told from prefill: there is no queue, and
        ``llama_cpp.phases`` says so. An answer in one piece has the server's durations, laid back from its end.
        """
        times, start, end = outcome.timings, outcome.sent_ns, outcome.end_ns
        first = outcome.first_token_ns
        if first is None and times.decode_s is not None:
            first = max(start, end - round(times.decode_s * 1e9))
        if first is None or times.prefill_s is None:
            ready = end if first is None else first
            phases = [("prefill", start, ready)] + ([("decode", ready, end)] if first is not None else [])
            attributes = {**self._server, semconv.PHASES: "queue included in prefill"}
        else:
            begin = max(start, first - round(times.prefill_s * 1e9))
            phases = [("queue", start, begin), ("prefill", begin, first), ("decode", first, end)]
            attributes = {**self._server}
        for name, t0_ns, t1_ns in phases:
            span = self._tracer.start_span(name, context=self._context, attributes=attributes, start_time=t0_ns)
            span.end(end_time=max(t0_ns, t1_ns))


_WHOLE = ("max_tokens", "n_predict", "max_output_tokens", "seed", "top_k")


def _options(request: Mapping[str, JSON]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if request.get("stream"):
        found[semconv.REQUEST_STREAM] = True
    if request.get("response_format") or request.get("json_schema"):
        found[semconv.OUTPUT_TYPE] = "json"
    for option, name in semconv.REQUEST_OPTIONS.items():
        value = request.get(option)
        if option == "stop":
            if isinstance(value, (str, list)) and value:
                found[name] = [value] if isinstance(value, str) else [str(one) for one in value]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = int(value) if option in _WHOLE else float(value)
    return found


def _gaps(gaps_s: Sequence[float]) -> dict[str, float]:
    if not gaps_s:
        return {}
    ordered = sorted(gaps_s)
    last = len(ordered) - 1
    return {"p50_s": ordered[round(0.5 * last)], "p95_s": ordered[round(0.95 * last)], "max_s": ordered[last]}

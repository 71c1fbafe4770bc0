"""Requests of other clients: those that a server's log tells of and that nobody in this kernel has a span for.

The log names no client. A request of ours is known by its timings, which the server tells both its log and us, and its
span gets the slot from the log; one of another library that is traced here (the OpenAI package with its
instrumentation) by its span, which lies around it. What is left has a span of its own, made a moment later, when our
own calls have certainly ended.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from ..values import JSON, ServerEvent, SpanRow
from . import semconv

if TYPE_CHECKING:
    from .tracer import Telemetry

#: A call's end is known here at most so much later than the server's log tells of it.
_WAIT_S = 1.5
#: The log is written a moment after the answer's last byte, and a short request's span ends a moment before.
_SLACK_NS = 50_000_000
_RECENT = 500


class Strangers:
    """Waits until a request can be told from our own, then makes its span."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Telemetry, ServerEvent, str | None, Mapping[str, Any]]] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def seen(self, telemetry: Telemetry, event: ServerEvent, model: str | None, address: Mapping[str, Any]) -> None:
        """The log told of a request that has ended."""
        with self._lock:
            self._waiting.append((telemetry, event, model, dict(address)))
            if self._timer is None:
                self._timer = threading.Timer(_WAIT_S, self._settle)
                self._timer.daemon = True
                self._timer.start()

    def _settle(self) -> None:
        with self._lock:
            waiting, self._waiting, self._timer = self._waiting, [], None
        for telemetry, event, model, address in waiting:
            if not telemetry.attached:
                continue
            known = _known(telemetry, event, address)
            if known is None:
                _record(telemetry, event, model, address)
            elif _same(known, event) and semconv.SLOT_ID not in known.attributes and "slot" in event.data:
                # Answers of the OpenAI kind don't say which slot they are from; the log does.
                telemetry.store.amend(known.span_id, {semconv.SLOT_ID: event.data["slot"]})


def _known(telemetry: Telemetry, event: ServerEvent, address: Mapping[str, Any]) -> SpanRow | None:
    """The span of this kernel that is that request's."""
    server = f"{address.get(semconv.SERVER_ADDRESS)}:{address.get(semconv.SERVER_PORT)}"
    begin_ns, end_ns = _begin_ns(event), event.t_ns
    calls = [
        row
        for row in telemetry.store.rows(last=_RECENT)
        if row.server == server and row.attributes.get(semconv.OPERATION_NAME) in semconv.CALLS
    ]
    around = (
        row
        for row in calls
        if semconv.TIMINGS + "prompt_ms" not in row.attributes
        and row.start_ns - _SLACK_NS <= begin_ns
        and end_ns <= row.end_ns + _SLACK_NS
    )
    return next((row for row in reversed(calls) if _same(row, event)), None) or next(around, None)


def _same(row: SpanRow, event: ServerEvent) -> bool:
    """The log prints times to 0.01 ms."""
    pairs = (("prompt_ms", "prefill_s"), ("predicted_ms", "decode_s"))
    told = [(row.attributes.get(semconv.TIMINGS + ours), event.data.get(logs)) for ours, logs in pairs]
    return all(
        isinstance(ours, (int, float)) and isinstance(logs, (int, float)) and abs(ours - logs * 1e3) < 0.011
        for ours, logs in told
    )


def _begin_ns(event: ServerEvent) -> int:
    return event.t_ns - round(1e9 * sum(_number(event.data.get(name)) for name in ("prefill_s", "decode_s")))


def _record(telemetry: Telemetry, event: ServerEvent, model: str | None, address: Mapping[str, Any]) -> None:
    data, begin_ns = event.data, _begin_ns(event)
    decode_s, output = _number(data.get("decode_s")), data.get("decode_tokens")
    cached, prompt = data.get("cached_tokens"), data.get("prefill_tokens")
    attributes = {
        **address,
        semconv.SERVER_NAME: event.server,
        semconv.PROVIDER_NAME: semconv.PROVIDER,
        semconv.REQUEST_MODEL: model,
        semconv.USAGE_INPUT_TOKENS: data.get("input_tokens", prompt),
        semconv.USAGE_OUTPUT_TOKENS: output,
        semconv.USAGE_CACHE_READ: cached,
        semconv.DECODE_RATE: (output - 1) / decode_s if isinstance(output, int) and output > 1 and decode_s else None,
        semconv.SLOT_ID: data.get("slot"),
        semconv.ORIGIN: "server log",
    }
    span = telemetry.tracer.start_span(
        f"request {model}" if model else "request",
        context=Context(),  # a trace of its own: it is not the running cell's
        kind=SpanKind.SERVER,
        start_time=begin_ns,
        attributes={name: value for name, value in attributes.items() if value is not None},
    )
    span.end(end_time=event.t_ns)


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0

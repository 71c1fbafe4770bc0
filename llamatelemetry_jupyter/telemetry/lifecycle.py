"""A server's life as spans: its start with every stage of loading, its sleep, its stop, its crash.

They are built from :class:`~..values.ServerEvent`, on whatever thread noticed them, so nothing here blocks or raises
into a server's room. Requests that its log tells of are handed on to :mod:`.strangers`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from ..values import JSON, ServerEvent
from . import semconv
from .strangers import Strangers

if TYPE_CHECKING:
    from .tracer import Telemetry

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Start:
    """A start that is under way; ``stages`` are names with the moments at which they began."""

    span: trace.Span
    stages: list[tuple[str, int]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """What later spans of a server say about it."""

    model: str | None = None
    address: dict[str, Any] = field(default_factory=dict)
    start: _Start | None = None
    asleep_ns: int | None = None
    stopping_ns: int | None = None


class Lifecycle:
    """Makes spans of servers' events; ``telemetry`` is asked for at each, on the thread of the event.

    ``about`` gives what is to be told of a server that is ready or was attached to.
    """

    def __init__(
        self,
        telemetry: Callable[[], Telemetry],
        about: Callable[[str], Mapping[str, Any]] = lambda _server: {},
    ) -> None:
        self._telemetry = telemetry
        self._about = about
        self._servers: dict[str, _Known] = {}
        self._strangers = Strangers()
        self._lock = threading.Lock()
        self._complained = False

    def tell(self, event: ServerEvent) -> None:
        """Something happened to a server."""
        try:
            with self._lock:
                self._on(event)
        except Exception:  # noqa: BLE001 (a span that fails must not end the thread that watches a server)
            if not self._complained:
                self._complained = True
                _log.exception("a server's event could not be recorded; further failures are not logged")

    def _on(self, event: ServerEvent) -> None:
        known = self._servers.setdefault(event.server, _Known())
        data = event.data
        match event.kind:
            case "spawned":
                self._spawned(event, known)
            case "load_stage" if known.start is not None:
                known.start.stages.append((str(data.get("stage")), event.t_ns))
            case "buffer" if known.start is not None:
                size = data.get("bytes")
                key = f"{data.get('device')}.{data.get('owner')}"
                added = size if isinstance(size, int) else 0
                # A compute buffer is announced again when it is reserved anew; other kinds add up.
                known.start.memory[key] = added + (0 if key.endswith(".compute") else known.start.memory.get(key, 0))
            case "warning" if known.start is not None:
                known.start.warnings.append(str(data.get("cause")))
            case "ready" | "attached":
                known.address = _address(data.get("url"))
                about = self._about(event.server)
                if known.start is not None:
                    known.start.span.set_attributes(about)
                    self._started(event, known)
            case "stopping":
                known.stopping_ns = event.t_ns
            case "sleep":
                known.asleep_ns = event.t_ns
            case "wake" if known.asleep_ns is not None:
                self._span("server sleep", event, known, start_ns=known.asleep_ns)
                known.asleep_ns = None
            case "stopped" | "crashed":
                self._ended(event, known)
            case "request":
                self._strangers.seen(self._telemetry(), event, known.model, known.address)

    def _spawned(self, event: ServerEvent, known: _Known) -> None:
        model = event.data.get("model")
        known.model = model if isinstance(model, str) else None
        telemetry = self._telemetry()
        span = telemetry.tracer.start_span(
            f"server start {known.model}" if known.model else "server start",
            context=telemetry.parent(),
            start_time=event.t_ns,
            attributes=_said(event, {semconv.REQUEST_MODEL: known.model, semconv.ENGINE: event.data.get("engine")}),
        )
        known.start = _Start(span)

    def _started(self, event: ServerEvent, known: _Known) -> None:
        start, known.start = known.start, None
        assert start is not None
        start.span.set_attributes(
            {
                **known.address,
                **_given({semconv.SLOTS: event.data.get("slots"), semconv.CTX: event.data.get("ctx_per_slot")}),
                **{f"{semconv.MEMORY}{name}": size for name, size in start.memory.items()},
            }
        )
        self._finish(start, event.t_ns, known)

    def _finish(self, start: _Start, end_ns: int, known: _Known) -> None:
        tracer, inside = self._telemetry().tracer, trace.set_span_in_context(start.span)
        if start.warnings:
            start.span.set_attribute(semconv.WARNINGS, start.warnings)
        ends = [begin_ns for _, begin_ns in start.stages[1:]] + [end_ns]
        for (name, begin_ns), stage_end_ns in zip(start.stages, ends, strict=True):
            stage = tracer.start_span(name, context=inside, start_time=begin_ns, attributes=known.address)
            stage.end(end_time=max(begin_ns, stage_end_ns))
        start.span.end(end_time=end_ns)

    def _ended(self, event: ServerEvent, known: _Known) -> None:
        reason = str(event.data.get("reason") or "")
        start, known.start = known.start, None
        begin_ns, known.stopping_ns, known.asleep_ns = known.stopping_ns, None, None
        if start is not None:
            crashed = event.kind == "crashed"
            start.span.set_attribute(semconv.ERROR_TYPE, "server_crashed" if crashed else "interrupted")
            start.span.set_status(Status(StatusCode.ERROR, reason if crashed else "stopped while it started"))
            self._finish(start, event.t_ns, known)
        elif event.kind == "crashed":
            self._span("server crash", event, known, error=reason)
        else:
            self._span("server stop", event, known, start_ns=begin_ns)

    def _span(
        self, name: str, event: ServerEvent, known: _Known, *, start_ns: int | None = None, error: str | None = None
    ) -> None:
        telemetry = self._telemetry()
        span = telemetry.tracer.start_span(
            f"{name} {known.model}" if known.model else name,
            context=telemetry.parent(),
            start_time=min(start_ns or event.t_ns, event.t_ns),
            attributes=_said(event, {semconv.REQUEST_MODEL: known.model}) | known.address,
        )
        if (code := event.data.get("returncode")) is not None:
            span.set_attribute(semconv.EXIT_CODE, int(str(code)))
        if error is not None:
            span.set_attribute(semconv.ERROR_TYPE, "server_crashed")
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=event.t_ns)


def _said(event: ServerEvent, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {semconv.SERVER_NAME: event.server, **_given(attributes)}


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _address(url: JSON) -> dict[str, Any]:
    if not isinstance(url, str):
        return {}
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {semconv.SERVER_ADDRESS: parts.hostname or "", semconv.SERVER_PORT: port}

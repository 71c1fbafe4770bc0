"""Metrics sent to an OpenTelemetry receiver over OTLP/HTTP, once a minute, only when asked for.

Counts are cumulative, so a round that fails loses nothing: the next one says all of it. Messages are those of
``opentelemetry-exporter-otlp-proto-common``, the SDK's own encoder.
"""

from __future__ import annotations

import atexit
import base64
import dataclasses
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ExportError
from . import privacy, semconv
from .destination import Destination
from .otlp_http import TIMEOUT_S, Connection, said

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData

_log = logging.getLogger(__name__)
_INTERVAL, _TEMPORALITY = "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """``points`` were in the newest round that was taken, ``rounds`` of them were; ``error`` is the last one's."""

    rounds: int
    points: int
    error: str | None
    running: bool


class MetricsExporter:
    """Sends what ``read`` gives every ``interval_s`` and at :meth:`close`.

    ``everything``: attributes as they are; else without content, paths and names of hosts.
    """

    def __init__(
        self,
        read: Callable[[], MetricsData],
        destination: Destination,
        *,
        everything: bool = False,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        _require()
        self.interval_s = interval_s
        self._read, self._everything = read, everything
        self._http = Connection(destination)
        self._pid = os.getpid()
        self._rounds = self._points = 0
        self._error: str | None = None
        self._stop = threading.Event()
        self._deadline_s = math.inf
        self._thread = threading.Thread(target=self._run, name="llamatelemetry-otlp-metrics", daemon=True)
        atexit.register(self.close)

    def start(self, known: str | None = None) -> MetricsExporter:
        """Send from now on; the first round at once. ``known``: why that will fail, which is not told again."""
        self._error = known
        self._thread.start()
        return self

    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self._rounds, self._points, self._error, not self._stop.is_set())

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send once more, within ``timeout_s``, and end; a receiver that is away is not asked again."""
        self.end(timeout_s)
        self.join(timeout_s)

    def end(self, timeout_s: float) -> None:
        """Begin to :meth:`close`; returns at once."""
        atexit.unregister(self.close)
        if os.getpid() == self._pid:  # a forked child has no such thread
            self._deadline_s = time.monotonic() + timeout_s
            self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended."""
        if os.getpid() == self._pid and self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._send()
            while not self._stop.wait(self.interval_s):
                self._send()
            if self._error is None:
                self._send()
        except Exception as error:  # noqa: BLE001 (a thread has nobody to raise to)
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self._stop.set()
            self._http.close()

    def _send(self) -> None:
        data = self._read()
        if not self._everything:
            data = public(data)
        body, points = encoded(data, as_json=self._http.as_json)
        reply = self._http.post(body, self._deadline_s - time.monotonic())
        if reply.error is not None:
            self._failed(reply.error)
            return
        refused, why = (0, "") if self._http.as_json else _refused(reply.content)
        self._rounds, self._points = self._rounds + 1, points - refused
        if refused:
            self._failed(f"{refused} points were refused{said(why)}")
        else:
            self._error = None

    def _failed(self, error: str) -> None:
        if self._error is None:
            _log.warning("metrics cannot be sent to %s: %s", self._http.destination.host, error)
        self._error = error


def interval(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds between rounds, as ``OTEL_METRIC_EXPORT_INTERVAL`` (milliseconds) says; raises ExportError."""
    if (asked := environ.get(_TEMPORALITY, "").strip().lower()) not in ("", "cumulative"):
        raise ExportError(f"metrics are cumulative here, not {asked[:20]!r}", hint=f"%env {_TEMPORALITY}=cumulative")
    given = environ.get(_INTERVAL, "").strip()
    if not given:
        return _INTERVAL_S
    if not given.isascii() or not given.isdigit() or int(given) < 1_000:
        raise ExportError(f"{_INTERVAL} is in milliseconds, 1000 or more", hint=f"%env {_INTERVAL}=60000")
    return int(given) / 1e3


def public(data: MetricsData) -> MetricsData:
    """``data`` without content, paths and names of hosts.

    Points that differ in what is left out stay apart by ``server.address``: ``[host]``, ``[host] 2``, …
    """
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

    return MetricsData(
        [
            dataclasses.replace(
                of,
                resource=Resource(_told(of.resource.attributes), of.resource.schema_url),
                scope_metrics=[
                    dataclasses.replace(scope, metrics=[_public(metric) for metric in scope.metrics])
                    for scope in of.scope_metrics
                ],
            )
            for of in data.resource_metrics
        ]
    )


def _told(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return privacy.public(dict(attributes or {}))


def _public(metric: Metric) -> Metric:
    seen: dict[str, int] = {}
    points: list[Any] = []
    for point in metric.data.data_points:
        about = _told(point.attributes)
        key = json.dumps(about, sort_keys=True, default=str)
        seen[key] = number = seen.get(key, 0) + 1
        if number > 1:
            about[semconv.SERVER_ADDRESS] = f"{about.get(semconv.SERVER_ADDRESS, '')} {number}".lstrip()
        examples = [
            dataclasses.replace(one, filtered_attributes=_told(one.filtered_attributes)) for one in point.exemplars
        ]
        points.append(dataclasses.replace(point, attributes=about, exemplars=examples))
    return dataclasses.replace(metric, data=dataclasses.replace(metric.data, data_points=points))  # type: ignore[arg-type]


def encoded(data: MetricsData, *, as_json: bool) -> tuple[bytes, int]:
    """``data`` as an ``ExportMetricsServiceRequest``, and how many points are in it."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

    points = sum(
        len(metric.data.data_points)
        for of in data.resource_metrics
        for scope in of.scope_metrics
        for metric in scope.metrics
    )
    message = encode_metrics(data)
    if not as_json:
        return message.SerializeToString(), points
    found = _hexadecimal(MessageToDict(message, use_integers_for_enums=True))
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode(), points


def _hexadecimal(found: Any) -> Any:
    """Ids in hexadecimal, as OTLP's JSON has them, where protobuf's has base64."""
    if isinstance(found, list):
        return [_hexadecimal(one) for one in found]
    if isinstance(found, dict):
        return {
            name: base64.b64decode(value).hex() if name in ("traceId", "spanId") else _hexadecimal(value)
            for name, value in found.items()
        }
    return found


def _refused(body: bytes) -> tuple[int, str]:
    """How many points a receiver says in its answer that it did not take, and why."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
    except DecodeError:  # receivers answer with a page or with nothing, too
        return 0, ""
    return partial.rejected_data_points, partial.error_message


def _require() -> None:
    try:
        import opentelemetry.exporter.otlp.proto.common.metrics_encoder  # noqa: F401
    except ImportError as error:
        raise ExportError(
            "OTLP of metrics needs the package opentelemetry-exporter-otlp-proto-common",
            hint='%pip install "llamatelemetry-jupyter[otlp]"',
        ) from error

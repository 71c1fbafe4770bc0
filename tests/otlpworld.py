"""An OTLP/HTTP receiver on loopback, built from opentelemetry-proto alone, that can refuse, hang and cut off."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Collector:
    """What arrived; ``answers`` are statuses for the next requests (200 when there are none), ``silent`` lets them wait."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    answer: bytes = b""
    silent: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)

    def requests(self) -> list[Any]:
        """protobuf's own ``ExportTraceServiceRequest`` messages, in order of arrival."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return self._messages("/v1/traces", ExportTraceServiceRequest)

    def metrics(self) -> list[Any]:
        """protobuf's own ``ExportMetricsServiceRequest`` messages, in order of arrival."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        return self._messages("/v1/metrics", ExportMetricsServiceRequest)

    def points(self) -> list[Any]:
        """protobuf's own ``Metric`` messages, of the newest request only: counts are cumulative."""
        newest = self.metrics()[-1]
        return [m for r in newest.resource_metrics for scope in r.scope_metrics for m in scope.metrics]

    def _messages(self, path: str, message: Any) -> list[Any]:
        from google.protobuf import json_format

        found = []
        for body, headers, where in zip(list(self.bodies), list(self.headers), list(self.paths), strict=False):
            if not where.endswith(path):
                continue
            if headers["content-type"] == "application/json":
                found.append(json_format.ParseDict(_base64(json.loads(body)), message()))
            else:
                found.append(message.FromString(body))
        return found

    def spans(self) -> list[Any]:
        """protobuf's own ``Span`` messages, in order of arrival."""
        return [
            s for request in self.requests() for r in request.resource_spans for one in r.scope_spans for s in one.spans
        ]


def _base64(found: Any) -> Any:
    """OTLP's JSON with its hexadecimal ids in base64, as protobuf reads them."""
    if isinstance(found, list):
        return [_base64(one) for one in found]
    if not isinstance(found, dict):
        return found
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64encode(bytes.fromhex(value)).decode() if name in ids else _base64(value)
        for name, value in found.items()
    }


def attributes(pairs: Any) -> dict[str, Any]:
    """protobuf's ``KeyValue`` messages as a dict of texts, numbers and truth values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    world = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if world.silent:
                world.arrived.set()
                world.release.wait(30)
                self.close_connection = True
                return
            status = world.answers.pop(0) if world.answers else 200
            if status == 200:
                world.paths.append(self.path)
                world.headers.append({name.lower(): value for name, value in self.headers.items()})
                world.bodies.append(body)  # last: who finds a body finds the rest
            answer = world.answer if status == 200 else b"no, because of reasons"
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf" if status == 200 else "text/plain")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            world.arrived.set()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield world
    finally:
        world.release.set()
        server.shutdown()
        server.server_close()
        thread.join()

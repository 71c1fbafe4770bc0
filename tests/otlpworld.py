"""An OTLP/HTTP receiver on loopback, built from opentelemetry-proto alone, that can refuse, hang and cut off."""

from __future__ import annotations

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
        from google.protobuf import json_format
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for body, headers in zip(list(self.bodies), list(self.headers), strict=True):
            if headers["content-type"] == "application/json":
                data = json.loads(body)
                for span in (s for r in data["resourceSpans"] for one in r["scopeSpans"] for s in one["spans"]):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in span:
                            span[name] = __import__("base64").b64encode(bytes.fromhex(span[name])).decode()
                found.append(json_format.ParseDict(data, ExportTraceServiceRequest()))
            else:
                found.append(ExportTraceServiceRequest.FromString(body))
        return found

    def spans(self) -> list[Any]:
        """protobuf's own ``Span`` messages, in order of arrival."""
        return [
            s for request in self.requests() for r in request.resource_spans for one in r.scope_spans for s in one.spans
        ]


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
                world.bodies.append(body)
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

"""Spans of other processes: an OTLP/HTTP receiver on loopback that puts them into the notebook's store.

Its address holds a random part, so that only who was told it can send; it takes OTLP's own two media types alone, which
no web page can send here without asking first, and asking is not answered. Bodies are bounded before and after
decompression. Content of other processes is kept only where this session captures content.
"""

from __future__ import annotations

import http.server
import json
import logging
import secrets
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ExportError
from ..values import JSON, SpanRow
from . import otlp_json, otlp_proto, privacy
from .wire import Wire, to_row

if TYPE_CHECKING:
    from .store import SpanStore

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
MAX_BODY = 16 * 2**20
MAX_PLAIN = 64 * 2**20
_AT_ONCE = 4
_TIMEOUT_S = 10.0
_REMEMBERED = 20_000  # spans that a sender may send again after a lost answer


class Receiver:
    """Takes spans at :attr:`endpoint` until :meth:`close`; ``resources`` are what this kernel calls itself.

    Raises ExportError when ``port`` is taken.
    """

    def __init__(self, store: SpanStore, resources: Sequence[Mapping[str, JSON]], port: int = 0) -> None:
        self.received = self.duplicates = 0
        self._store = store
        self._resources = resources
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._lock = threading.Lock()
        self._known: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._ids: set[tuple[str, str]] = set()
        try:
            self._server = _Server((_HOST, port), self.take, f"{self._path}/v1/traces")
        except OSError as error:
            raise ExportError(f"port {port} cannot be used: {error.strerror}", hint="%llama receive") from error
        except OverflowError as error:
            raise ExportError(f"there is no port {port}", hint="%llama receive --port 4318") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="llamatelemetry-receiver", daemon=True
        )
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """The base address: what ``OTEL_EXPORTER_OTLP_ENDPOINT`` of a sender has to say."""
        return f"http://{_HOST}:{self.port}{self._path}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that shall send here: ``subprocess.run(…, env=os.environ | r.environment)``."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    def take(self, spans: Iterable[Wire]) -> None:
        """Put spans into the store, each once; those of this kernel are there already. Raises ``ValueError``."""
        content = privacy.captured_in_session()
        rows = [privacy.received(to_row(span, *self._resources), content=content) for span in spans]
        new = unknown(self._store, rows)
        with self._lock:
            self.duplicates += len(rows) - len(new)
        for row in new:
            ids = (row.trace_id, row.span_id)
            with self._lock:
                if ids in self._ids:
                    self.duplicates += 1
                    continue
                if len(self._known) == _REMEMBERED:
                    self._ids.discard(self._known[0])
                self._known.append(ids)
                self._ids.add(ids)
                self.received += 1
            self._store.append(row)

    def __repr__(self) -> str:
        again = f", {self.duplicates} more were here already" if self.duplicates else ""
        return (
            f"receiving spans: {self.received} so far{again}. A process with this in its environment sends here:\n"
            f"OTEL_EXPORTER_OTLP_ENDPOINT={self.endpoint}"
        )

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def unknown(store: SpanStore, rows: Sequence[SpanRow]) -> list[SpanRow]:
    """Those of ``rows`` that ``store`` has no span of, each once."""
    if not rows:
        return []
    # A span that is there already ended at the same moment.
    known = {(row.trace_id, row.span_id) for row in store.rows(since_ns=min(row.end_ns for row in rows))}
    found: dict[tuple[str, str], SpanRow] = {}
    for row in rows:
        if (ids := (row.trace_id, row.span_id)) not in known:
            found.setdefault(ids, row)
    return list(found.values())


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a port that was just closed; never one that somebody listens on

    def __init__(self, address: tuple[str, int], take: Callable[[Iterable[Wire]], None], path: str) -> None:
        self.take, self.path = take, path
        self.room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (the library's signature)
        """A client that went away is no news for a notebook."""
        _log.debug("a request to the receiver broke off", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S
    server_version, sys_version = "llamatelemetry", ""
    protocol_version = "HTTP/1.1"
    _loaders: ClassVar = {"application/json": otlp_json.loads, "application/x-protobuf": otlp_proto.loads}

    def do_POST(self) -> None:
        """Take a request's spans."""
        with self.server.room:
            status, said = self._take()
        as_json = self.headers.get_content_type() == "application/json"
        body = b"" if status == 200 and not as_json else json.dumps({"message": said} if said else {}).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/x-protobuf" if status == 200 and not as_json else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _take(self) -> tuple[int, str]:
        if not secrets.compare_digest(self.path.encode(), self.server.path.encode()):
            return 404, "not an address of this receiver"
        loads = self._loaders.get(self.headers.get_content_type())
        if loads is None:
            return 415, "application/x-protobuf and application/json are taken"
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            return 411, "Content-Length is missing"
        if int(length) > MAX_BODY:
            return 413, f"more than {MAX_BODY} bytes"
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return 400, "the body is cut"
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding == "gzip":
            try:
                body = _unzipped(body)
            except (zlib.error, ValueError) as error:
                return 413 if isinstance(error, ValueError) else 400, str(error)
        elif encoding != "identity":
            return 415, "gzip is taken, and no encoding"
        try:
            if loads is otlp_proto.loads:
                otlp_proto.require()
            self.server.take(loads(body))
        except ExportError as error:
            return 415, f"{error}; try: {error.hint}, or OTEL_EXPORTER_OTLP_PROTOCOL=http/json"
        except (ValueError, RecursionError) as error:
            return 400, str(error)[:200]
        return 200, ""

    def log_message(self, *args: object) -> None:
        """Say nothing: the notebook is not a server's terminal."""


def _unzipped(body: bytes) -> bytes:
    """Raises ``ValueError`` for more than :data:`MAX_PLAIN` bytes and ``zlib.error`` for what is no gzip."""
    found = bytearray()
    left = body
    while left:
        unzip = zlib.decompressobj(wbits=31)
        found += unzip.decompress(left, MAX_PLAIN + 1 - len(found))
        if len(found) > MAX_PLAIN:
            raise ValueError(f"more than {MAX_PLAIN} bytes when decompressed")
        if not unzip.eof:
            raise zlib.error("the gzip stream is cut")
        left = unzip.unused_data
    return bytes(found)

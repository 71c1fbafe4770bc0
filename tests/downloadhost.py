"""A host that files are downloaded from: HTTP/1.1 on loopback with ranges, validators, redirects, and what goes wrong with them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """``cuts`` closes the connection after so many bytes, once for each number; ``statuses`` are answered first, once each.

    ``pauses`` are seconds to wait before each of as many equal pieces in which the file is sent.
    """

    content: bytes = b""
    etag: str | None = '"v1"'
    ranges: bool = True
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    pauses: list[float] = field(default_factory=lambda: [0.0])
    range_start: int | None = None  # what a lying server says that it sends


@dataclass
class Host:
    url: str
    files: dict[str, File]
    hits: list[tuple[str, str, str | None, str | None]]  # method, path, Range, If-Range


@contextmanager
def download_host() -> Iterator[Host]:
    """A host that ends with the block."""
    files: dict[str, File] = {}
    hits: list[tuple[str, str, str | None, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body):
            hits.append((self.command, self.path, self.headers["Range"], self.headers["If-Range"]))
            file = files.get(self.path)
            status = 404 if file is None else file.statuses.pop(0) if file.statuses else 302 if file.location else 200
            if status != 200:
                self.send_response(status)
                if file is not None and file.location:
                    self.send_header("Location", file.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, total = 0, len(file.content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            same = self.headers["If-Range"] in (None, file.etag)
            if asked and file.ranges and same:
                start = int(asked[1])
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                first = start if file.range_start is None else file.range_start
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            else:
                self.send_response(200)
            if file.etag:
                self.send_header("ETag", file.etag)
            if file.length:
                self.send_header("Content-Length", str(total - start))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if not body:
                return
            rest = file.content[start:]
            if file.cuts:
                rest = rest[: file.cuts.pop(0)]
                self.close_connection = True
            piece = -(-len(rest) // len(file.pauses)) or 1
            for pause_s, begin in zip(file.pauses, range(0, len(rest), piece), strict=False):
                time.sleep(pause_s)
                try:
                    self.wfile.write(rest[begin : begin + piece])
                except (BrokenPipeError, ConnectionResetError):
                    return  # who asked has been stopped

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Host(f"http://127.0.0.1:{server.server_port}", files, hits)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

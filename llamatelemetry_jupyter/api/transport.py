"""The synchronous way to a server: kept connections, deadlines, and a socket that any thread can shut down.

Standard library only: :mod:`http.client` takes no proxy from the environment, costs a few microseconds per event and
leaves the socket in our hands.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any

from . import failures
from .address import CONNECT_TIMEOUT_S, IDLE_S, Endpoint

# A kept connection holds a thread of llama.cpp's server.
_KEPT = 4
#: A whole answer larger than this is none.
MAX_BODY_BYTES = 512 << 20
# recv of more than 128 KiB maps and unmaps memory on every call: five times the cost of parsing a token.
_READ_BYTES = 65536


class _Deadline(socket.socket):
    """A socket's reads within a moment, however slowly the bytes come; ``None``: each read within its timeout."""

    deadline: float | None = None

    def recv_into(self, *args: Any) -> int:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.settimeout(left)
        return super().recv_into(*args)

    def makefile(self, mode: str = "r", *args: Any, **options: Any) -> Any:
        """As everywhere, but a response's reads are 64 KiB and not 8."""
        return super().makefile(mode, _READ_BYTES) if mode == "rb" else super().makefile(mode, *args, **options)  # type: ignore[call-overload]


class _Secure(_Deadline, ssl.SSLSocket):
    pass


class Wire:
    """A request on its connection: :meth:`open` tells status and type, :meth:`read` what comes, then :meth:`close`."""

    def __init__(self, pool: Pool, connection: http.client.HTTPConnection, *, reused: bool) -> None:
        self.reused = reused
        self._pool = pool
        self._connection = connection
        # http.client hands the socket to the response and forgets it; hang_up() needs it.
        assert isinstance(connection.sock, _Deadline)
        self.socket = connection.sock
        self._response: http.client.HTTPResponse | None = None
        self.read: Any = None

    def send(self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str], timeout_s: float) -> None:
        """Send a request; headers and a whole body must have come within ``timeout_s``."""
        self.socket.settimeout(timeout_s)
        self.socket.deadline = time.monotonic() + timeout_s
        self._connection.request(method, self._pool.endpoint.prefix + path, payload, dict(headers))

    def open(self) -> tuple[int, str | None]:
        """Status and content type, once the headers are there."""
        self._response = response = self._connection.getresponse()
        self.read = response.read1
        return response.status, response.headers.get("Content-Type")

    def stream(self, timeout_s: float) -> None:
        """From now on each read may take ``timeout_s``."""
        self.socket.deadline = None
        self.socket.settimeout(timeout_s)

    def whole(self) -> bytes:
        """The rest of the answer, within the deadline of :meth:`send`."""
        parts, size = [], 0
        while part := self.read(_READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise failures.malformed(f"the answer is larger than {MAX_BODY_BYTES >> 20} MiB", parts[0])
        assert self._response is not None
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        self._response.close()  # read1() leaves an answer with a length open
        return b"".join(parts)

    def readable(self) -> bytes:
        """As much of a refusal as comes, at most 64 KiB: the status alone already says what happened."""
        body = b""
        with contextlib.suppress(*failures.CONNECTION_ERRORS):
            while len(body) < _READ_BYTES and (part := self.read(_READ_BYTES)):
                body += part
        return body

    def hang_up(self) -> None:
        """Shut the socket down: a reader in any thread wakes up, the server frees the slot."""
        # Already closed by the peer or by us: then there is nothing left to end.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self, keep: bool = False) -> None:
        """Give the connection back to be used again (``keep``, when its answer was read to the end), or close it."""
        response = self._response
        if keep and response is not None and not response.will_close:
            if not response.isclosed():
                # The answer's last event is there; its framing comes with it or right behind.
                with contextlib.suppress(*failures.CONNECTION_ERRORS):
                    self.socket.deadline = time.monotonic() + 0.02
                    self.read(_READ_BYTES)
            if response.isclosed() and self._connection.sock is not None:
                self._pool.give(self._connection)
                return
        if response is not None:
            # A response holds the socket open, and an error's traceback may hold the response for long.
            response.close()
        self._connection.close()


class Pool:
    """Connections to one server for any number of threads; idle ones are kept for a moment."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[tuple[http.client.HTTPConnection, float, int]] = []
        self._lock = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        repeatable: bool,
    ) -> tuple[int, bytes]:
        """Status and whole body of an answer, within ``timeout_s``; raises :class:`ServerError`."""
        while True:
            wire = self.post(method, path, payload, headers, timeout_s, fresh=not repeatable)
            kept = False
            try:
                status, _ = wire.open()
                content = wire.whole()
                kept = True
                return status, content
            except failures.CONNECTION_ERRORS as exc:
                # The server may have closed a kept connection in the moment in which it was used again.
                if not wire.reused or isinstance(exc, TimeoutError):
                    raise failures.unreachable(self.endpoint.url, exc) from exc
            finally:
                wire.close(kept)

    def post(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        fresh: bool,
    ) -> Wire:
        """A request that is sent; raises :class:`ServerError` when it cannot be.

        ``fresh``: on a new connection. That is for what must not be sent twice: when a kept one ends without an answer,
        nobody can tell whether the server had begun.
        """
        while True:
            wire = self._wire(timeout_s, fresh=fresh)
            try:
                wire.send(method, path, payload, headers, timeout_s)
                return wire
            except failures.CONNECTION_ERRORS as exc:
                wire.close()
                if not wire.reused:
                    raise failures.unreachable(self.endpoint.url, exc) from exc
            except BaseException:
                wire.close()
                raise

    def give(self, connection: http.client.HTTPConnection) -> None:
        """Keep an idle connection."""
        with self._lock:
            self._idle.append((connection, time.monotonic(), os.getpid()))
            spare = self._idle[:-_KEPT]
            del self._idle[:-_KEPT]
        for old, _, _ in spare:
            old.close()

    def close(self) -> None:
        """Close the idle connections; requests under way go on."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _, _ in idle:
            connection.close()

    def __del__(self) -> None:
        self.close()

    def _wire(self, timeout_s: float, *, fresh: bool) -> Wire:
        while not fresh:
            with self._lock:
                if not self._idle:
                    break
                connection, since, pid = self._idle.pop()
            if pid == os.getpid() and time.monotonic() - since < IDLE_S and _silent(connection.sock):
                return Wire(self, connection, reused=True)
            connection.close()
        return Wire(self, self._connect(timeout_s), reused=False)

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        endpoint = self.endpoint
        kind = http.client.HTTPSConnection if endpoint.secure else http.client.HTTPConnection
        connection = kind(endpoint.host, endpoint.port)
        # A name that is not sent again after an answer would open a socket of http.client's own.
        connection.auto_open = 0
        try:
            bare = socket.create_connection((endpoint.host, endpoint.port), min(timeout_s, CONNECT_TIMEOUT_S))
            try:
                connection.sock = self._socket(bare)
            except BaseException:
                bare.close()
                raise
        except failures.CONNECTION_ERRORS as exc:
            raise failures.unreachable(endpoint.url, exc) from exc
        return connection

    def _socket(self, bare: socket.socket) -> _Deadline:
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.endpoint.secure:
            return _Deadline(bare.family, bare.type, bare.proto, fileno=bare.detach())
        context = ssl.create_default_context()
        context.sslsocket_class = _Secure
        secure = context.wrap_socket(bare, server_hostname=self.endpoint.host)
        assert isinstance(secure, _Secure)
        return secure


def _silent(sock: socket.socket | None) -> bool:
    """Whether an idle connection is still there: one that has something to read was closed, or is out of step."""
    if sock is None:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return not selector.select(0)

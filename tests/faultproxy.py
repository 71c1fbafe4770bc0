"""A TCP proxy on loopback that does to an answer what networks do: cuts it up, delays it, breaks it off, spoils it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class FaultProxy:
    """Rules apply to the bytes that come back from the server; ``edit`` sees each block that was read."""

    target: tuple[str, int]
    piece: int | None = None  # send this many bytes at a time
    delay_s: float = 0.0  # before each piece
    cut_after: int | None = None  # close after this many bytes
    reset: bool = False  # close with RST instead of FIN
    edit: Callable[[bytes], bytes] | None = None
    sent: int = 0
    connections: int = 0
    _listener: socket.socket = field(init=False)
    _open: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """End all connections and threads."""
        for each in (self._listener, *self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                each.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _start(self, fn: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=fn, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            forward = self._start(self._forward, client, server)
            self._start(self._answer, server, client, forward)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
        except OSError:
            pass
        _hang_up(server)

    def _answer(self, server: socket.socket, client: socket.socket, forward: threading.Thread) -> None:
        try:
            while data := server.recv(65536):
                if self.edit is not None:
                    data = self.edit(data)
                step = self.piece or len(data) or 1
                for start in range(0, len(data), step):
                    part = data[start : start + step]
                    if self.cut_after is not None and self.sent + len(part) > self.cut_after:
                        client.sendall(part[: self.cut_after - self.sent])
                        self.sent = self.cut_after
                        self._break(client, forward)
                        return
                    if self.delay_s:
                        time.sleep(self.delay_s)
                    client.sendall(part)
                    self.sent += len(part)
        except OSError:
            pass
        finally:
            _hang_up(server)
            _hang_up(client)

    def _break(self, client: socket.socket, forward: threading.Thread) -> None:
        if self.reset:
            # A socket that another thread reads from does not close: let that thread go first.
            client.shutdown(socket.SHUT_RD)
            forward.join(5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()


def _hang_up(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@contextmanager
def fault_proxy(url: str, **rules: object) -> Iterator[FaultProxy]:
    """A proxy in front of the server at ``url``, ended with the block."""
    host, port = url.removeprefix("http://").split(":")
    proxy = FaultProxy((host, int(port)), **rules)  # type: ignore[arg-type]
    try:
        yield proxy
    finally:
        proxy.close()

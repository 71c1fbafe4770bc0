"""A loopback server that answers with fixed bytes, one script per connection: what no engine would do on purpose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

#: What one request gets: bytes, or a function that is given the connection.
Reply = bytes | Callable[[socket.socket], None]


@dataclass
class Loopback:
    """``replies`` are given in order, the last one for ever; ``requests`` are the heads and bodies that came."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    """An HTTP answer with a length: the connection can be used again."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def streamed(body: bytes) -> bytes:
    """A whole stream, in chunks of an event."""
    events = [part + b"\n\n" for part in body.split(b"\n\n") if part]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )


def dripping(data: bytes, pause_s: float) -> Callable[[socket.socket], None]:
    """One byte at a time, with a pause before each."""

    def send(peer: socket.socket) -> None:
        for at in range(len(data)):
            time.sleep(pause_s)
            peer.sendall(data[at : at + 1])

    return send


@contextmanager
def loopback(*replies: Reply | Sequence[Reply]) -> Iterator[Loopback]:
    """A server for the block; a connection is closed after its request when the reply is followed by ``b""``."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Loopback(f"http://127.0.0.1:{listener.getsockname()[1]}")
    waiting = list(replies)
    peers: list[socket.socket] = []
    lock = threading.Lock()

    def talk(peer: socket.socket) -> None:
        held = b""
        with suppress(OSError), peer:
            while True:
                while b"\r\n\r\n" not in held:
                    if not (data := peer.recv(65536)):
                        return
                    held += data
                head, held = held.split(b"\r\n\r\n", 1)
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
                size = int(lengths[0].split(b":")[1]) if lengths else 0
                while len(held) < size:
                    held += peer.recv(65536)
                body, held = held[:size], held[size:]
                with lock:
                    server.requests.append(head + b"\r\n\r\n" + body)
                    reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                for part in reply if isinstance(reply, list | tuple) else [reply]:
                    if part == b"":
                        return
                    peer.sendall(part) if isinstance(part, bytes) else part(peer)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            peers.append(peer)
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        for each in (listener, *peers):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

"""A server that plays back a recorded chat stream of the real engine, as long and as fast as it is asked to.

``model`` of the request says it: ``"20000 0"`` is 20,000 tokens as fast as they are read, ``"2000 1000"`` one every
1,000 µs, whose text is then the time at which it was sent. One event per HTTP chunk, as the engine does it.
``/api/chat`` answers with the same texts in Ollama's protocol.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

RECORDING = Path(__file__).parents[1] / "tests" / "api" / "recorded" / "chat.sse"
_HEAD = (
    "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nX-Accel-Buffering: no\r\nContent-Type: {kind}\r\n"
    "Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)


def _events() -> tuple[list[bytes], list[dict], list[bytes]]:
    """What comes before, the text chunks, and what comes after them."""
    before, texts, after = [], [], []
    for block in RECORDING.read_bytes().split(b"\n\n")[:-1]:
        chunk = None if block == b"data: [DONE]" else json.loads(block[6:])
        if chunk and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            texts.append(chunk)
        else:
            (after if texts else before).append(block + b"\n\n")
    return before, texts, after


def _dumps(chunk: dict) -> bytes:
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()


def _chunked(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


class Replay:
    def __init__(self) -> None:
        self.before, self.texts, self.after = _events()
        self.made: dict[tuple[str, int], bytes] = {}

    def text(self, number: int, content: str | None = None) -> bytes:
        chunk = self.texts[number % len(self.texts)]
        chunk["created"] = 1_795_510_289 + number // 100  # the engine writes the second into every event
        if content is not None:
            chunk["choices"][0]["delta"]["content"] = content
        return b"data: " + _dumps(chunk) + b"\n\n"

    def ollama(self, number: int, content: str | None = None) -> bytes:
        if content is None:
            content = self.texts[number % len(self.texts)]["choices"][0]["delta"]["content"]
        told = {"model": "smol", "created_at": "2026-11-24T08:51:29.123456789Z"}
        return _dumps({**told, "message": {"role": "assistant", "content": content}, "done": False}) + b"\n"

    def serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                if not (data := peer.recv(65536)):
                    return
                held += data
            head, held = held.split(b"\r\n\r\n", 1)
            size = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            while len(held) < size:
                held += peer.recv(65536)
            body, held = held[:size], held[size:]
            tokens, pause_us = map(int, json.loads(body)["model"].split())
            self.answer(peer, "ollama" if b" /api/chat " in head else "openai", tokens, pause_us)

    def answer(self, peer: socket.socket, form: str, tokens: int, pause_us: int) -> None:
        kind = "text/event-stream" if form == "openai" else "application/x-ndjson"
        make = self.text if form == "openai" else self.ollama
        before, after = (self.before, self.after) if form == "openai" else ([], [self.done()])
        opening = _HEAD.format(kind=kind).encode() + b"".join(map(_chunked, before))
        closing = b"".join(map(_chunked, after)) + b"0\r\n\r\n"
        if not pause_us:
            if (form, tokens) not in self.made:
                self.made[form, tokens] = b"".join(_chunked(make(number)) for number in range(tokens))
            peer.sendall(opening + self.made[form, tokens] + closing)
            return
        peer.sendall(opening)
        due = time.monotonic_ns()
        for number in range(tokens):
            due += pause_us * 1000
            while (left := due - time.monotonic_ns()) > 0:
                time.sleep(left / 1e9)
            peer.sendall(_chunked(make(number, str(time.monotonic_ns()))))
        peer.sendall(closing)

    @staticmethod
    def done() -> bytes:
        return _dumps({"model": "smol", "message": {"role": "assistant", "content": ""}, "done": True}) + b"\n"


def main() -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    replay = Replay()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            threading.Thread(target=replay.serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()

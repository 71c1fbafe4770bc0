"""The clients that ``stream_cpu`` compares; each yields the texts of a stream. One per process: ``python … NAME PORT``.

Prints the CPU time per token of a stream that comes as fast as it is read, and how late the tokens of a paced one are.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator

MESSAGES = [{"role": "user", "content": "Say hello."}]


def _body(model: str) -> dict:
    return {"model": model, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}


def floor(port: int, model: str, loads: Callable[[bytes], dict] = json.loads) -> Iterator[str]:
    """recv, split, json: the least that reads this stream in Python; chunk framing is skipped, not followed."""
    body = json.dumps(_body(model)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(head + body)
        held = b""
        while data := peer.recv(65536):
            *events, held = (held + data).split(b"\n\n")
            for event in events:
                payload = event[event.find(b"data: ") + 6 :]
                if payload == b"[DONE]":
                    return
                choices = loads(payload)["choices"]
                if choices and (text := choices[0]["delta"].get("content")):
                    yield text


def floor_orjson(port: int, model: str) -> Iterator[str]:
    import orjson

    return floor(port, model, orjson.loads)


def ours(port: int, model: str) -> Iterator[str]:
    from llamatelemetry_jupyter.api.client import LlamaCppClient

    with LlamaCppClient(f"http://127.0.0.1:{port}").chat_stream(MESSAGES, model=model) as stream:
        for event in stream:
            if event.kind == "text":
                yield event.text


def requests(port: int, model: str) -> Iterator[str]:
    import requests

    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with requests.post(url, json=_body(model), stream=True) as answer:
        yield from _lines(answer.iter_lines(chunk_size=65536))


def httpx(port: int, model: str) -> Iterator[str]:
    import httpx

    with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=_body(model)) as answer:
        yield from _lines(line.encode() for line in answer.iter_lines())


def _lines(lines: Iterator[bytes]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            return
        choices = json.loads(line[6:])["choices"]
        if choices and (text := choices[0]["delta"].get("content")):
            yield text


def openai(port: int, model: str) -> Iterator[str]:
    from openai import OpenAI

    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    asked = {"model": model, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    for chunk in client.chat.completions.create(**asked):
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text


def ollama(port: int, model: str) -> Iterator[str]:
    from ollama import Client

    for part in Client(host=f"http://127.0.0.1:{port}").chat(model=model, messages=MESSAGES, stream=True):
        if text := part.message.content:
            yield text


def main(name: str, port: int, tokens: int, paced: int) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(variable, None)
        os.environ.pop(variable.upper(), None)
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if name == "ours":
        sys.modules["orjson"] = None  # type: ignore[assignment]  # as where it is not installed
    read = ours if name == "ours+orjson" else globals()[name]
    for _ in read(port, "300 0"):  # imports, first connection, caches
        pass
    count, characters, begun = 0, 0, time.process_time()
    for text in read(port, f"{tokens} 0"):
        count += 1
        characters += len(text)
    cpu = time.process_time() - begun
    assert count == tokens, (name, count)
    late = []
    for text in read(port, f"{paced} 1000"):
        late.append(time.monotonic_ns() - int(text))
    print(json.dumps({"cpu_us": cpu / tokens * 1e6, "characters": characters, "late_us": [n / 1000 for n in late]}))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    main(sys.argv[1], *map(int, sys.argv[2:]))

"""Our token stream against a plain socket reader on the same real engine: does the client cost tokens/s, or time to the first?"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llamatelemetry_jupyter.api.client import LlamaCppClient

IDS = ("stream_real", "stream_first")
ID = IDS[0]
_PAIRS = 40
_TOKENS = 64
_GOAL = 0.98
_FIRST_GOAL_MS = 3.0
_MESSAGES = [{"role": "user", "content": "Tell me what llamas eat, where they live and how people keep them."}]
_OPTIONS = {"temperature": 0.0, "seed": 1, "ignore_eos": True, "cache_prompt": True}


@dataclass(frozen=True)
class Measured:
    tokens: int
    seconds: float
    cpu_s: float
    first_s: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def run(pairs: int = _PAIRS) -> list[dict[str, object]]:
    """Two rows: the paired ratio of tokens/s from request to last token, and the paired difference of the first token's time."""
    with _engine() as (url, key):
        client = LlamaCppClient(url, key)
        readers: dict[str, Callable[[], Measured]] = {"ours": lambda: _ours(client), "plain": lambda: _plain(url, key)}
        for read in readers.values():
            read()
        results: dict[str, list[Measured]] = {name: [] for name in readers}
        for number in range(pairs):
            order = ("ours", "plain") if number % 2 else ("plain", "ours")
            for name in order:
                results[name].append(readers[name]())
    ratios = [a.rate / b.rate for a, b in zip(results["ours"], results["plain"], strict=True)]
    low, high = _bootstrap(ratios)
    later = [(a.first_s - b.first_s) * 1000 for a, b in zip(results["ours"], results["plain"], strict=True)]
    least, most = _bootstrap(later)
    first = {name: statistics.median(m.first_s for m in results[name]) * 1000 for name in results}
    ours, plain = (statistics.median(m.rate for m in results[name]) for name in ("ours", "plain"))
    cpu = {name: statistics.median(m.cpu_s / m.tokens for m in results[name]) * 1e6 for name in results}
    method = (
        f"{pairs} interleaved pairs, order alternated, {_TOKENS} tokens each, same prompt and seed, prompt cached, one "
        f"engine on this machine; tokens/s from request to last token; median paired ratio "
        f"{statistics.median(ratios):.3f}, 95 % bootstrap interval {low:.3f}..{high:.3f}; client CPU per token: ours "
        f"{cpu['ours']:.0f} µs, plain {cpu['plain']:.0f} µs (wake-up per token included)"
    )
    return [
        {
            "id": ID,
            "what": "streaming an answer from the real engine",
            "unit": "tokens/s",
            "ours": round(ours, 2),
            "peers": {"plain socket reader": round(plain, 2)},
            "floor": round(plain, 2),
            "ratio": round(statistics.median(ratios), 4),
            "goal": f"95 % interval of the paired ratio reaches {_GOAL}",
            "holds": high >= _GOAL,
            "method": method,
        },
        {
            "id": IDS[1],
            "what": "time from request to the first token on the real engine",
            "unit": "ms",
            "ours": round(first["ours"], 2),
            "peers": {"plain socket reader": round(first["plain"], 2)},
            "floor": round(first["plain"], 2),
            "ratio": None,
            "goal": f"95 % interval of the paired difference reaches +{_FIRST_GOAL_MS:g} ms or less",
            "holds": least <= _FIRST_GOAL_MS,
            "method": f"the same {pairs} pairs; median paired difference {statistics.median(later):+.2f} ms, 95 % bootstrap interval "
            f"{least:+.2f}..{most:+.2f} ms",
        },
    ]


def _ours(client: LlamaCppClient) -> Measured:
    tokens, first, cpu, start = 0, 0.0, time.thread_time(), time.perf_counter()
    with client.chat_stream(_MESSAGES, max_tokens=_TOKENS, **_OPTIONS) as stream:
        for event in stream:
            if event.kind == "text":
                tokens += 1
                first = first or time.perf_counter() - start
    return Measured(tokens, time.perf_counter() - start, time.thread_time() - cpu, first)


def _plain(url: str, key: str) -> Measured:
    """The least that reads this stream in Python: recv, split, json; chunk framing is skipped, not followed."""
    body = json.dumps(
        {
            "messages": _MESSAGES,
            "max_tokens": _TOKENS,
            **_OPTIONS,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        }
    ).encode()
    parts = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    tokens, first, cpu, start = 0, 0.0, time.thread_time(), time.perf_counter()
    with socket.create_connection((parts.hostname, parts.port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(head + body)
        held = b""
        done = False
        while not done and (data := peer.recv(65536)):
            *events, held = (held + data).split(b"\n\n")
            for event in events:
                at = event.find(b"data: ")
                if at < 0:
                    continue
                payload = event[at + 6 :]
                if payload == b"[DONE]":
                    done = True
                    break
                choices = json.loads(payload)["choices"]
                if choices and choices[0]["delta"].get("content"):
                    tokens += 1
                    first = first or time.perf_counter() - start
    return Measured(tokens, time.perf_counter() - start, time.thread_time() - cpu, first)


def _bootstrap(ratios: list[float], rounds: int = 5000) -> tuple[float, float]:
    """The 95 % interval of the median, resampling pairs."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


@contextlib.contextmanager
def _engine() -> Iterator[tuple[str, str]]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from realengine import running_engine

    with running_engine() as engine:
        yield engine.url, engine.key


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))

"""What a span costs: through the SDK, our processor and our store, beside the SDK's own in-memory exporter."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

IDS = ("span_cost", "span_bytes")
ID = IDS[0]
_SPANS = 20_000
_KEPT = 5_000
_ROUNDS = 5
_PEER = "SDK + SimpleSpanProcessor + InMemorySpanExporter"
_ATTRIBUTES: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "llama.cpp",
    "gen_ai.request.model": "smollm2-135m",
    "server.address": "127.0.0.1",
    "server.port": 40123,
    "gen_ai.request.temperature": 0.7,
    "gen_ai.request.max_tokens": 256,
    "gen_ai.request.stream": True,
    "gen_ai.usage.input_tokens": 120,
    "gen_ai.usage.output_tokens": 256,
    "gen_ai.response.time_to_first_chunk": 0.21,
    "gen_ai.response.finish_reasons": ["stop"],
}


def run() -> list[dict[str, object]]:
    """Two rows: µs of the calling thread and retained bytes per span."""
    # A fresh process per measurement, ours and the peer's in turn: what one retains must not slow the other.
    found: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for _ in range(_ROUNDS):
        for who, results in found.items():
            done = subprocess.run([sys.executable, __file__, who], check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout))
    return [
        _result(found, "span_cost", "span with 12 attributes, CPU of the calling thread", "us", "thread_us"),
        _result(found, "span_bytes", "memory kept per span with 12 attributes", "B", "bytes"),
    ]


def _result(found: dict[str, list[dict[str, float]]], name: str, what: str, unit: str, key: str) -> dict[str, object]:
    values = {who: [one[key] for one in results] for who, results in found.items()}
    ours, peer = statistics.median(values["ours"]), statistics.median(values["peer"])
    ratio = statistics.median(a / b for a, b in zip(values["ours"], values["peer"], strict=True))
    spread = ", ".join(f"{who} {min(v):.3g}..{max(v):.3g}" for who, v in values.items())
    all_cpu = {who: statistics.median(one["process_us"] for one in results) for who, results in found.items()}
    return {
        "id": name,
        "what": what,
        "unit": unit,
        "ours": round(ours, 2),
        "peers": {_PEER: round(peer, 2)},
        "floor": None,
        "ratio": round(ratio, 3),
        "goal": 1.0,
        "holds": ratio <= 1.0,
        "method": f"{_SPANS} spans per fresh process, {_ROUNDS} paired rounds, medians; spread: {spread}; ours also writes"
        f" every span to SQLite (CPU of all threads: ours {all_cpu['ours']:.1f} us, peer {all_cpu['peer']:.1f} us)",
    }


def _measure(who: str) -> dict[str, float]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from llamatelemetry_jupyter.telemetry.store import SpanStore
    from llamatelemetry_jupyter.telemetry.tracer import Telemetry

    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    with tempfile.TemporaryDirectory() as folder:
        store = SpanStore(Path(folder) / "spans.sqlite")
        if who == "ours":
            Telemetry(store).attach()
        else:
            provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        tracer = trace.get_tracer("bench")
        _spans(tracer, 1000, store.flush)
        thread, process = time.thread_time(), time.process_time()
        _spans(tracer, _SPANS, lambda: None)
        thread = time.thread_time() - thread
        store.flush()
        process = time.process_time() - process
        gc.collect()
        tracemalloc.start()
        _spans(tracer, _KEPT, store.flush)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        store.close()
    return {"thread_us": thread / _SPANS * 1e6, "process_us": process / _SPANS * 1e6, "bytes": kept / _KEPT}


def _spans(tracer: Any, count: int, after: Callable[[], None]) -> None:
    for number in range(count):
        span = tracer.start_span("chat smollm2-135m", attributes={**_ATTRIBUTES, "gen_ai.usage.output_tokens": number})
        span.end()
    after()


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))

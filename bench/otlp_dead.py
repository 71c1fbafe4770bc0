"""What an OTLP receiver that is dead or hangs costs the cells of a notebook and its end, beside the SDK's own exporter."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

IDS = ("otlp_dead", "otlp_dead_end")
ID = IDS[0]
ROOT = Path(__file__).parents[1]
_ROUNDS = 5
_CELLS = 200
_SPANS = 10
_WORK_S = 0.01
_GAP_S = 0.01
_PEERS = {"SDK Batch": "batch", "SDK Simple": "simple"}
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def run() -> list[dict[str, object]]:
    """Two rows: ms added to a cell, and seconds that the end takes; each the worse of a closed port and a silent server."""
    peers = _PEERS if _python() else {}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with _closed() as closed, _silent() as silent:
        for _ in range(_ROUNDS):
            for where, url in (("closed", closed), ("silent", silent)):
                for who in ("none", "ours", *peers.values()):
                    # One round tells of a peer that takes ten seconds per span as well as five.
                    if who == "simple" and found.get((who, where)):
                        continue
                    found.setdefault((who, where), []).append(_measure(who, url))
    lost = sum(one["lost"] for (who, _), results in found.items() if who == "ours" for one in results)
    added, ends = {}, {}
    for who in ("ours", *peers.values()):
        added[who] = max(
            statistics.median(
                a["p99_ms"] - b["p99_ms"] for a, b in zip(found[who, where], found["none", where], strict=False)
            )
            for where in ("closed", "silent")
        )
        ends[who] = max(statistics.median(one["end_s"] for one in found[who, where]) for where in ("closed", "silent"))
    worst = {f"{who} {where}": max(one["max_ms"] for one in results) for (who, where), results in found.items()}
    method = (
        f"{_CELLS} cells of {_WORK_S * 1e3:.0f} ms with {_SPANS} spans each in a fresh process, {_ROUNDS} interleaved rounds; 99th"
        f" percentile of a cell's wall time less that without an exporter in the same round, median; rows are sent 0.3 s after"
        f" their end here, so that attempts fall into cells; rows lost: {lost}; longest cell of all rounds in ms: "
        + ", ".join(f"{name} {value:.0f}" for name, value in worst.items())
        + ("" if peers else "; the SDK's exporter is not installed")
    )
    names = {kind: name for name, kind in peers.items()}
    return [
        {
            "id": row,
            "what": what,
            "unit": unit,
            "ours": round(values["ours"], 2),
            "peers": {names[who]: round(value, 2) for who, value in values.items() if who != "ours"},
            "floor": None,
            "ratio": None,
            "goal": f"≤ {goal:g} {unit}, nothing lost here",
            "holds": values["ours"] <= goal and not lost,
            "method": method,
        }
        for row, what, unit, values, goal in (
            ("otlp_dead", "a dead or hanging OTLP receiver: added to a cell", "ms", added, 5.0),
            ("otlp_dead_end", "a dead or hanging OTLP receiver: the kernel's end", "s", ends, 2.2),
        )
    ]


def _python() -> str | None:
    try:
        if find_spec(_EXPORTER):
            return sys.executable
    except ModuleNotFoundError:
        pass
    python = ROOT / ".venv-peers" / "bin" / "python"
    check = [python, "-c", f"import {_EXPORTER}.trace_exporter"]
    return str(python) if python.exists() and subprocess.run(check, capture_output=True).returncode == 0 else None


@contextmanager
def _closed() -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        yield f"http://127.0.0.1:{found.getsockname()[1]}"


@contextmanager
def _silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for one in taken:
        one.close()


def _measure(who: str, url: str) -> dict[str, Any]:
    python = _python() if who in _PEERS.values() else sys.executable
    done = subprocess.run([python, __file__, who, url], check=True, capture_output=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _session(who: str, url: str) -> dict[str, float]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    sys.path.insert(0, str(ROOT))
    from llamatelemetry_jupyter.telemetry import destination, otlp
    from llamatelemetry_jupyter.telemetry.store import SpanStore
    from llamatelemetry_jupyter.telemetry.tracer import Telemetry

    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    store = SpanStore(None)
    cells = _CELLS
    if who in ("none", "ours"):
        Telemetry(store).attach()
    if who == "ours":
        otlp._FINAL_S, otlp._ROUND_S, otlp._PAUSE_S = 0.3, 0.2, 0.2  # more attempts than there ever are
        exporter = otlp.Exporter(store, destination.find(url, {}), {"service.name": "bench"})
        exporter.probe()  # as %llama export otlp does
        exporter.start()
    elif who != "none":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        theirs = OTLPSpanExporter(f"{url}/v1/traces", timeout=2)
        batch = who == "batch"
        provider.add_span_processor(
            BatchSpanProcessor(theirs, schedule_delay_millis=300) if batch else SimpleSpanProcessor(theirs)
        )
        cells = _CELLS if batch else 1
    tracer = trace.get_tracer("bench")
    times = []
    for _ in range(cells):
        begun = time.perf_counter()
        for _ in range(_SPANS if who != "simple" else 1):
            tracer.start_span("work", attributes={"n": 1, "text": "x" * 40}).end()
            until = time.perf_counter() + _WORK_S / _SPANS
            while time.perf_counter() < until:
                pass
        times.append(time.perf_counter() - begun)
        time.sleep(_GAP_S)
    begun = time.perf_counter()
    if who == "ours":
        exporter.close()
    elif who != "none":
        provider.shutdown()
    end_s = time.perf_counter() - begun
    kept = len(store.rows())
    store.close()
    times.sort()
    return {
        "p99_ms": times[min(len(times) - 1, int(0.99 * len(times)))] * 1e3,
        "max_ms": times[-1] * 1e3,
        "end_s": end_s,
        "lost": _CELLS * _SPANS - kept if who == "ours" else 0,
    }


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    print(json.dumps(_session(*sys.argv[1:])))

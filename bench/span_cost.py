"""What recording a chat trace costs: the thread that ends spans, the whole process, and the memory that stays."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

IDS = ("span_cost", "span_bytes", "span_peers")
ID = IDS[0]
_SCRIPT = Path(__file__).with_name("_span_traces.py")
_PEERS = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"
_SDK = "SDK + SimpleSpanProcessor + InMemorySpanExporter"
_TRACES = 20_000  # 100,000 spans, all of them kept
_ROUNDS = 3
_MLFLOW_TRACES = 200  # tens of milliseconds each
_MOST_BYTES = 420
#: Peer → how much of its CPU ours may be.
_GOALS = {"util-genai with metrics": 1 / 3, "OpenInference": 1 / 3, "Langfuse": 1 / 3, "MLflow": 1 / 10}


def run() -> list[dict[str, object]]:
    """CPU per trace of the calling thread and bytes per span beside the bare SDK; CPU of all threads beside peers."""
    bare: dict[str, list[dict[str, float]]] = {"ours": [], _SDK: []}
    for _ in range(_ROUNDS):  # in turn, a fresh process each
        for who, found in bare.items():
            found.append(_measured(sys.executable, who))
    rows = [_caller(bare), _bytes(bare)]
    if _PEERS.exists():
        rows.append(_peers())
    return rows


def _measured(python: str | Path, who: str) -> dict[str, float]:
    traces = _MLFLOW_TRACES if who == "MLflow" else _TRACES
    done = subprocess.run([python, _SCRIPT, who, str(traces)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _caller(found: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    ratio = statistics.median(a["thread_us"] / b["thread_us"] for a, b in zip(found["ours"], found[_SDK], strict=True))
    return _row(
        "span_cost", "one complete chat trace (5 spans, 39 attributes), CPU of the calling thread", "us",
        _median(found["ours"], "thread_us"), {_SDK: _median(found[_SDK], "thread_us")}, ratio, 0.8, ratio <= 0.8,
        f"{_TRACES:,} traces per fresh process, all kept; {_ROUNDS} paired rounds, medians; spread: "
        f"{_spread(found, 'thread_us')}; ours also writes every span to SQLite on its own thread (CPU of all threads: ours "
        f"{_median(found['ours'], 'process_us')} us, peer {_median(found[_SDK], 'process_us')} us)",
    )  # fmt: skip


def _bytes(found: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    ours, theirs = _median(found["ours"], "bytes"), _median(found[_SDK], "bytes")
    return _row(
        "span_bytes", "memory kept per span of a chat trace, times between tokens not counted", "B",
        ours, {_SDK: theirs}, ours / theirs, _MOST_BYTES, ours <= _MOST_BYTES,
        f"tracemalloc over 5,000 spans, exact durations by name included; spread: {_spread(found, 'bytes')}",
    )  # fmt: skip


def _peers() -> dict[str, object]:
    found: dict[str, list[dict[str, float]]] = {who: [] for who in ("ours", "ours in memory", "the SDK alone", *_GOALS)}
    missing = []
    for who, results in found.items():
        for _ in range(_ROUNDS):
            try:
                results.append(_measured(_PEERS, who))
            except subprocess.CalledProcessError as error:
                missing.append(f"{who} did not run ({error.stderr.strip().splitlines()[-1][:80]})")
                break
    there = {who: _median(results, "process_us") for who, results in found.items() if results}
    ours = there["ours"]
    ratios = {who: ours / there[who] for who in _GOALS if who in there}
    said = ", ".join(f"{who} {ratio:.2f} (goal {_GOALS[who]:.2f})" for who, ratio in ratios.items())
    return _row(
        "span_peers", "one complete chat trace, CPU of all threads, each by its own API", "us",
        ours, {who: there[who] for who in ratios}, max(ratio / _GOALS[who] for who, ratio in ratios.items()), 1.0,
        all(ratio <= _GOALS[who] for who, ratio in ratios.items()),
        f"ratio to each: {said}; the ratio shown is the one that is furthest from its goal, as a part of it. Ours writes to "
        f"memory and SQLite; without the file {there['ours in memory']} us. The SDK alone, without a processor, takes "
        f"{there['the SDK alone']} us; util-genai and OpenInference keep spans in memory, Langfuse sends them to a server on "
        f"loopback that only reads, MLflow writes SQLite. {_TRACES:,} traces (MLflow {_MLFLOW_TRACES}) per fresh process, "
        f"{_ROUNDS} rounds, medians; spread: {_spread(found, 'process_us')}{'; ' if missing else ''}{'; '.join(missing)}",
        {"floor": there["the SDK alone"]},
    )  # fmt: skip


def _median(results: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(one[key] for one in results), 1)


def _spread(found: dict[str, list[dict[str, float]]], key: str) -> str:
    return ", ".join(
        f"{who} {min(one[key] for one in results):.4g}..{max(one[key] for one in results):.4g}"
        for who, results in found.items()
        if results
    )


def _row(
    name: str, what: str, unit: str, ours: float, peers: dict[str, float], ratio: float, goal: float, holds: bool,
    method: str, more: dict[str, Any] | None = None,
) -> dict[str, object]:  # fmt: skip
    return {
        "id": name, "what": what, "unit": unit, "ours": ours, "peers": peers, "floor": None, "ratio": round(ratio, 3),
        "goal": goal, "holds": holds, "method": method, **(more or {}),
    }  # fmt: skip

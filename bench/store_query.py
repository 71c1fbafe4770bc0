"""A session of a million spans: how fast it is written, opened and asked."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IDS = ("store_write", "store_open", "store_query")
_ROWS = 1_000_000
_CHUNK = 512
_ROUNDS = 5
_MOST_ERROR = 0.02
_SERVER = {"server.address": "127.0.0.1", "server.port": 40123}


def run() -> list[dict[str, object]]:
    """Rows a second, and the seconds and milliseconds of fresh processes on the file that was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.sqlite"
        written = json.loads(_run("write", path))
        rounds = [json.loads(_run("ask", path)) for _ in range(_ROUNDS)]
        size = path.stat().st_size
    memory = json.loads(_run("memory", path))
    rate = written["rows_per_s"]
    opened = statistics.median(one["open_s"] for one in rounds)
    query = statistics.median(one["roots_ms"] + one["latency_ms"] for one in rounds)
    error = max(one["error"] for one in rounds)
    spread = ", ".join(
        f"{key} {min(o[key] for o in rounds):.3g}..{max(o[key] for o in rounds):.3g}" for key in rounds[0]
    )
    return [
        _row(
            "store_write", "rows written to a session's file in a second, attributes as JSON included", "rows/s", round(rate), 150_000,
            rate >= 150_000,
            f"{_ROWS:,} spans of chat traces in transactions of {_CHUNK}: {written['cpu_us']:.2f} us of CPU a row"
            f" ({1e6 / written['cpu_us']:,.0f} rows in a second of it); {size / _ROWS:.0f} B a row on disk",
        ),
        _row(
            "store_open", "open a session of 1,000,000 spans", "s", round(opened, 4), 1.0, opened <= 1.0,
            f"fresh process, import excluded, {_ROUNDS} rounds, medians; spread: {spread}",
        ),
        _row(
            "store_query", "last 1,000 roots and p50/p95 by name of 1,000,000 spans", "ms", round(query, 2), 30,
            query <= 30 and memory["query_ms"] <= 30 and error <= _MOST_ERROR,
            f"from disk, percentiles from the histogram (largest error {error:.2%}); the running session, exact, from memory:"
            f" {memory['query_ms']:.1f} ms; one trace by its id from disk"
            f" {statistics.median(o['trace_ms'] for o in rounds):.1f} ms; all by model, exact, from disk"
            f" {statistics.median(o['scan_s'] for o in rounds):.2f} s; spread: {spread}",
        ),
    ]  # fmt: skip


def _row(name: str, what: str, unit: str, ours: float, goal: float, holds: bool, method: str) -> dict[str, object]:
    return {
        "id": name, "what": what, "unit": unit, "ours": ours, "peers": {}, "floor": None, "ratio": None, "goal": goal,
        "holds": holds, "method": method,
    }  # fmt: skip


def _run(what: str, path: Path) -> str:
    return subprocess.run(
        [sys.executable, __file__, what, str(path)], check=True, capture_output=True, text=True
    ).stdout


def _rows(count: int) -> list[tuple[Any, ...]]:
    """Rows of chat traces of five spans, as the store has them before they are written."""
    from _span_traces import ASKED, CELL, TOLD

    chance, made, now = random.Random(5), [], 1_764_000_000_000_000_000
    for number in range(count // 5):
        trace, cell, chat = (f"{chance.getrandbits(bits):0{bits // 4}x}" for bits in (128, 64, 64))
        start, took = now + number * 10**9, int(chance.lognormvariate(20, 0.7))
        shared = (None, "llamatelemetry_jupyter", CELL["jupyter.cell.id"], "127.0.0.1:40123", "smollm2-135m:Q4_1")
        none = (None,) * 7
        for phase, part in (("queue", 0.01), ("prefill", 0.2), ("decode", 0.75)):
            span = f"{chance.getrandbits(64):016x}"
            end = start + int(took * part)
            made.append((trace, span, chat, phase, "internal", start, end, "unset", *shared, *none, _SERVER))
        told = {**ASKED, **TOLD, "gen_ai.usage.output_tokens": number % 300}
        made.append(
            (trace, chat, cell, "chat smollm2-135m:Q4_1", "client", start, start + took, "unset", *shared,
             120, number % 300, 12, 0.2, 99.5 + number % 7, None, None, told)
        )  # fmt: skip
        made.append(
            (trace, cell, None, "notebook cell", "internal", start, start + took + 10**6, "unset", *shared, *none, CELL)
        )
    return made


def _write(path: Path) -> dict[str, float]:
    from llamatelemetry_jupyter.telemetry._file import SpanFile

    file = SpanFile(path)
    totals = dict.fromkeys(("spans", "traces", "calls", "errors", "input_tokens", "output_tokens", "dropped"), 0)
    rows = _rows(_ROWS // 4)
    cpu = wall = 0.0
    number = 0
    for turn in range(4):
        if turn:  # other ids: the same million would be found four times
            rows = [(f"{turn:x}{row[0][1:]}", *row[1:]) for row in rows]
        c, w = time.thread_time(), time.perf_counter()
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            number += len(part)
            totals["spans"] = number
            file.append(number - len(part), part, {}, totals, {})
        cpu, wall = cpu + time.thread_time() - c, wall + time.perf_counter() - w
    file.close()
    return {"rows_per_s": number / wall, "cpu_us": cpu / number * 1e6, "wall_us": wall / number * 1e6}


def _ask(path: Path) -> dict[str, float]:
    import sqlite3

    from llamatelemetry_jupyter.telemetry.query import Query
    from llamatelemetry_jupyter.telemetry.recorded import RecordedSpans

    begun = time.perf_counter()
    spans = RecordedSpans(path)
    assert spans.totals()["spans"] == _ROWS
    opened = time.perf_counter()
    roots = spans.roots(1000)
    listed = time.perf_counter()
    found = spans.latencies()
    summed = time.perf_counter()
    wanted = roots[0].trace_id
    asked = time.perf_counter()
    assert len(spans.rows(trace_id=wanted)) == 5
    traced = time.perf_counter()
    groups = Query(lambda: spans).groups("model")
    scanned = time.perf_counter()
    assert sum(group.count for group in groups) == _ROWS
    assert len(roots) == 1000
    error = 0.0
    with sqlite3.connect(path) as connection:
        for one in found:
            query = "select end_ns - start_ns from spans where name = ? order by 1"
            exact = [took for (took,) in connection.execute(query, (one.name,))]
            for q, value in ((0.5, one.p50_s), (0.95, one.p95_s)):
                truth = exact[round(q * (len(exact) - 1))] / 1e9
                error = max(error, abs(value / truth - 1))
    return {
        "open_s": opened - begun,
        "roots_ms": (listed - opened) * 1e3,
        "latency_ms": (summed - listed) * 1e3,
        "trace_ms": (traced - asked) * 1e3,
        "scan_s": scanned - traced,
        "error": error,
    }


def _memory(path: Path) -> dict[str, float]:
    """The same of a session that runs."""
    import numpy as np  # noqa: F401 (imported once per session, not per query)

    from llamatelemetry_jupyter.telemetry.store import SpanStore

    store = SpanStore(path)
    rows = _rows(_ROWS // 4)
    for turn in range(4):
        for row in rows:
            store.ended(lambda one: one, row)
        store.flush()
        assert store.totals()["spans"] == (turn + 1) * len(rows)
    times = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        roots, found = store.roots(1000), store.latencies()
        times.append((time.perf_counter() - begun) * 1e3)
        assert len(roots) == 1000
        assert all(one.exact for one in found)
        assert sum(one.count for one in found) == _ROWS
    store.close()
    return {"query_ms": statistics.median(times)}


if __name__ == "__main__":
    print(json.dumps({"write": _write, "ask": _ask, "memory": _memory}[sys.argv[1]](Path(sys.argv[2]))))

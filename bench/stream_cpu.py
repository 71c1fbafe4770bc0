"""What a token costs the client: CPU time of a long stream, and how late the tokens of a paced one arrive."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

IDS = ("stream_cpu", "stream_cpu_fast", "stream_late")
ID = IDS[0]
ROOT = Path(__file__).parents[1]
_TOKENS = 20_000
_PACED = 1_500
_ROUNDS = 7
_BASE, _FAST, _OPENAI, _LATE_US = 5.9 / 4.3, 1.0, 15, 200.0
#: Reader → the package that it needs, when that is not ours.
_READERS = {
    "floor": None,
    "ours": None,
    "ours+orjson": None,
    "floor_orjson": "orjson",
    "requests": "requests",
    "httpx": "httpx",
    "ollama": "ollama",
    "openai": "openai",
}


def run(rounds: int = _ROUNDS) -> list[dict[str, object]]:
    """Three rows: CPU per token with the base dependencies and with ``[fast]``, and the delay of a paced token."""
    pythons = {name: python for name, needs in _READERS.items() if (python := _python(needs))}
    found: dict[str, list[dict]] = {name: [] for name in pythons}
    for number in range(rounds):
        names = list(pythons)
        # Another one first in every round: neither a warm nor a disturbed machine is always the same one's.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(_read(pythons[name], name))
    assert len({one["characters"] for results in found.values() for one in results}) == 1, "the readers disagree"
    cpu = {name: [one["cpu_us"] for one in results] for name, results in found.items()}
    late = {name: [statistics.median(one["late_us"]) for one in results] for name, results in found.items()}
    tail = {name: sorted(us for one in results for us in one["late_us"]) for name, results in found.items()}
    medians = {name: round(statistics.median(values), 2) for name, values in cpu.items()}
    beside = {name: value for name, value in medians.items() if name not in ("floor", "ours", "ours+orjson")}
    spread = ", ".join(f"{name} {min(values):.2f}..{max(values):.2f}" for name, values in cpu.items())
    missing = ", ".join(name for name in _READERS if name not in pythons)
    method = (
        f"a recorded stream of the engine, {_TOKENS:,} events, as fast as it is read, from a process on another core; a fresh "
        f"process per measurement, 300 events to warm up, process CPU time; {rounds} interleaved rounds, medians; floor: raw "
        f"socket, split, json; µs spread: {spread}" + (f"; not installed: {missing}" if missing else "")
    )
    rows = []
    for row, name, goal in (("stream_cpu", "ours", _BASE), ("stream_cpu_fast", "ours+orjson", _FAST)):
        ratio = statistics.median(a / b for a, b in zip(cpu[name], cpu["floor"], strict=True))
        times = (
            statistics.median(a / b for a, b in zip(cpu["openai"], cpu[name], strict=True)) if "openai" in cpu else None
        )
        rows.append(
            {
                "id": row,
                "what": "client CPU per streamed token" + (" with orjson" if name != "ours" else ""),
                "unit": "us",
                "ours": medians[name],
                "peers": beside,
                "floor": medians["floor"],
                "ratio": round(ratio, 3),
                "goal": f"≤ {goal:.2f} × floor, ≥ {_OPENAI} × less than openai"
                + (f" (now {times:.0f} ×)" if times else ""),
                "holds": ratio <= goal and (times is None or times >= _OPENAI),
                "method": method,
            }
        )
    extra = statistics.median(a - b for a, b in zip(late["ours"], late["floor"], strict=True))
    p99 = {name: values[int(len(values) * 0.99)] for name, values in tail.items()}
    rows.append(
        {
            "id": "stream_late",
            "what": "delay from send to hand-over of a token, 1,000 tokens/s, median",
            "unit": "us",
            "ours": round(statistics.median(late["ours"]), 1),
            "peers": {name: round(statistics.median(late[name]), 1) for name in beside},
            "floor": round(statistics.median(late["floor"]), 1),
            "ratio": None,
            "goal": f"≤ {_LATE_US:.0f} us after the floor (now {extra:+.1f})",
            "holds": extra <= _LATE_US,
            "method": f"{_PACED:,} tokens, one every ms, each with its time of sending; {rounds} interleaved rounds, medians of medians; "
            f"p99 of all tokens: {', '.join(f'{name} {value:.0f}' for name, value in p99.items())}",
        }
    )
    return rows


def _python(package: str | None) -> str | None:
    """The interpreter that has a package: that of the peers, else this one."""
    if package is None:
        return sys.executable
    for python in (ROOT / ".venv-peers" / "bin" / "python", Path(sys.executable)):
        if python.exists() and not subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
            return str(python)
    return None


def _read(python: str, name: str) -> dict:
    replay = subprocess.Popen(
        [sys.executable, "-m", "bench._stream_replay"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert replay.stdout is not None
    assert replay.stdin is not None
    try:
        port = replay.stdout.readline().strip()
        done = subprocess.run(
            [python, str(Path(__file__).with_name("_stream_readers.py")), name, port, str(_TOKENS), str(_PACED)],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return json.loads(done.stdout)
    finally:
        replay.stdin.close()
        replay.wait()
        replay.stdout.close()


if __name__ == "__main__":
    print(json.dumps(run(2), indent=2, ensure_ascii=False))

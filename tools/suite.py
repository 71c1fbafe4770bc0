"""``make test``: every part of the tests, quick ones first, each with its time; ``ONLY=units,engine`` runs some.

The environment with Kaggle's versions runs the tests marked ``floor`` again. Ends with one line that counts all parts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import browser

ROOT = Path(__file__).resolve().parents[1]
_NEWEST = ROOT / ".venv" / "bin" / "python"
_KAGGLE = ROOT / ".venv-floor" / "bin" / "python"
_NODE = [_NEWEST, ROOT / "tools" / "node.py", "node"]


@dataclass(frozen=True)
class Part:
    """One command; one that finds no test has failed."""

    name: str
    what: str
    command: list[str | Path]
    folder: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a part's own closing line said."""

    passed: int
    failed: int
    skipped: int
    ok: bool
    seconds: float


def _pytest(python: Path, marks: str, *options: str) -> list[str | Path]:
    return [python, "-m", "pytest", "-m", marks, *options, *os.environ.get("ARGS", "").split()]


PARTS = (
    Part(
        "units",
        "quick tests, newest versions",
        _pytest(_NEWEST, "not (engine or browser or faults or gpu or scale or receivers)"),
    ),
    Part("bundle", "the committed bundles are what js/ builds", [*_NODE, "build.mjs", "--check"], ROOT / "js"),
    Part("js", "the front end's own tests", [*_NODE, "--test", "test/*.test.mjs"], ROOT / "js"),
    Part("engine", "with the real engine", _pytest(_NEWEST, "engine and not (browser or faults or gpu)")),
    Part(
        "faults",
        "fault campaigns, a tenth of their length",
        _pytest(_NEWEST, "faults and not (browser or gpu)"),
        environment={"SCALE": os.environ.get("SCALE", "0.1")},
    ),
    Part("browser", "real JupyterLab, real Chromium", _pytest(_NEWEST, "browser and not gpu")),
    Part(
        "floor",
        "Kaggle's versions",
        _pytest(_KAGGLE, "floor and not (browser or gpu)", "-o", "filterwarnings=", "-p", "no:cacheprovider"),
    ),
)
# pytest's closing line, and the summary of Node's test runner.
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
_NODE_COUNTS = re.compile(r"^(?:ℹ|#) (pass|fail|skipped) (\d+)$")


def run(part: Part, chrome: str) -> Outcome:
    """Run one part, its output shown as it comes."""
    print(f"\n== {part.name}: {part.what}", flush=True)
    begun = time.monotonic()
    counts: dict[str, int] = {}
    process = subprocess.Popen(
        part.command,
        cwd=part.folder,
        env=os.environ | {"CHROME": chrome, "PYTHONUNBUFFERED": "1"} | part.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if " in " in line and (found := _COUNTS.findall(line)):
            counts = {word.rstrip("s") if word == "errors" else word: int(number) for number, word in found}
        elif node := _NODE_COUNTS.match(line.strip()):
            counts[{"pass": "passed", "fail": "failed"}.get(node[1], node[1])] = int(node[2])
    status = process.wait()
    ok = status == 0
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return Outcome(
        counts.get("passed", 0), failed or int(not ok), counts.get("skipped", 0), ok, time.monotonic() - begun
    )


def _fetch_model() -> None:
    """The demo model into the cache, so that no test skips for want of it."""
    print("== the demo model", flush=True)
    code = "from llamatelemetry_jupyter.models.catalogue import resolve; print(resolve('smollm2-135m').path)"
    subprocess.run([_NEWEST, "-c", code], check=True, stdin=subprocess.DEVNULL, cwd=ROOT)


def main() -> int:
    """0 when every part passed and at least one test ran."""
    wanted = [name for name in os.environ.get("ONLY", "").split(",") if name]
    if unknown := set(wanted) - {part.name for part in PARTS}:
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(part.name for part in PARTS)}")
    chrome = browser.ensure()
    _fetch_model()
    outcomes = {part.name: run(part, chrome) for part in PARTS if not wanted or part.name in wanted}
    print(f"\n{'part':10} {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>8}")
    for name, one in outcomes.items():
        print(f"{name:10} {one.passed:7} {one.failed:7} {one.skipped:7} {one.seconds:8.1f}")
    passed, failed, skipped = (
        sum(getattr(one, key) for one in outcomes.values()) for key in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and all(one.ok for one in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

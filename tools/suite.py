"""``make test``: every test, quick ones first; then those marked ``floor`` again with Kaggle's versions.

Ends with one line that says how many passed over both environments.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from browser import ensure

ROOT = Path(__file__).resolve().parents[1]


def run(python: Path, *arguments: str) -> tuple[int, int, bool]:
    """``(passed, failed, ok)`` of one pytest run, its output shown as it comes."""
    environment = os.environ | {"CHROME": ensure(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [python, "-m", "pytest", *arguments, *os.environ.get("ARGS", "").split()],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if re.search(r"\d+ (passed|failed|error)", line) else last
    count = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", last)}
    ok = process.wait() == 0
    return count.get("passed", 0), count.get("failed", 0) + count.get("error", 0), ok


def main() -> int:
    """0 when everything passed in both environments."""
    environments = [
        ("newest versions", ROOT / ".venv" / "bin" / "python", ("-o", "addopts=--strict-markers --strict-config --timeout=300 --timeout-method=thread -q")),
        ("Kaggle's versions", ROOT / ".venv-floor" / "bin" / "python", ("-m", "floor", "-o", "filterwarnings=", "-o", "addopts=--strict-markers --timeout=300 --timeout-method=thread -q")),
    ]  # fmt: skip
    passed = failed = 0
    fine = True
    for name, python, arguments in environments:
        print(f"== {name}", flush=True)
        here_passed, here_failed, ok = run(python, *arguments)
        passed, failed, fine = passed + here_passed, failed + here_failed, fine and ok
    print(f"{passed} passed, {failed} failed")
    return 0 if fine and passed else 1


if __name__ == "__main__":
    sys.exit(main())

"""``make lint``: every checker, also after one has failed; the status says whether all passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BIN = ROOT / ".venv" / "bin"
_NODE = [_BIN / "python", ROOT / "tools" / "node.py", "node"]
_PYTHON = ("llamatelemetry_jupyter", "llamatelemetry", "tests", "bench", "tools")
_MODULES = ROOT / "js" / "node_modules"
_BIOME = _MODULES / "@biomejs" / "biome" / "bin" / "biome"

CHECKS: dict[str, tuple[list[str | Path], Path]] = {
    "ruff check": ([_BIN / "ruff", "check", "--quiet", *_PYTHON], ROOT),
    "ruff format": ([_BIN / "ruff", "format", "--check", "--quiet", *_PYTHON], ROOT),
    "mypy": ([_BIN / "mypy", "--no-error-summary"], ROOT),
    "import-linter": ([_BIN / "lint-imports", "--no-cache"], ROOT),
    "tsc": ([*_NODE, _MODULES / "typescript" / "bin" / "tsc", "--noEmit", "-p", "."], ROOT / "js"),
    "biome": ([*_NODE, _BIOME, "check", "src", "test", "build.mjs"], ROOT / "js"),
}  # fmt: skip


def main() -> int:
    """0 when all passed; a failing checker's output is shown."""
    failed = []
    for name, (command, folder) in CHECKS.items():
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(f"{name:14} {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

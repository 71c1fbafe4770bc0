"""How long ``%load_ext`` takes in a started IPython: ours, peers that people load instead, and the least a magic can cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ID = "load_ext"
_ROOT = Path(__file__).resolve().parents[1]
_PYTHON = _ROOT / ".venv-peers" / "bin" / "python"
_ROUNDS = 9
_GOAL_MS = 10.0
_GOAL_SHARE = 20

# A magic class that imports nothing when it is loaded: what a lazy extension cannot go below.
_LAZY = """
from IPython.core.magic import Magics, line_magic, magics_class

@magics_class
class Lazy(Magics):
    @line_magic
    def lazy(self, line):
        import json
        return json.loads(line)

def load_ipython_extension(shell):
    shell.register_magics(Lazy)
"""
_CLOCK = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
begun = time.perf_counter()
shell.run_line_magic("load_ext", sys.argv[1])
print("\\nms", (time.perf_counter() - begun) * 1e3)
"""
_EXTENSIONS = {
    "ours": "llamatelemetry",
    "jupysql": "sql",
    "jupyter_ai_magics": "jupyter_ai_magics",
    "lazy 10-line magic": "lazy_magic",
}


def run(rounds: int = _ROUNDS) -> list[dict[str, object]]:
    """One row: milliseconds from the line to the next prompt, medians over fresh processes."""
    times: dict[str, list[float]] = {name: [] for name in _EXTENSIONS}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "lazy_magic.py").write_text(_LAZY)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        # Byte code of all of them in one place, written by the first round, which does not count.
        environment |= {"PYTHONPATH": folder, "PYTHONPYCACHEPREFIX": f"{folder}/pyc", "IPYTHONDIR": f"{folder}/ipython"}
        for number in range(rounds + 1):
            names = list(_EXTENSIONS)
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                took = _once(_EXTENSIONS[name], environment)
                if number:
                    times[name].append(took)
    median = {name: statistics.median(taken) for name, taken in times.items()}
    spread = "; ".join(f"{name} {min(taken):.1f}..{max(taken):.1f}" for name, taken in times.items())
    share = median["jupysql"] / median["ours"]
    return [
        {
            "id": ID,
            "what": "%load_ext in a started IPython",
            "unit": "ms",
            "ours": round(median["ours"], 2),
            "peers": {name: round(median[name], 2) for name in ("jupysql", "jupyter_ai_magics")},
            "floor": round(median["lazy 10-line magic"], 2),
            "ratio": round(share, 1),
            "goal": f"≤ {_GOAL_MS:g} ms and ≤ jupysql / {_GOAL_SHARE}",
            "holds": median["ours"] <= _GOAL_MS and share >= _GOAL_SHARE,
            "method": (
                f"{rounds} rounds, interleaved, order rotated, a fresh process each, byte code cached; perf_counter around "
                f"the magic; medians; min..max in ms: {spread}; ratio: jupysql / ours"
            ),
        }
    ]


def _once(extension: str, environment: dict[str, str]) -> float:
    done = subprocess.run(
        [_PYTHON, "-c", _CLOCK, extension], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"%load_ext {extension} failed: {done.stderr[-1500:]}")
    return float(done.stdout.rsplit("ms", 1)[1])

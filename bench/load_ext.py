"""What ``%load_ext`` costs in a started IPython, against the extensions that people know and against a lazy magic."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ID = "load_ext"
ROUNDS = 9
PEERS = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"
LAZY = """
from IPython.core.magic import Magics, line_cell_magic, magics_class
@magics_class
class LazyMagics(Magics):
    @line_cell_magic
    def lazy(self, line, cell=None): ...
def load_ipython_extension(shell): shell.register_magics(LazyMagics)
"""
CLOCK = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("1")
began = time.perf_counter()
shell.extension_manager.load_extension(sys.argv[1])
print((time.perf_counter() - began) * 1e3)
"""


def run() -> list[dict[str, Any]]:
    """One row; every extension is loaded once per round, in an IPython of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lazy_magic.py").write_text(LAZY)
        wanted = {"ours": (sys.executable, "llamatelemetry"), "lazy magic": (sys.executable, "lazy_magic")}
        if PEERS.exists():
            wanted |= {"jupysql": (str(PEERS), "sql"), "jupyter_ai_magics": (str(PEERS), "jupyter_ai_magics")}
        times: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(ROUNDS):
            for name, (python, extension) in wanted.items():
                done = subprocess.run([python, "-c", CLOCK, extension], capture_output=True, text=True, cwd=folder)
                if done.returncode == 0:
                    times[name].append(float(done.stdout.split()[-1]))
    median = {name: statistics.median(found) for name, found in times.items() if found}
    ours, floor = median.pop("ours"), median.pop("lazy magic")
    spread = f"{min(times['ours']):.1f} to {max(times['ours']):.1f} ms"
    return [
        {
            "id": ID, "what": "%load_ext in a started IPython", "unit": "ms", "ours": ours, "peers": median,
            "floor": floor, "ratio": ours / floor, "goal": "<= 10 ms", "holds": ours <= 10,
            "method": f"{ROUNDS} rounds, every extension once per round in a fresh process; ours {spread}",
        }
    ]  # fmt: skip

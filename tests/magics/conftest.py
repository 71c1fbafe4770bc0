from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def ipython(tmp_path):
    """Runs cells in a fresh IPython process; ``ipython(cell, …)`` returns what it printed."""

    def run(*cells: str, timeout: float = 120) -> str:
        script = textwrap.dedent(
            """
            import sys
            from IPython.core.interactiveshell import InteractiveShell
            shell = InteractiveShell.instance()
            for cell in CELLS:
                result = shell.run_cell(cell, store_history=True)
                if not result.success:
                    print("STOPPED")
            """
        ).replace("CELLS", repr(list(cells)))
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def refused(ipython):
    """``refused(cell, says)``: the cell stops the run with an error of two lines that hold each of ``says``."""

    def check(cell: str, says: list[str]) -> None:
        printed = ipython("%load_ext llamatelemetry", cell)
        lines = [line for line in printed.splitlines() if line.strip()]
        assert lines[-1] == "STOPPED"
        assert len(lines) == 3, printed
        for part in says:
            assert part in printed

    return check

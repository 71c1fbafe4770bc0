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

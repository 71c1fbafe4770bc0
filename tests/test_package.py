"""The package as a user meets it first: its names, its alias, and how little loading it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

pytestmark = pytest.mark.floor

HEAVY = (
    "anywidget", "graphistry", "httpx", "ipywidgets", "numpy", "opentelemetry.sdk", "pandas", "plotly", "pyarrow", "pynvml",
    "requests", "xllamacpp",
)  # fmt: skip


def in_a_fresh_process(code: str) -> str:
    """What ``code`` prints; its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_version_is_one() -> None:
    import llamatelemetry
    import llamatelemetry_jupyter

    assert (
        llamatelemetry_jupyter.__version__ == llamatelemetry.__version__ == metadata.version("llamatelemetry-jupyter")
    )


def test_every_public_name_is_there_under_both_import_names() -> None:
    import llamatelemetry as short
    import llamatelemetry_jupyter as lt

    assert set(lt.__all__) <= set(dir(lt))
    for name in lt.__all__:
        assert getattr(lt, name) is getattr(short, name), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    import llamatelemetry_jupyter

    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        _ = llamatelemetry_jupyter.serve


def test_importing_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import llamatelemetry;"
        "print(sorted(n for n in set(sys.modules) - before if n.startswith('llamatelemetry')))"
    )
    assert in_a_fresh_process(code) == "['llamatelemetry', 'llamatelemetry_jupyter']"


@pytest.mark.parametrize("name", ["llamatelemetry", "llamatelemetry_jupyter"])
def test_load_ext_is_silent_and_light(name: str) -> None:
    code = f"""
import contextlib, io, json, os, sys, threading
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
modules, threads = set(sys.modules), threading.active_count()
files = set(os.listdir("/proc/self/fd"))
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    shell.run_line_magic("load_ext", {name!r})
heavy = [m for m in {HEAVY!r} if m in sys.modules and m not in modules]
print(json.dumps([heavy, said.getvalue(), threading.active_count() - threads, len(set(os.listdir("/proc/self/fd")) - files)]))
"""
    heavy, said, threads, files = json.loads(in_a_fresh_process(code))
    assert heavy == []
    assert said == ""
    assert threads == 0
    assert files == 0

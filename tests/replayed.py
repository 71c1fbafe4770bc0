"""An environment in which every process sees the GPUs of a trace: for real kernels with real samplers, and benches."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

_HERE = Path(__file__).parent / "gpu"


def replayed_gpus(trace: str | Path, folder: Path) -> dict[str, str]:
    """Variables to add to a process's environment; ``trace`` is a name in tests/gpu/traces (``t4x2``) or a path.

    The trace begins now. ``folder`` gets a library that is called as the driver's: :func:`.nvml.load` looks for it.
    """
    path = trace if isinstance(trace, Path) else _HERE / "traces" / f"{trace}.json"
    assert path.exists(), path
    library = folder / "driver" / "libnvidia-ml.so.1"
    library.parent.mkdir(parents=True, exist_ok=True)
    if not library.exists():
        shutil.copy(_any_library(), library)
    return {
        "NVML_TRACE": str(path.resolve()),
        "NVML_TRACE_START": repr(time.monotonic()),
        "PYTHONPATH": _first(str(_HERE / "replaymodule"), "PYTHONPATH"),
        "LD_LIBRARY_PATH": _first(str(library.parent), "LD_LIBRARY_PATH"),
    }


def _first(folder: str, variable: str) -> str:
    kept = os.environ.get(variable)
    return f"{folder}{os.pathsep}{kept}" if kept else folder


def _any_library() -> str:
    """A small shared library that this process has loaded."""
    import ctypes  # noqa: F401 (it brings libffi)

    named = r"(/\S*/lib(?:ffi|z|m|bz2|lzma)(?:-[\w.]+)?\.so[.\d]*)$"  # libzmq and others need more than the C library
    found = re.findall(named, Path("/proc/self/maps").read_text(), re.MULTILINE)
    assert found, "no small shared library is loaded"
    return found[0]

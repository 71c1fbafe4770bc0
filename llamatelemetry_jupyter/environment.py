"""Where this code runs, from environment variables and paths alone: no import of the host, no network.

Every room that has to behave differently on Kaggle, in a batch run or in a terminal asks here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Host = Literal["kaggle", "colab", "vscode", "jupyter", "terminal", "python"]


@dataclass(frozen=True, slots=True)
class Environment:
    """The host of this process. ``batch`` is true where nobody watches: Save Version, papermill, nbclient."""

    host: Host
    batch: bool
    kernel: bool


def detect() -> Environment:
    """The environment of the running process."""
    name = _shell_name()
    kernel = name == "ZMQInteractiveShell"
    host: Host
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        host = "kaggle"
    elif "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules:
        host = "colab"
    elif kernel and "VSCODE_PID" in os.environ:
        host = "vscode"
    elif kernel:
        host = "jupyter"
    elif name:
        host = "terminal"
    else:
        host = "python"
    return Environment(host, _is_batch(), kernel)


def _is_batch() -> bool:
    # nbclient sets no variable of its own; runners (make demo, docs) say LLAMATELEMETRY_BATCH=1.
    return (
        os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
        or "PAPERMILL_OUTPUT_PATH" in os.environ
        or os.environ.get("LLAMATELEMETRY_BATCH") == "1"
    )


def shell() -> object | None:
    """The IPython shell of this process, without importing IPython; ``None`` in plain Python."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _shell_name() -> str | None:
    found = shell()
    return type(found).__name__ if found is not None else None


def kernel_id() -> str | None:
    """The id by which a Jupyter server knows this kernel, from its connection file; ``None`` outside of one."""
    app = getattr(getattr(shell(), "kernel", None), "parent", None)
    name = Path(getattr(app, "connection_file", "")).name
    return name[len("kernel-") : -len(".json")] if name.startswith("kernel-") and name.endswith(".json") else None


def cache_dir() -> Path:
    """Folder for models and engines that are worth keeping: ``$LLAMATELEMETRY_CACHE`` or the user's cache folder."""
    if override := os.environ.get("LLAMATELEMETRY_CACHE"):
        return Path(override)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llamatelemetry"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamatelemetry"


def runtime_dir() -> Path:
    """A folder of mode 0700 for rings, state files and logs of running kernels; created when missing.

    ``$LLAMATELEMETRY_RUNTIME_DIR``, else ``$XDG_RUNTIME_DIR/llamatelemetry``, else a folder named after the user in
    the system's temporary folder. Raises ``PermissionError`` when that folder belongs to somebody else.
    """
    if override := os.environ.get("LLAMATELEMETRY_RUNTIME_DIR"):
        path = Path(override)
    elif (xdg := os.environ.get("XDG_RUNTIME_DIR")) and os.path.isdir(xdg):
        path = Path(xdg) / "llamatelemetry"
    else:
        path = Path(tempfile.gettempdir()) / f"llamatelemetry-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user; set LLAMATELEMETRY_RUNTIME_DIR to a folder of yours")
    path.chmod(0o700)
    return path


def data_dir() -> Path:
    """Folder for spans: ``$LLAMATELEMETRY_DATA``, ``/kaggle/working/llamatelemetry``, else the user's data folder."""
    if override := os.environ.get("LLAMATELEMETRY_DATA"):
        return Path(override)
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return Path("/kaggle/working/llamatelemetry")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "llamatelemetry"


def process_start(pid: int) -> float | None:
    """Start time of a process in seconds since boot or epoch (only compared for equality), ``None`` when it is gone.

    With the pid it names a process for good: pids are reused, pairs are not.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.isdir("/proc/self") else _psutil_start(pid)
    # The command may hold spaces and parentheses: fields are counted after the last ')'. Field 3 is the state
    # (Z: a zombie is dead for us), field 22 the start time in clock ticks (proc(5)).
    rest = stat[stat.rindex(b")") + 2 :].split()
    return None if rest[0] in (b"Z", b"X") else float(rest[19])


def _psutil_start(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def kernel_key() -> str:
    """``<pid>-<start>`` of this process: the stem of its files in :func:`runtime_dir`."""
    pid = os.getpid()
    return f"{pid}-{process_start(pid):.0f}"

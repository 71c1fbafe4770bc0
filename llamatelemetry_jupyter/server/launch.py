"""The engine's process and its files: what it is started with, and what of it lies in the runtime folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .. import environment
from ..errors import ServerError
from ..values import Runtime
from .embedded import KEY_VARIABLE, PARAMS_VARIABLE
from .settings import ServerSettings

_GUARD = Path(__file__).with_name("guard.py")
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy")
#: Would change what the engine does without anybody seeing it: show prompts in /slots, answer under other routes.
_UNWANTED = (KEY_VARIABLE, PARAMS_VARIABLE, "LLAMA_SERVER_SLOTS_DEBUG", "AIP_MODE")


def spawn(
    runtime: Runtime, settings: ServerSettings, api_key: str, log_path: Path, *, keep: bool = False
) -> subprocess.Popen[bytes]:
    """The engine's process, in a session of its own and under its guard; it writes to ``log_path`` (begun anew, 0600).

    With ``keep`` the guard lets it outlive this process.
    Raises EngineError for a setting that the binary lacks and ServerError when no process can be made.
    """
    pid = os.getpid()
    options = settings.to_argv(runtime.features) if runtime.kind == "binary" else []
    kernel = ["0", "0"] if keep else [str(pid), f"{environment.process_start(pid):.0f}"]
    guard = [sys.executable, "-I", "-S", str(_GUARD), *kernel, str(log_path), "--"]
    try:
        for old in (log_path, log_path.with_name(f"{log_path.name}.1")):
            old.unlink(missing_ok=True)
        output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except OSError as error:
        raise ServerError(
            f"no log can be written in {log_path.parent}: {error.strerror}", hint=f"!df -h {log_path.parent}"
        ) from error
    try:
        return subprocess.Popen(
            [*guard, *runtime.argv, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # `python -m` would find modules of the user's folder before installed ones.
            cwd=log_path.parent,
            env=child_environment(runtime, settings, api_key),
            start_new_session=True,
        )
    except OSError as error:
        raise ServerError(f"no process could be started: {error.strerror}", hint="!free -m; ulimit -u") from error
    finally:
        os.close(output)


def with_slots(settings: ServerSettings, folder: Path) -> ServerSettings:
    """``settings`` with ``folder`` (made, 0700) for saved slots where they name none."""
    if settings.slot_save_path is not None:
        return settings
    folder.mkdir(mode=0o700, exist_ok=True)
    return replace(settings, slot_save_path=f"{folder}{os.sep}")


def child_environment(runtime: Runtime, settings: ServerSettings, api_key: str) -> dict[str, str]:
    """This process's environment without what would silently change the engine, with its key and parameters."""
    child = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LLAMA_ARG_") and name not in _UNWANTED and name.lower() not in _PROXIES
    }
    child[KEY_VARIABLE] = api_key
    if runtime.kind == "xllamacpp":
        child[PARAMS_VARIABLE] = json.dumps(settings.to_params())
        # The kernel may have found the package by a path of its own (an editable install, a notebook's folder).
        child["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))
    return child


def weights_mapped(pid: int, file_bytes: int | None) -> float:
    """Part of the model file that a process has mapped into memory, 0..1; 0 where the system doesn't say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[2])
    except (OSError, ValueError, IndexError):
        return 0.0
    return min(pages * os.sysconf("SC_PAGE_SIZE") / file_bytes, 1.0) if file_bytes else 0.0

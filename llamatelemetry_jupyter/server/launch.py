"""The engine's process and its files: what it is started with, and what of it lies in the runtime folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
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


def spawn(runtime: Runtime, settings: ServerSettings, api_key: str, log_path: Path) -> subprocess.Popen[bytes]:
    """The engine's process, in a session of its own and under its guard; it writes to ``log_path`` (begun anew, 0600).

    Raises EngineError for a setting that the binary lacks and ServerError when no process can be made.
    """
    pid = os.getpid()
    options = settings.to_argv(runtime.features) if runtime.kind == "binary" else []
    guard = [sys.executable, "-I", "-S", str(_GUARD), str(pid), f"{environment.process_start(pid):.0f}", "--"]
    log_path.unlink(missing_ok=True)
    output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
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


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 that readers see whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def remove_stale_files() -> None:
    """Delete what kernels that are gone left in the runtime folder: rings, state files, logs."""
    starts: dict[int, float | None] = {}
    for path in environment.runtime_dir().iterdir():
        if (found := re.match(r"(\d+)-(\d+)\.", path.name)) is None:
            continue
        pid = int(found[1])
        if pid not in starts:
            starts[pid] = environment.process_start(pid)
        start = starts[pid]
        if start is None or f"{start:.0f}" != found[2]:
            with contextlib.suppress(OSError):
                path.unlink()

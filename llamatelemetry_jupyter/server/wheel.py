"""What the xllamacpp wheel can do, by its attributes; asked in a process of its own, because it brings a whole engine.

``python -m llamatelemetry_jupyter.server.wheel`` prints it as JSON. What settings it takes is asked once per wheel and
kept in the cache; which devices it sees is asked anew, because GPUs come and go.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import environment, escape
from .._files import write_json
from ..errors import EngineError

_PARENT = str(Path(__file__).resolve().parents[2])
_INSTALL = '%pip install --force-reinstall --no-deps "xllamacpp>=2026.10"'


@dataclass(frozen=True, slots=True)
class Wheel:
    """``features`` are dotted names of ``xllamacpp.CommonParams``; ``devices`` are names with their memory."""

    features: frozenset[str]
    devices: tuple[str, ...]


def version() -> str | None:
    """The installed wheel's version; ``None`` when there is none."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def features() -> frozenset[str]:
    """The settings that the wheel takes; from the cache when this very wheel was asked before."""
    path = environment.cache_dir() / "engines" / f"xllamacpp-{_fingerprint()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))))
    found = ask().features
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs the next question
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, sorted(found))
    return found


def ask() -> Wheel:
    """Start the wheel and ask it (about 0.2 s); raises EngineError with its own words when it does not load."""
    path = os.pathsep.join(filter(None, (_PARENT, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            cwd=environment.runtime_dir(),  # `python -m` would find modules of the user's folder before installed ones
            env={**os.environ, "PYTHONPATH": path},
        )
        row = json.loads(done.stdout.splitlines()[-1])
        return Wheel(frozenset(row["features"]), tuple(row["devices"]))
    except subprocess.TimeoutExpired as error:
        raise EngineError("xllamacpp does not answer", hint=_INSTALL) from error
    except (ValueError, IndexError, KeyError) as error:
        lines = done.stderr.strip().splitlines()
        why = escape.plain(lines[-1])[:200] if lines else f"it ended with code {done.returncode}"
        raise EngineError(f"xllamacpp cannot be loaded: {why}", hint=_INSTALL) from error


def _fingerprint() -> str:
    """Changes with the wheel's version, place and files, and with the interpreter."""
    spec = importlib.util.find_spec("xllamacpp")
    places = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    times = [(str(p), file.name, file.stat().st_mtime_ns) for p in places for file in sorted(p.iterdir())]
    return hashlib.sha256(repr((version(), sys.version, times)).encode()).hexdigest()[:16]


def _describe() -> dict[str, list[str]]:
    import xllamacpp

    devices = [
        f"{device['name']}: {device['description']} "
        f"({device['memory_total'] >> 20} MiB, {device['memory_free'] >> 20} MiB free)"  # as --list-devices says it
        for device in xllamacpp.get_device_info()
        if device["type"].name != "GGML_BACKEND_DEVICE_TYPE_CPU"
    ]
    return {"features": sorted(_attributes(xllamacpp.CommonParams(), "")), "devices": devices}


def _attributes(owner: Any, prefix: str) -> list[str]:
    found = []
    for name in dir(owner):
        if name.startswith("_"):
            continue
        value = getattr(owner, name, None)
        if type(value).__module__.startswith("xllamacpp") and not hasattr(value, "value"):  # enums have a value
            found += _attributes(value, f"{prefix}{name}.")
        elif not callable(value):
            found.append(f"{prefix}{name}")
    return found


if __name__ == "__main__":
    print(json.dumps(_describe()))

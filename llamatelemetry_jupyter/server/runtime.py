"""Which engine there is on this machine, and what it can do.

A binary's abilities are read from its ``--help``; builds do not report a usable version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from ..errors import EngineError
from ..values import Runtime

_TOOLS = ("llama-quantize", "llama-imatrix", "llama-bench", "llama-perplexity", "llama-fit-params", "llama-gguf-split")


def find_runtime(explicit: str | Path | None = None) -> Runtime:
    """The engine to use: ``explicit`` path, else ``$LLAMATELEMETRY_ENGINE``, ``llama-server`` on PATH, the wheel.

    Raises :class:`EngineError` when there is none, or when the named one cannot be run.
    """
    named = explicit or os.environ.get("LLAMATELEMETRY_ENGINE")
    if named and str(named) != "xllamacpp":
        found = shutil.which(Path(named).expanduser())
        if found is None:
            raise EngineError(
                f"{named} is not a program that can be run", hint="%llama start --engine /path/to/llama-server"
            )
        return _binary(found)
    if not named and (on_path := shutil.which("llama-server")):
        return _binary(on_path)
    if importlib.util.find_spec("xllamacpp") is not None:
        version = importlib.metadata.version("xllamacpp")
        argv = (sys.executable, "-m", "llamatelemetry_jupyter.server.embedded")
        return Runtime("xllamacpp", argv, version=f"xllamacpp {version}")
    raise EngineError(
        "no llama.cpp engine was found: no llama-server on PATH and no xllamacpp package",
        hint='%pip install "llamatelemetry-jupyter[local]"',
    )


def _binary(path: str) -> Runtime:
    folder = Path(path).parent
    tools = {tool: str(folder / tool) for tool in _TOOLS if os.access(folder / tool, os.X_OK)}
    return Runtime("binary", (path,), _features(path, Path(path).stat().st_mtime_ns), tools, Path(path).name)


@lru_cache(maxsize=8)
def _features(path: str, _changed_ns: int) -> frozenset[str]:
    """Every long option that ``--help`` lists."""
    try:
        done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(
            f"{path} --help does not run: {error}", hint="%llama start --engine /path/to/llama-server"
        ) from error
    features = frozenset(re.findall(r"--[a-z][a-z0-9-]+", done.stdout + done.stderr))
    if "--port" not in features:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise EngineError(f"{path} is not a llama-server: {last}", hint="%llama start --engine /path/to/llama-server")
    return features

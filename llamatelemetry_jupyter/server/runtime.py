"""Finds an engine on this machine and what it can do.

In order: what the user names, ``$LLAMATELEMETRY_ENGINE``, ``llama-server`` on PATH, the ``xllamacpp`` wheel. What a
binary can do is read from its ``--help``: builds made from a source archive all call themselves "build 0".
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import EngineError
from ..values import Runtime

EMBEDDED = "llamatelemetry_jupyter.server.embedded"
#: llama.cpp's other programs, which stand beside the server in every distribution of it.
TOOLS = ("llama-bench", "llama-export-lora", "llama-fit-params", "llama-imatrix", "llama-perplexity", "llama-quantize")

_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_VERSION = re.compile(r"^version:\s*(.+?)\s*$", re.MULTILINE)
_OTHER = "%llama start --engine /path/to/llama-server"
_INSTALL = '%pip install "llamatelemetry-jupyter[local]"'

#: A binary's features by path, change time and size: a CUDA build takes a second to print its help.
_known: dict[tuple[str, int, int], Runtime] = {}


def find_runtime(explicit: str | Path | None = None) -> Runtime:
    """The engine to start: a path, ``"xllamacpp"``, or with ``None`` the first that is there.

    Raises EngineError when there is none or the one named cannot be run. Nothing is imported or downloaded.
    """
    wanted = str(explicit) if explicit is not None else os.environ.get("LLAMATELEMETRY_ENGINE") or None
    if wanted == "xllamacpp":
        return _xllamacpp() or _missing("the xllamacpp package is not installed")
    if wanted is not None:
        if found := shutil.which(Path(wanted).expanduser()):
            return _binary(found)
        raise EngineError(f"{wanted} is not a program that can be run", hint=_OTHER)
    if found := shutil.which("llama-server"):
        return _binary(found)
    return _xllamacpp() or _missing("no llama.cpp engine: neither llama-server on PATH nor the xllamacpp package")


def _missing(what: str) -> Runtime:
    raise EngineError(what, hint=_INSTALL)


def _xllamacpp() -> Runtime | None:
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    version = importlib.metadata.version("xllamacpp")
    return Runtime("xllamacpp", (sys.executable, "-m", EMBEDDED), version=f"xllamacpp {version}")


def _binary(path: str) -> Runtime:
    path = str(Path(path).absolute())
    stat = Path(path).stat()
    key = (path, stat.st_mtime_ns, stat.st_size)
    if key not in _known:
        text = _said(path, "--help")
        features = frozenset(_FLAG.findall(text))
        if "--model" not in features:
            raise EngineError(f"{path} is not llama.cpp's server: its --help names no --model", hint=_OTHER)
        version = _VERSION.search(_said(path, "--version")) if "--version" in features else None
        # A binary may be a link into the folder where the others are (PATH wrappers, conda, Homebrew).
        folders = (Path(path).parent, Path(path).resolve().parent)
        tools = {n: str(f / n) for n in TOOLS for f in reversed(folders) if os.access(f / n, os.X_OK)}
        _known[key] = Runtime(
            "binary", (path,), features, tools, f"llama-server {version[1]}" if version else "llama-server"
        )
    return _known[key]


def _said(path: str, option: str) -> str:
    try:
        done = subprocess.run(
            [path, option],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise EngineError(f"{path} {option} does not answer", hint=f"!{path} {option}") from exc
    except OSError as exc:
        raise EngineError(f"{path} cannot be run: {exc.strerror}", hint=f"!file {path}") from exc
    # A missing shared library or a CPU without the build's instructions ends the program before it prints anything.
    if done.returncode and not done.stdout.strip():
        lines = done.stderr.strip().splitlines()
        why = lines[-1] if lines else f"it ended with code {done.returncode}"
        raise EngineError(f"{path} cannot be run: {why}", hint=f"!{path} {option}")
    return f"{done.stdout}\n{done.stderr}"

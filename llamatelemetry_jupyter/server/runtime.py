"""Finds an engine on this machine and what it can do.

In order: what the user names, ``$LLAMATELEMETRY_ENGINE``, ``llama-server`` on PATH, an installed build that sees a GPU
now, the ``xllamacpp`` wheel, an installed build for the CPU. An installed GPU build stands before the wheel because
the wheel of the package index knows no GPU: whoever typed ``%llama install --engine cuda`` would else stay on the CPU
without a word. What a binary can do is read from its ``--help``, what the wheel can do from its attributes: builds
made from a source archive all call themselves "build 0".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import escape
from ..errors import EngineError
from ..values import Runtime
from . import engines, wheel
from .engines import Build

EMBEDDED = "llamatelemetry_jupyter.server.embedded"
VARIABLE = "LLAMATELEMETRY_ENGINE"
#: llama.cpp's other programs, which stand beside the server in every distribution of it.
TOOLS = ("llama-bench", "llama-export-lora", "llama-fit-params", "llama-imatrix", "llama-perplexity", "llama-quantize")

_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_VERSION = re.compile(r"^version:\s*(.+?)\s*$", re.MULTILINE)
_DEVICE = re.compile(r"^\s+(\S+: .+ \(\d+ MiB, \d+ MiB free\))\s*$", re.MULTILINE)
_OTHER = "%llama start --engine /path/to/llama-server"
_INSTALL = '%pip install "llamatelemetry-jupyter[local]"'

#: Answers by command, option, change time and size: a CUDA build takes a second to print its help.
_known: dict[tuple[tuple[str, ...], str, int, int], str] = {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where an engine may be. ``find`` gives it, or ``None`` when it is not there or has nothing to offer here.

    ``name`` is what ``--engine`` takes for it; ``None`` when that is the engine's path.

    ``find`` raises EngineError when something is there that cannot be run.
    """

    where: str
    name: str | None
    find: Callable[[], Runtime | None]


def find_runtime(explicit: str | Path | None = None) -> Runtime:
    """The engine to start: a path, ``"xllamacpp"``, an installed one (``"cuda"``), or with ``None`` the first there is.

    Raises EngineError when there is none or the one named cannot be run. Nothing is imported or downloaded.
    """
    if explicit is not None:
        return _named(str(explicit))
    for candidate in candidates():
        if (found := candidate.find()) is not None:
            return found
    return _missing("no llama.cpp engine: neither llama-server on PATH nor the xllamacpp package")


def candidates() -> Iterator[Candidate]:
    """Where :func:`find_runtime` looks when nothing is named, in its order."""
    if wanted := os.environ.get(VARIABLE):
        yield Candidate(f"${VARIABLE}", wanted, lambda: _named(wanted))
    yield Candidate("llama-server on PATH", None, _on_path)
    builds = engines.installed()
    for build in builds:
        if build.backend != "cpu":
            yield Candidate(f"installed: {build.label}", build.id, partial(_with_gpu, build))
    yield Candidate("xllamacpp package", "xllamacpp", _xllamacpp)
    for build in builds:
        if build.backend == "cpu":
            yield Candidate(f"installed: {build.label}", build.id, partial(_usable, build))


def devices(runtime: Runtime) -> tuple[str, ...]:
    """The GPUs that an engine sees now, each with its memory; empty for one that computes on the CPU only."""
    return wheel.ask().devices if runtime.kind == "xllamacpp" else seen_devices(runtime.argv)


def seen_devices(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The devices of a binary's ``--list-devices``; empty also for one that is too old to have the option."""
    if "--list-devices" not in _features(argv):
        return ()
    return tuple(_DEVICE.findall(said(argv, "--list-devices")))


def said(argv: tuple[str, ...], option: str) -> str:
    """What a program prints for ``option``; raises EngineError when it cannot be run, with its own last line."""
    shown = " ".join((*argv, option))
    try:
        done = subprocess.run(
            [*argv, option],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise EngineError(f"{shown} does not answer", hint=f"!{shown}") from exc
    except OSError as exc:
        raise EngineError(f"{argv[0]} cannot be run: {exc.strerror}", hint=f"!file {argv[0]}") from exc
    # A missing shared library or a CPU without the build's instructions ends the program before it prints anything.
    if done.returncode and not done.stdout.strip():
        lines = done.stderr.strip().splitlines()
        ended = f"it ended with {'signal' if done.returncode < 0 else 'code'} {abs(done.returncode)}"
        why = escape.plain(lines[-1])[:200] if lines else ended
        raise EngineError(f"{argv[0]} cannot be run: {why}", hint=f"!{shown}")
    return f"{done.stdout}\n{done.stderr}"


def _named(wanted: str) -> Runtime:
    if wanted == "xllamacpp":
        return _xllamacpp() or _missing("the xllamacpp package is not installed")
    if os.sep not in wanted and (build := engines.named(wanted)) is not None:
        return _installed(build)
    if found := shutil.which(Path(wanted).expanduser()):
        return _binary((str(Path(found).absolute()),))
    raise EngineError(f"{wanted} is not a program that can be run", hint=_OTHER)


def _missing(what: str) -> Runtime:
    raise EngineError(what, hint=_INSTALL)


def _on_path() -> Runtime | None:
    found = shutil.which("llama-server")
    return _binary((str(Path(found).absolute()),)) if found else None


def _xllamacpp() -> Runtime | None:
    version = wheel.version()
    if version is None:
        return None
    return Runtime("xllamacpp", (sys.executable, "-m", EMBEDDED), wheel.features(), version=f"xllamacpp {version}")


def _installed(build: Build) -> Runtime:
    return _binary(build.argv, build.label)


def _usable(build: Build) -> Runtime | None:
    return None if build.problem else _installed(build)


def _with_gpu(build: Build) -> Runtime | None:
    """The build when it sees a GPU now: the cache may be on a disk that machines without one share."""
    return _installed(build) if build.problem is None and seen_devices(build.argv) else None


def _binary(argv: tuple[str, ...], label: str | None = None) -> Runtime:
    path = Path(argv[0])
    features = _features(argv)
    if label is None and "--version" in features and (version := _VERSION.search(_told(argv, "--version"))):
        label = f"llama-server {version[1]}"
    # A binary may be a link into the folder where the others are (PATH wrappers, conda, Homebrew).
    folders = (path.parent, path.resolve().parent)
    tools = {n: str(f / n) for n in TOOLS for f in reversed(folders) if os.access(f / n, os.X_OK)}
    return Runtime("binary", argv, features, tools, label or "llama-server")


def _features(argv: tuple[str, ...]) -> frozenset[str]:
    features = frozenset(_FLAG.findall(_told(argv, "--help")))
    if "--model" not in features:
        raise EngineError(f"{argv[0]} is not llama.cpp's server: its --help names no --model", hint=_OTHER)
    return features


def _told(argv: tuple[str, ...], option: str) -> str:
    """What a program prints for an option whose answer only changes with the program."""
    stat = Path(argv[0]).stat()
    key = (argv, option, stat.st_mtime_ns, stat.st_size)
    if key not in _known:
        _known[key] = said(argv, option)
    return _known[key]

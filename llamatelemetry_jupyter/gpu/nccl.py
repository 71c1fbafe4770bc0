"""Whether NCCL is here, which version, and whether a running engine uses it.

llama.cpp needs it in one case only: a model whose tensors are split (``--split-mode tensor``), where results of all
GPUs are added up in every layer. The library is never loaded into this process: it carries a name that PyTorch's own
copy has too, and the first one loaded would be taken for both.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SONAME = "libnccl.so.2"
#: Where NVIDIA's wheels (nvidia-nccl-cu12, …) put it, below a folder of packages.
_IN_WHEEL = Path("nvidia", "nccl", "lib", SONAME)
_VERSION = """
import ctypes, sys
version = ctypes.c_int()
assert ctypes.CDLL(sys.argv[1]).ncclGetVersion(ctypes.byref(version)) == 0
print(version.value)
"""
_TIMEOUT_S = 20.0
_MAPPED = re.compile(r"\s(/\S*libnccl\.so\S*)")
#: What an engine's log says when it goes without (ggml-cuda.cu).
_WITHOUT = re.compile(r"(NCCL is unavailable|NCCL not compiled in|NCCL init failed[^\n;]*)")
_TEMPLATE = "chat template, example_format"  # text of the model follows: nothing after it is believed


@dataclass(frozen=True, slots=True)
class Nccl:
    """A library that was found: where, and its version (``2.21.5``), ``None`` where it did not load."""

    path: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Use:
    """Whether an engine uses NCCL: ``None`` where that cannot be told; ``why`` is a clause."""

    used: bool | None
    why: str


def found(path: Iterable[str] | None = None, mapped: str | None = None) -> Nccl | None:
    """The library that an engine maps (``mapped``), else that of the loader's path, else of a wheel; ``None``: none.

    Its version is asked of it in a process of its own, which takes about a tenth of a second.
    """
    places = [mapped] if mapped else [SONAME, *wheels(sys.path if path is None else path)]
    for place in places:
        if (version := _version(place)) is not None:
            return Nccl(place, version)
    # One that is there and does not load is worth telling: the loader's path alone proves nothing.
    there = [place for place in places if place != SONAME]
    return Nccl(there[0], None) if there else None


def wheels(path: Iterable[str]) -> list[str]:
    """Libraries of NVIDIA's wheels in the folders of ``path``."""
    return [str(file) for folder in dict.fromkeys(path) if (file := Path(folder or ".") / _IN_WHEEL).is_file()]


def mapped_by(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The library that a process has loaded; ``None`` when none, or when its maps may not be read."""
    try:
        text = (proc / str(pid) / "maps").read_text("utf-8", "replace")
    except OSError:
        return None
    match = _MAPPED.search(text)
    return match[1] if match else None


def use(gpus: int, split_mode: str | None, mapped: str | None, log: str, wish: str | None = None) -> Use:
    """Whether an engine uses NCCL.

    ``gpus``: how many it uses; ``split_mode``: as it was started (``None`` is its default, by layers); ``mapped``: from
    :func:`mapped_by`; ``log``: the text of its start; ``wish``: its ``GGML_CUDA_ALLREDUCE``.
    """
    mode = split_mode or "layer"
    if gpus < 2:
        return Use(False, "it uses no GPU" if gpus == 0 else "it uses one GPU")
    if mode != "tensor":
        return Use(False, f"split mode {mode} adds nothing up across GPUs, so that it is not needed")
    if wish in ("internal", "none"):
        return Use(False, f"GGML_CUDA_ALLREDUCE={wish} was set for it")
    if said := _WITHOUT.search(log.partition(_TEMPLATE)[0]):
        return Use(False, f"its log says: {said[1]}")
    if mapped is not None:
        return Use(True, "it has loaded the library and its log names no fallback")
    return Use(None, "its log does not say, and its maps name no such library (it may be linked in)")


def wish_of(pid: int, proc: Path = Path("/proc")) -> str | None:
    """``GGML_CUDA_ALLREDUCE`` of a process."""
    try:
        environ = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = b"GGML_CUDA_ALLREDUCE="
    values = [one[len(prefix) :] for one in environ.split(b"\0") if one.startswith(prefix)]
    return values[0].decode("ascii", "replace") if values else None


def version_text(number: int) -> str:
    """NCCL's number as people write it: 22105 → ``2.21.5``; before 2.9 it had one digit less (2804 → ``2.8.4``)."""
    wide = 10_000 if number >= 10_000 else 1_000
    return f"{number // wide}.{number % wide // 100}.{number % 100}"


def _version(place: str) -> str | None:
    try:
        command: Sequence[str] = (sys.executable or "python3", "-I", "-c", _VERSION, place)
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return version_text(int(asked.stdout)) if asked.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None

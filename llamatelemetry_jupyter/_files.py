"""What every download needs: one process at a time, progress, hashes, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import FetchError
from .progress import Progress, Step
from .units import size

CHUNK = 1 << 20
POLL_S = 0.1


@contextlib.contextmanager
def locked(path: Path, say: Progress, timeout_s: float) -> Iterator[None]:
    """Only one process at a time holds ``path``; raises FetchError when another one has for ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say(Step("waiting for another process that downloads it"))
            if time.monotonic() > deadline:
                raise FetchError(f"another process has held {path} for {timeout_s:.0f} s", hint=f"!rm {path}")
            time.sleep(POLL_S)
        yield  # the lock ends with the descriptor, also when the process is killed


def sha256(path: Path, say: Progress | None = None, name: str | None = None) -> str:
    """The file's SHA-256 in hex; progress speaks of ``name``, that of the file unless given."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if say is not None:
                say(Step(f"checking {name or path.name}", done, total, "B"))
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it; raises FetchError when that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be made: {error.strerror}", hint="%env LLAMATELEMETRY_CACHE=/a/folder/of/mine"
        ) from error


def require_space(folder: Path, needed_bytes: int, hint: str = "%env LLAMATELEMETRY_CACHE=/a/larger/disk") -> None:
    """Raises FetchError with ``hint`` when the disk under ``folder`` has less than ``needed_bytes`` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise FetchError(
            f"{size(needed_bytes)} are needed in {folder}, and {size(free)} are free",
            hint=hint,
        )


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that readers see the old file or the new one, never half of it; raises ``OSError``."""
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """The same with ``value`` as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 that readers see whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def bytes_in(folder: Path) -> int:
    """Bytes of all files in ``folder`` now; another process may move and remove them meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):  # passes over what vanishes, unlike Path.rglob
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(path, name).stat().st_size
    return total

"""Archives from elsewhere, unpacked so that nothing in them can leave their folder or fill the disk.

``.tar.gz`` becomes a folder, ``.zst`` one file. What an archive is, its first bytes say. A limit on what comes out is
part of every call, because a few kilobytes can hold terabytes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ._files import CHUNK
from .errors import FetchError
from .progress import Progress, Step
from .units import size

_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
_MEMBERS = 20_000
#: Bytes that headers may take between two members: a header larger than that is read into memory whole.
_HEADER_BYTES = 4 << 20


def kind(path: Path) -> str | None:
    """``zst``, ``tar.gz``, or ``None`` for anything else."""
    with path.open("rb") as file:
        start = file.read(4)
    return "zst" if start == _ZSTD else "tar.gz" if start.startswith(_GZIP) else None


def unpack(path: Path, folder: Path, limit_bytes: int, say: Progress, *, name: str | None = None) -> None:
    """Puts what ``path`` holds into ``folder``; a single file gets ``name``.

    Raises FetchError for what is no archive, is damaged, is larger than ``limit_bytes``, or holds an entry that points
    outside ``folder``, a device or anything else than files, folders and links. ``folder`` may then hold a part of it.
    """
    found = kind(path)
    if found is None:
        raise _bad(path, "it is neither .tar.gz nor .zst")
    try:
        if found == "zst":
            _single(path, folder / (name or path.stem), limit_bytes, say)
        else:
            _tar(path, folder, limit_bytes, say)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError) as error:
        raise _bad(path, f"it is damaged ({error})") from error
    except OSError as error:
        raise FetchError(f"{folder} cannot be written: {error.strerror}", hint=f"!df -h {folder}") from error


def _single(path: Path, target: Path, limit: int, say: Progress) -> None:
    done = 0
    with _zstd(path) as reader, target.open("wb") as out:
        while chunk := reader(CHUNK):
            done += len(chunk)
            if done > limit:
                raise _bad(path, f"it holds more than {size(limit)}")
            out.write(chunk)
            say(Step(f"unpacking {path.name}", done, unit="B"))


@contextlib.contextmanager
def _zstd(path: Path) -> Iterator[Callable[[int], bytes]]:
    """``read(n)`` of the unpacked bytes, by the first of three decoders that is there."""
    if find_spec("compression") is not None and find_spec("compression.zstd") is not None:  # Python 3.14
        import importlib

        module = importlib.import_module("compression.zstd")
        with module.open(path) as file, _damage(path, module.ZstdError):
            yield file.read
    # Not the package zstandard: its readers take a file that ends early for a whole one (0.25).
    elif find_spec("pyarrow") is not None:  # comes with graphistry, so it is nearly always there
        import pyarrow

        with pyarrow.OSFile(str(path)) as raw, _damage(path, OSError):
            yield pyarrow.CompressedInputStream(raw, "zstd").read
    elif program := shutil.which("zstd"):
        with _piped([program, "-dc", str(path)], path) as reader:
            yield reader
    else:
        raise FetchError(f"{path.name} is packed with zstd, which nothing here unpacks", hint="%pip install pyarrow")


@contextlib.contextmanager
def _damage(path: Path, error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # of the disk, not of the decoder
        raise _bad(path, f"it is damaged ({problem})") from problem


@contextlib.contextmanager
def _piped(command: list[str], path: Path) -> Iterator[Callable[[int], bytes]]:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    with process:
        try:
            yield cast("IO[bytes]", process.stdout).read
            if process.wait() != 0:
                raise _bad(path, "it is damaged")
        finally:
            process.kill()


class _Budget:
    """A reader that refuses to give more than it was allowed: headers of an archive can be bombs, too."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.left = _HEADER_BYTES

    def read(self, n: int = -1) -> bytes:
        data = self._file.read(n)
        self.left -= len(data)
        if self.left < 0:
            raise _bad(self._path, "a header in it is larger than any real one")
        return data


def _tar(path: Path, folder: Path, limit: int, say: Progress) -> None:
    root = Path(os.path.realpath(folder))
    done = 0
    with gzip.open(path) as unpacked:
        budget = _Budget(cast("IO[bytes]", unpacked), path)
        with tarfile.open(fileobj=cast("IO[bytes]", budget), mode="r|") as tar:
            for number, member in enumerate(tar):
                done += member.size
                if done > limit or number >= _MEMBERS:
                    raise _bad(path, f"it holds more than {size(limit)} or {_MEMBERS:,} files")
                budget.left = member.size + _HEADER_BYTES
                _extract(tar, member, root, path)
                say(Step(f"unpacking {path.name}", done, unit="B"))


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, path: Path) -> None:
    # Python before 3.10.12 and 3.11.4 has no data filter; these rules are stricter, and hold before it everywhere.
    if not (member.isreg() or member.isdir() or member.issym()):
        raise _bad(path, f"{member.name!r} is neither file, folder nor link")
    target = root / member.name
    outside = ".." in PurePosixPath(member.name).parts or PurePosixPath(member.name).is_absolute()
    # The parent as it is on disk now: an earlier entry may have been a link that leads elsewhere.
    if outside or not _within(root, target.parent):
        raise _bad(path, f"{member.name!r} lies outside the archive")
    if member.issym() and (
        PurePosixPath(member.linkname).is_absolute() or not _within(root, target.parent / member.linkname)
    ):
        raise _bad(path, f"the link {member.name!r} leads outside the archive")
    if target.is_symlink():
        target.unlink()  # never written through
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""  # root would hand them on
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    tar.extract(member, root, set_attrs=True, **options)


def _within(root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _bad(path: Path, why: str) -> FetchError:
    return FetchError(f"{path.name} cannot be unpacked: {why}", hint=f"!ls -l {path}")

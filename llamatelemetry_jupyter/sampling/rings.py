"""The rings in the runtime folder and whose they are, for a reader outside of their kernels.

A ring is named ``<pid>-<start>`` after its kernel, which leaves a note beside it with the id that Jupyter gave it. By
that id the ring is found when the kernel is dead, was restarted, or runs below a launcher with another pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..environment import process_start, runtime_dir
from ..errors import LlamaError
from ..values import Samples
from .ring import RingReader

NOTE_SUFFIX = ".notebook.json"
# A reader keeps what it has found out about a ring; the space of a deleted file is free when its reader has left.
_reader = lru_cache(maxsize=8)(RingReader)


class KernelRing(NamedTuple):
    """A ring as it is now: ``name`` is the stem of its file; ``kernel_id`` and ``path`` are what its kernel noted.

    ``names`` are those of the devices. ``writer_pid`` is ``None`` when the sampler is gone, ``newest_ns`` says when it
    wrote last (0: nothing yet). ``error`` says why the ring cannot be read; then ``latest`` is empty.
    """

    name: str
    pid: int
    alive: bool
    kernel_id: str | None
    path: str | None
    reader: RingReader
    names: Mapping[str, str]
    latest: Samples
    newest_ns: int
    writer_pid: int | None
    error: LlamaError | None

    @property
    def gone_since_ns(self) -> int | None:
        """When the sampler wrote last; ``None`` while it lives, and when it never wrote anything."""
        return None if self.writer_pid is not None or not self.newest_ns else self.newest_ns

    def is_of(self, kernel_id: str, pid: int | None) -> bool:
        """Whether the process of this kernel wrote it: one that lives, or that died and was not replaced yet."""
        mine = kernel_id == self.kernel_id if self.kernel_id else pid == self.pid
        return mine and (self.alive or pid == self.pid)


def leave_note(ring: Path, kernel_id: str | None) -> None:
    """Write down beside ``ring`` that it is this process's, and the notebook that Jupyter says it runs."""
    note = json.dumps({"id": kernel_id, "path": os.environ.get("JPY_SESSION_NAME")})
    with contextlib.suppress(OSError):  # a full disk: then the ring is found by pid alone
        ring.with_suffix(NOTE_SUFFIX).write_text(note, encoding="utf-8")


def readable() -> list[KernelRing]:
    """The rings of this user, those of living kernels first, then the newest; other users' files are passed over.

    Raises LlamaError when the runtime folder itself is another user's.
    """
    try:
        folder = runtime_dir()
    except PermissionError as error:
        raise LlamaError(str(error), hint="%env LLAMATELEMETRY_RUNTIME_DIR=/a/folder/of/mine") from error
    found = []
    for file in folder.glob("*.ring"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                found.append(_look(file))
    return sorted(found, key=lambda ring: (ring.alive, ring.newest_ns), reverse=True)


def _look(file: Path) -> KernelRing:
    pid, start = (int(part) for part in file.stem.split("-"))
    note = _note(file)
    reader, latest, writer, failed = _reader(file), Samples(), None, None
    names: dict[str, str] = {}
    try:
        latest, writer = reader.latest(), reader.writer
        names = {one.device: one.name for one in reader.devices()}
    except LlamaError as error:  # damaged, or of another version
        failed = error
    times = [one.t_ns[-1] for one in latest.devices] + [one.t_ns[-1] for one in latest.servers]
    return KernelRing(
        name=file.stem,
        pid=pid,
        alive=process_start(pid) == start,
        kernel_id=note.get("id"),
        path=note.get("path"),
        reader=reader,
        names=names,
        latest=latest,
        newest_ns=max(times, default=0),
        writer_pid=writer[0] if writer and process_start(writer[0]) == writer[1] else None,
        error=failed,
    )


def _note(ring: Path) -> Mapping[str, str]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        note = json.loads(ring.with_suffix(NOTE_SUFFIX).read_text("utf-8"))
        if isinstance(note, dict):
            return note
    return {}

"""The host's memory: how much there is, how much is available, what each process of ours holds, and the largest others.

Inside a container the limit of its control group counts where it is lower than the machine's memory. Files of /proc
stay open: a read costs 2 µs instead of 9, and an open /proc/<pid>/statm never becomes that of the pid's next owner.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ..environment import process_start
from ..gpu.owners import ProcessBytes, Resident
from ..values import DeviceInfo
from . import mappings

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUPS = Path("/sys/fs/cgroup")
#: How many other processes are named, and from how many bytes of their own on.
_NAMED, _WORTH_NAMING = 3, 64 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory; ``available_bytes`` can be had without swapping (page cache counts as available)."""

    total_bytes: int
    available_bytes: int


@dataclass(slots=True)
class _Process:
    """A process of ours: its start time, its open statm, and its mappings when they were last read."""

    start: float
    statm: Kept
    mapped: mappings.Mappings | None = None
    due: mappings.Rarely = field(default_factory=mappings.Rarely)


class Host:
    """Reads this machine's memory and the resident sets of processes."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> None:
        self._proc = proc
        self._meminfo = Kept(proc / "meminfo") if (proc / "meminfo").exists() else None
        self._limit = find_limit(proc / "self" / "cgroup", cgroups)
        self._processes: dict[int, _Process] = {}
        self._others: tuple[ProcessBytes, ...] = ()
        self._others_due = mappings.Rarely()

    def info(self) -> DeviceInfo:
        """The host as a device."""
        memory = self.memory()
        return DeviceInfo("host", f"Host memory ({platform.machine()})", memory.total_bytes, memory.available_bytes)

    def memory(self) -> Memory:
        """Total and available memory; of the container where it has a lower limit."""
        machine = self._machine()
        if self._limit is None:
            return machine
        limit, unreclaimable = self._limit.read()
        if limit is None or limit >= machine.total_bytes:
            return machine
        return Memory(limit, max(0, min(limit - unreclaimable, machine.available_bytes)))

    def _machine(self) -> Memory:
        if self._meminfo is None:
            import psutil

            found = psutil.virtual_memory()
            return Memory(int(found.total), int(found.available))
        text = self._meminfo.read()
        return Memory(*(_number(text, name) * 1024 for name in (b"MemTotal:", b"MemAvailable:")))

    def resident(self, pid: int, start: float | None, model: str | None = None) -> Resident | None:
        """What a process holds, ``None`` when it is gone or the pid is another process's by now.

        ``model`` is the path of the weights that it maps. Which of its pages others map too is read every 5 s at most.
        """
        process = self._processes.get(pid)
        if process is None or process.start != start:
            if start is None or process_start(pid) != start:
                return None
            if not (self._proc / str(pid)).exists():
                return _psutil_resident(pid)
            process = self._processes[pid] = _Process(start, Kept(self._proc / str(pid) / "statm"))
        try:
            _, resident, shared, *_ = (int(n) * _PAGE for n in process.statm.read().split())
        except (OSError, ValueError):
            self.forget(pid)
            return None
        if not resident:  # a zombie: nothing is left of it
            return None
        if process.due.begin():
            process.mapped = mappings.read(self._proc / str(pid) / "smaps", model)
            process.due.end()
        return _apportioned(pid, resident - shared, shared, process.mapped)

    def others(self, known: Collection[int]) -> tuple[ProcessBytes, ...]:
        """The largest of this user's processes besides the ``known`` ones, by memory of their own; read seldom."""
        if self._others_due.begin():
            self._others = self._largest(known)
            self._others_due.end()
        return tuple(one for one in self._others if one.pid not in known)

    def _largest(self, known: Collection[int]) -> tuple[ProcessBytes, ...]:
        found: list[ProcessBytes] = []
        user = os.getuid()
        for entry in os.scandir(self._proc) if self._proc.is_dir() else ():
            if not entry.name.isdigit() or int(entry.name) in known:
                continue
            try:
                if entry.stat().st_uid != user:
                    continue
                _, resident, shared, *_ = Path(entry.path, "statm").read_bytes().split()
                own = (int(resident) - int(shared)) * _PAGE
                if own >= _WORTH_NAMING:
                    name = Path(entry.path, "comm").read_bytes().decode("utf-8", "replace").strip()
                    found.append(ProcessBytes(int(entry.name), own, name))
            except (OSError, ValueError):  # it ended meanwhile
                continue
        return tuple(sorted(found, key=lambda p: -(p.bytes or 0))[:_NAMED])

    def forget(self, pid: int) -> None:
        """Close what is open for a process."""
        if (process := self._processes.pop(pid, None)) is not None:
            process.statm.close()

    def watched(self) -> tuple[int, ...]:
        """Processes for which files are open."""
        return tuple(self._processes)


def _apportioned(pid: int, own: int, files: int, seen: mappings.Mappings | None) -> Resident:
    """A process's memory now, its file pages split as they were ``seen``; what has come since is taken for weights."""
    if seen is None:
        return Resident(pid, own, files)
    weights = min(files, seen.weights_size, max(0, seen.weights_resident + files - seen.resident))
    share_of_weights = seen.weights_shared / seen.weights_resident if seen.weights_resident else 1.0
    rest = seen.resident - seen.weights_resident
    share_of_rest = (seen.shared - seen.weights_shared) / rest if rest else 1.0
    held = round(weights * share_of_weights)
    return Resident(pid, own, held + round((files - weights) * share_of_rest), held, seen.weights_size)


class Kept:
    """A file of /proc or /sys kept open and read from its beginning each time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """The file's text now; raises ``OSError`` when the process behind it is gone."""
        return os.pread(self._fd, 16384, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Limit:
    """The memory limit of a control group, version 1 or 2."""

    def __init__(self, folder: Path, *, unified: bool) -> None:
        self._unified = unified
        self._max = Kept(folder / ("memory.max" if unified else "memory.limit_in_bytes"))
        self._used = Kept(folder / ("memory.current" if unified else "memory.usage_in_bytes"))
        self._stat = Kept(folder / "memory.stat")

    def limit(self) -> int | None:
        """The limit in bytes, ``None`` when there is none."""
        text = self._max.read().strip()
        return None if text == b"max" else int(text)

    def read(self) -> tuple[int | None, int]:
        """The limit, and the part of the used memory that the system cannot take back."""
        limit = self.limit()
        if limit is None:
            return None, 0
        stat = b"\n" + self._stat.read()
        prefix = b"\n" if self._unified else b"\ntotal_"
        reclaimable = sum(_number(stat, prefix + name + b" ") for name in (b"active_file", b"inactive_file"))
        if self._unified:
            reclaimable += _number(stat, b"\nslab_reclaimable ")
        return limit, max(0, int(self._used.read()) - reclaimable)


def _number(text: bytes, name: bytes) -> int:
    """The number behind ``name``, 0 where it is not: splitting the whole text takes ten times as long."""
    at = text.find(name)
    return 0 if at < 0 else int(text[at + len(name) : at + len(name) + 24].split(None, 1)[0])


def find_limit(membership: Path, cgroups: Path) -> Limit | None:
    """The tightest limit on the way from this process's control group to the root, ``None`` where there is none."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    best: tuple[int, Limit] | None = None
    for _, controllers, path in lines:
        unified = controllers == ""
        if not unified and "memory" not in controllers.split(","):
            continue
        root = cgroups if unified else cgroups / "memory"
        inside = root / path.lstrip("/")
        # In a container the path may be the host's: then only the root, which is the container's own, exists here.
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(root):
                break
            try:
                found = Limit(folder, unified=unified)
                limit = found.limit()
            except (OSError, ValueError):
                continue
            if limit is not None and (best is None or limit < best[0]):
                best = (limit, found)
    return best[1] if best else None


def _psutil_resident(pid: int) -> Resident | None:
    import psutil

    try:
        return Resident(pid, int(psutil.Process(pid).memory_info().rss), 0)
    except psutil.Error:
        return None

"""The sampler's process: reads memory, GPUs and servers for one kernel until that kernel is gone.

It is a process of its own so that a cell that holds the GIL delays no reading and a kernel that dies loses none. It
imports nothing but the standard library and, where there is a driver, pynvml: it costs next to nothing while it waits.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import clock
from ..environment import process_start, runtime_dir
from ..gpu.nvml import Nvml, Reading
from ..gpu.owners import Engine, ProcessBytes, gpu_owners, host_owners, visible
from ..values import DeviceSample, OwnerBytes, ServerHandle, ServerSample
from .gpus import Gpus
from .host import Host
from .kernel import KernelFile
from .ring import MIN_HZ, RingWriter
from .rings import NOTE_SUFFIX
from .server import ServerWatch

_STALE_S = 86400.0
_MOST_BYTES = 256 << 20
_HISTORY = 3600
# Our own tick; how often GPUs and servers are read is their threads' affair.
_TICK_S = 0.5
# How often these are looked at: whether the kernel lives, whether the ring has its place, whether a server's file was
# written in place, what the host's memory holds while somebody wants more than a reading a second.
_LOOK_S, _KEEP_S, _STATES_S, _HOST_S = 5.0, 2.0, 0.45, 0.45
# So long the driver may be another than our library before we start anew to load the new one.
_OUTDATED_S = 60.0


@dataclass(frozen=True, slots=True)
class Parent:
    """The kernel that is sampled for."""

    pid: int
    start: float

    @property
    def stem(self) -> str:
        """The stem of its files in the runtime folder."""
        return f"{self.pid}-{self.start:.0f}"

    def alive(self) -> bool:
        """Whether it is still that process."""
        return process_start(self.pid) == self.start


@dataclass(slots=True)
class _Served:
    """A server and what attribution needs to know of it once."""

    watch: ServerWatch
    cuda_visible: str | None
    before: dict[str, int] = field(default_factory=dict)
    here: bool = False

    def engine(self, devices: Sequence[str]) -> Engine:
        """What attribution is told of it; ``devices`` are all GPUs."""
        handle = self.watch.handle
        return Engine(handle.name, handle.pid, handle.buffers, self.watch.kv_fill, visible(devices, self.cuda_visible))


@dataclass(frozen=True, slots=True)
class _Owned:
    """Owners of a GPU's memory as they were at ``t_ns``, when its reading was ``key``."""

    t_ns: int
    key: tuple[object, ...]
    owners: tuple[OwnerBytes, ...]


class Sampler:
    """One kernel's sampler; :meth:`run` returns when the kernel is gone."""

    def __init__(self, parent: Parent, hz: float, folder: Path, open_nvml: Callable[[], Nvml] = Nvml) -> None:
        self._parent = parent
        self._ring = RingWriter(folder / f"{parent.stem}.ring", hz=hz, start=process_start(os.getpid()) or 0.0)
        self._host = Host()
        self._host_info = self._host.info()
        self._host_at = -math.inf
        self._kernel_seen = False
        self._followed: Sequence[ServerHandle] | None = None
        self._owned: dict[str, _Owned] = {}
        self._states = StateFiles(folder, parent.stem)
        self._kernel = KernelFile(folder, parent.stem)
        self._served: dict[str, _Served] = {}
        self._used: dict[str, deque[tuple[int, int]]] = {}
        self._ring.describe((self._host_info,))
        self._gpus = Gpus(lambda: self._ring.wanted_hz, self._sample_gpu, self._ring.write, self._describe, open_nvml)
        self._gpus.start()

    def run(self, asked: Asked) -> None:
        """Sample until the kernel is gone."""
        try:
            self._run(asked)
        finally:
            self._ring.close()

    def _run(self, asked: Asked) -> None:
        begun = time.monotonic()
        looked = kept = -math.inf
        while True:
            if begun - looked > _LOOK_S or not self._kernel_seen:
                looked = begun
                if not self._parent.alive():
                    return
            self.tick()
            if begun - kept > _KEEP_S:
                kept = begun
                with contextlib.suppress(OSError):  # a full disk: we go on in the file that has no name any more
                    self._ring.keep()
            if self._gpus.mismatch_s > _OUTDATED_S:
                os.execv(sys.executable, sys.orig_argv)  # ourselves: the same process, with the new library
            if asked.within(begun + _TICK_S - time.monotonic()):
                self._host_at = -math.inf
            begun = time.monotonic()

    def tick(self) -> None:
        """Read the host, and see to GPUs and servers: threads of their own read them, which this never waits for."""
        self._ring.beat()
        self._follow(self._states.read())
        due_s = _HOST_S if self._ring.wanted_hz > MIN_HZ else 2 * _HOST_S
        if (now := time.monotonic()) - self._host_at > due_s:
            self._host_at = now
            host = self._sample_host()
            if (
                self._kernel_seen or self._parent.alive()
            ):  # what a kernel leaves shows what it held, not that it is gone
                self._ring.write(host)
        self._gpus.look()
        for served in self._served.values():
            if (late := served.watch.late()) is not None:
                self._ring.write(late)

    def _follow(self, handles: Sequence[ServerHandle]) -> None:
        if handles is self._followed:
            return
        self._followed = handles
        wanted = {h.name: h for h in handles}
        for name, served in list(self._served.items()):
            if wanted.get(name) != served.watch.handle:
                served.watch.stop()
                del self._served[name]
                if name not in wanted:
                    self._ring.write(ServerSample(clock.now_ns(), name, "stopped"))
        for name, handle in wanted.items():
            if name not in self._served:
                watch = ServerWatch(handle, lambda: self._ring.wanted_hz, self._ring.write)
                here = handle.pid is not None and process_start(handle.pid) == handle.pid_start
                self._served[name] = _Served(watch, _cuda_visible(handle), self._before(handle), here)
        pids = {self._parent.pid, *(h.pid for h in handles)}
        for pid in self._host.watched():
            if pid not in pids:
                self._host.forget(pid)

    def _sample_host(self) -> DeviceSample:
        memory = self._host.memory()
        engines = []
        for served in self._served.values():
            handle = served.watch.handle
            path = handle.model.path if handle.model else None
            held = self._host.resident(handle.pid, handle.pid_start, path) if handle.pid is not None else None
            served.here = held is not None
            if held is not None:
                engines.append((served.engine(self._gpus.devices), held))
        kernel = self._host.resident(self._parent.pid, self._parent.start)
        self._kernel_seen = kernel is not None
        others = self._host.others({self._parent.pid, *(held.pid for _, held in engines)})
        owners = host_owners(memory.total_bytes, memory.available_bytes, engines, kernel, others)
        free = sum(o.bytes for o in owners if o.owner == "free")
        return DeviceSample(clock.now_ns(), "host", memory.total_bytes - free, memory.total_bytes, owners=owners)

    def _describe(self) -> None:
        self._ring.describe((self._host_info, *self._gpus.infos))

    def _sample_gpu(self, device: str, reading: Reading) -> DeviceSample:
        """The sample of a reading; runs on the thread of that GPU."""
        now = clock.now_ns()
        used, total = reading.used_bytes, reading.total_bytes
        if used is None or total is None:
            return DeviceSample(now, device, None, None)
        # While its memory stays as it is, owners of half a second ago will do.
        key = (used, reading.free_bytes, reading.processes)
        known = self._owned.get(device)
        if known is None or known.key != key or now - known.t_ns > _STATES_S * 1e9:
            known = self._owned[device] = _Owned(now, key, self._gpu_owners(device, reading, now))
        return DeviceSample(
            now,
            device,
            used,
            total,
            reading.util,
            reading.mem_util,
            reading.power_w,
            reading.energy_j,
            reading.temp_c,
            known.owners,
        )

    def _gpu_owners(self, device: str, reading: Reading, now_ns: int) -> tuple[OwnerBytes, ...]:
        used, total, listed = reading.used_bytes or 0, reading.total_bytes or 0, reading.processes
        devices = self._gpus.devices
        held = self._kernel.held(device, devices)
        history = self._used.setdefault(device, deque(maxlen=_HISTORY))
        others = used - sum(h.bytes for h in held)
        if not history or others != history[-1][1] or now_ns - history[-1][0] >= 1_000_000_000:
            history.append((now_ns, others))
        here = [s for s in list(self._served.values()) if s.here]
        before = [s.before[device] for s in here if device in s.before]
        trusted = listed is not None and all(process_start(p.pid) is not None for p in listed)
        if trusted and listed is not None:
            listed = tuple(ProcessBytes(p.pid, p.bytes, _comm(p.pid)) for p in listed)
        owners = gpu_owners(
            device,
            used=used,
            total=total,
            free=reading.free_bytes if reading.free_bytes is not None else total - used,
            processes=listed,
            engines=[s.engine(devices) for s in here],
            kernel_pid=self._parent.pid,
            trusted=trusted,
            before=before[0] if len(before) == 1 else None,
            held=held,
        )
        # The very same tuple while nothing changes: then its record need not be made again.
        known = self._owned.get(device)
        return known.owners if known is not None and known.owners == owners else owners

    def _before(self, handle: ServerHandle) -> dict[str, int]:
        """Used memory of each GPU just before a server's process started, where we were there to see it."""
        if handle.pid is None or handle.pid_start is None or not hasattr(time, "CLOCK_BOOTTIME"):
            return {}
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - handle.pid_start / os.sysconf("SC_CLK_TCK")
        started = clock.now_ns() - int(age_s * 1e9)
        found = {}
        for device, history in list(self._used.items()):
            earlier = [used for t_ns, used in list(history) if t_ns <= started]
            if earlier:
                found[device] = earlier[-1]
        return found


class Asked:
    """Whether the kernel asks for a look now: a byte on the pipe ``fd``."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def within(self, seconds: float) -> bool:
        """Wait so long at most; true when it has asked. A closed pipe asks for nothing any more."""
        if self._fd is None:
            time.sleep(max(0.0, seconds))
            return False
        if not select.select([self._fd], [], [], max(0.0, seconds))[0]:
            return False
        if not os.read(self._fd, 4096):
            self._fd = None
        return True


class StateFiles:
    """The servers of a kernel, from the files that its ServerManager writes."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        self._prefix = f"{stem}."
        self._read: dict[str, tuple[tuple[int, int, int], ServerHandle]] = {}
        self._looked, self._folder_ns = -math.inf, 0
        self._handles: tuple[ServerHandle, ...] = ()

    def read(self) -> tuple[ServerHandle, ...]:
        """The servers now, the same tuple while nothing changes. Half a file waits for the next reading.

        A file that comes or goes is seen at once, one that is written in place within half a second.
        """
        folder_ns = os.fstat(self._fd).st_mtime_ns
        if (now := time.monotonic()) - self._looked < _STATES_S and folder_ns == self._folder_ns:
            return self._handles
        self._looked, self._folder_ns = now, folder_ns
        handles = self._look()
        if handles != self._handles:
            self._handles = handles
        return self._handles

    def _look(self) -> tuple[ServerHandle, ...]:
        found: dict[str, tuple[tuple[int, int, int], ServerHandle]] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not (entry.name.startswith(self._prefix) and entry.name.endswith(".server.json")):
                    continue
                before = self._read.get(entry.name)
                try:
                    status = entry.stat()
                    mark = (status.st_mtime_ns, status.st_size, status.st_ino)
                    if before is None or before[0] != mark:
                        before = (mark, ServerHandle.from_json(Path(entry.path).read_text("utf-8")))
                except FileNotFoundError:
                    continue
                except (OSError, ValueError, TypeError, KeyError, AttributeError):
                    if before is None:
                        continue
                found[entry.name] = before
        self._read = found
        return tuple(handle for _, handle in found.values())


def remove_stale(folder: Path, *, older_than_s: float = _STALE_S, most_bytes: int = _MOST_BYTES) -> list[Path]:
    """Delete rings and sampler logs of kernels that are gone for a day, and the oldest beyond ``most_bytes`` in all.

    Those of living kernels count, but stay. A note goes with its ring. Returns what was deleted.
    """
    total = 0
    dead: list[tuple[float, int, Path]] = []
    for pattern in ("*.ring", "*.ring.*.new", "*.sampler.log", "*.kernel.json"):
        for path in folder.glob(pattern):
            pid, _, start = path.name.split(".", 1)[0].partition("-")
            if not (pid.isdigit() and start.isdigit()):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                total += status.st_size
                if process_start(int(pid)) != float(start):
                    dead.append((status.st_mtime, status.st_size, path))
    removed = []
    for modified, size, path in sorted(dead):
        if time.time() - modified > older_than_s or total > most_bytes:
            path.unlink(missing_ok=True)
            removed.append(path)
            total -= size
            ring = path.with_name(path.name.split(".", 1)[0] + ".ring")
            if not ring.exists():
                ring.with_suffix(NOTE_SUFFIX).unlink(missing_ok=True)
    return removed


def main(arguments: Sequence[str]) -> int:
    """``--parent PID:START [--hz 1] [--clock WALL:MONOTONIC]``; returns the exit status."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    try:
        pid, _, start = options["--parent"].partition(":")
        parent = Parent(int(pid), float(start))
        hz = float(options.get("--hz", MIN_HZ))
        if anchor := options.get("--clock"):
            wall, _, monotonic = anchor.partition(":")
            clock.adopt(clock.Anchor(int(wall), int(monotonic)))
    except (KeyError, ValueError):
        sys.stderr.write(
            "usage: python -m llamatelemetry_jupyter.sampling --parent PID:START [--hz 1] [--clock WALL:MONOTONIC]\n"
        )
        return 2
    # A notebook's Stop button signals the kernel's process group; the sampler is not meant.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.getsid(0) != os.getpid():
        with contextlib.suppress(PermissionError):  # leader of a process group: it has no terminal of the kernel anyway
            os.setsid()
    folder = runtime_dir()
    remove_stale(folder)
    Sampler(parent, hz, folder).run(Asked(sys.stdin.fileno()))
    return 0


def _cuda_visible(handle: ServerHandle) -> str | None:
    if handle.pid is None:
        return None
    try:
        environ = Path(f"/proc/{handle.pid}/environ").read_bytes()
    except OSError:
        return None
    for entry in environ.split(b"\0"):
        if entry.startswith(b"CUDA_VISIBLE_DEVICES="):
            return entry.partition(b"=")[2].decode("ascii", "replace")
    return None


def _comm(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return None

"""The sampler's process: reads memory, GPUs and servers for one kernel until that kernel is gone.

It is a process of its own so that a cell that holds the GIL delays no reading and a kernel that dies loses none. It
imports nothing but the standard library and, where there is a driver, pynvml: it costs next to nothing while it waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import clock
from ..environment import process_start, runtime_dir
from ..gpu.nvml import Gpu, Nvml
from ..gpu.owners import Engine, ProcessBytes, gpu_owners, host_owners, visible
from ..values import DeviceSample, ServerHandle, ServerSample
from .host import Host
from .ring import RingWriter
from .server import ServerWatch

_STALE_S = 86400.0
_HISTORY = 3600


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
    gpus: tuple[str, ...]
    before: dict[str, int] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        handle = self.watch.handle
        return Engine(handle.name, handle.pid, handle.buffers, self.watch.kv_fill, self.gpus)


class Sampler:
    """One kernel's sampler; :meth:`run` returns when the kernel is gone."""

    def __init__(self, parent: Parent, hz: float, folder: Path, nvml: Nvml | None = None) -> None:
        self._parent = parent
        self._folder = folder
        self._ring = RingWriter(folder / f"{parent.stem}.ring", hz=hz, start=process_start(os.getpid()) or 0.0)
        self._host = Host()
        self._nvml = nvml or Nvml()
        self._devices = tuple(g.device for g in self._nvml.gpus)
        self._states = StateFiles(folder, parent.stem)
        self._served: dict[str, _Served] = {}
        self._used: dict[str, deque[tuple[int, int]]] = {d: deque(maxlen=_HISTORY) for d in self._devices}
        self._ring.describe((self._host.info(), *self._nvml.infos()))

    def run(self) -> None:
        """Sample at the wanted rate; a tick that took too long is not made up for."""
        due = time.monotonic()
        while self._parent.alive():
            self.tick()
            now = time.monotonic()
            due = max(due + 1.0 / self._ring.wanted_hz, now)
            time.sleep(due - now)

    def tick(self) -> None:
        """One reading of everything that is not read by a thread of its own."""
        self._ring.beat()
        self._follow(self._states.read())
        self._ring.write(self._sample_host())
        for gpu in self._nvml.gpus:
            self._ring.write(self._sample_gpu(gpu))
        for served in self._served.values():
            if (late := served.watch.late()) is not None:
                self._ring.write(late)

    def _follow(self, handles: Sequence[ServerHandle]) -> None:
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
                self._served[name] = _Served(watch, visible(self._devices, _cuda_visible(handle)), self._before(handle))
        pids = {self._parent.pid, *(h.pid for h in handles)}
        for pid in self._host.watched():
            if pid not in pids:
                self._host.forget(pid)

    def _sample_host(self) -> DeviceSample:
        memory = self._host.memory()
        engines = []
        for served in self._served.values():
            handle = served.watch.handle
            if handle.pid is not None and (held := self._host.resident(handle.pid, handle.pid_start)) is not None:
                engines.append((served.engine, held))
        kernel = self._host.resident(self._parent.pid, self._parent.start)
        owners = host_owners(memory.total_bytes, memory.available_bytes, engines, kernel)
        free = sum(o.bytes for o in owners if o.owner == "free")
        return DeviceSample(clock.now_ns(), "host", memory.total_bytes - free, memory.total_bytes, owners=owners)

    def _sample_gpu(self, gpu: Gpu) -> DeviceSample:
        reading = self._nvml.read(gpu)
        now = clock.now_ns()
        used, total = reading.used_bytes, reading.total_bytes
        if used is None or total is None:
            return DeviceSample(now, gpu.device, None, None)
        history = self._used[gpu.device]
        if not history or now - history[-1][0] >= 1_000_000_000:
            history.append((now, used))
        listed = reading.processes
        trusted = listed is not None and all(process_start(p.pid) is not None for p in listed)
        if trusted and listed is not None:
            listed = tuple(ProcessBytes(p.pid, p.bytes, _comm(p.pid)) for p in listed)
        here = [s for s in self._served.values() if self._same_process(s.watch.handle)]
        before = [s.before[gpu.device] for s in here if gpu.device in s.before]
        owners = gpu_owners(
            gpu.device,
            used=used,
            total=total,
            free=reading.free_bytes if reading.free_bytes is not None else total - used,
            processes=listed,
            engines=[s.engine for s in here],
            kernel_pid=self._parent.pid,
            trusted=trusted,
            before=before[0] if len(before) == 1 else None,
        )
        return DeviceSample(
            now,
            gpu.device,
            used,
            total,
            reading.util,
            reading.mem_util,
            reading.power_w,
            reading.energy_j,
            reading.temp_c,
            owners,
        )

    def _same_process(self, handle: ServerHandle) -> bool:
        return handle.pid is not None and self._host.resident(handle.pid, handle.pid_start) is not None

    def _before(self, handle: ServerHandle) -> dict[str, int]:
        """Used memory of each GPU just before a server's process started, where we were there to see it."""
        if handle.pid is None or handle.pid_start is None or not hasattr(time, "CLOCK_BOOTTIME"):
            return {}
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - handle.pid_start / os.sysconf("SC_CLK_TCK")
        started = clock.now_ns() - int(age_s * 1e9)
        found = {}
        for device, history in self._used.items():
            earlier = [used for t_ns, used in history if t_ns <= started]
            if earlier:
                found[device] = earlier[-1]
        return found


class StateFiles:
    """The servers of a kernel, from the files that its ServerManager writes."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._prefix = f"{stem}."
        self._read: dict[str, tuple[tuple[int, int, int], ServerHandle]] = {}

    def read(self) -> tuple[ServerHandle, ...]:
        """The servers now; files are read again only when they changed. Half a file waits for the next reading."""
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


def remove_stale(folder: Path, *, older_than_s: float = _STALE_S) -> list[Path]:
    """Delete rings and sampler logs of kernels that are gone for a day; returns what was deleted."""
    removed = []
    for path in (*folder.glob("*.ring"), *folder.glob("*.sampler.log")):
        pid, _, start = path.name.split(".", 1)[0].partition("-")
        if not (pid.isdigit() and start.isdigit()) or process_start(int(pid)) == float(start):
            continue
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                removed.append(path)
    return removed


def main(arguments: Sequence[str]) -> int:
    """``--parent PID:START [--hz 2]``; returns the exit status."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    try:
        pid, _, start = options["--parent"].partition(":")
        parent = Parent(int(pid), float(start))
        hz = float(options.get("--hz", "2"))
    except (KeyError, ValueError):
        sys.stderr.write("usage: python -m llamatelemetry_jupyter.sampling --parent PID:START [--hz 2]\n")
        return 2
    # A notebook's Stop button signals the kernel's process group; the sampler is not meant.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getsid(0) != os.getpid():
        with contextlib.suppress(PermissionError):  # leader of a process group: it has no terminal of the kernel anyway
            os.setsid()
    folder = runtime_dir()
    remove_stale(folder)
    Sampler(parent, hz, folder).run()
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

"""The GPUs of a sampler, read off its main thread, so that one that does not answer delays nobody else.

GPUs that answer share a thread, which keeps its own time: a reading wakes one thread and no other. A GPU that is late
keeps that thread for itself from then on, and the others go on at once on a new one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from .. import clock
from ..gpu.nvml import Gpu, Nvml, Point, Reading
from ..values import ActivitySample, DeviceInfo, DeviceSample
from . import pace
from .records import Sample

#: A reading that takes longer is n/a until it comes.
LATE_S = 1.0
_REVIVE_S = 1.0
# Processes and temperature need not be read more often, and what the driver has measured by itself waits that long.
_SLOW_S = 0.45
# Readings of the driver's own are believed if they are from the last minute; a wall clock that was set by more than
# this in between makes their times meaningless.
_OLDEST_NS, _STEPPED_NS = 60_000_000_000, 50_000_000


class Gpus:
    """Finds the GPUs, reads them ``hz()`` times a second, and finds them again after a restart of the driver.

    ``make`` turns a reading into a sample, on the thread that has read; ``write`` takes it. ``described`` is called, on
    any thread, when names and sizes are known. :meth:`look` never waits for a GPU.
    """

    def __init__(
        self,
        hz: Callable[[], float],
        make: Callable[[str, Reading], DeviceSample],
        write: Callable[[Sample], None],
        described: Callable[[], None],
        open_nvml: Callable[[], Nvml] = Nvml,
    ) -> None:
        self._hz = hz
        self._make, self._write, self._described, self._open = make, write, described, open_nvml
        self._watches: tuple[_Watch, ...] = ()
        self._workers: tuple[_Worker, ...] = ()
        self._nvml: Nvml | None = None

    def start(self) -> None:
        """Look for GPUs from now on; returns at once, because a driver may hang as soon as it is opened."""
        threading.Thread(target=self._run, name="gpus", daemon=True).start()

    @property
    def devices(self) -> tuple[str, ...]:
        """The ids of the GPUs in NVML's order."""
        return tuple(watch.gpu.device for watch in self._watches)

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """Names and sizes, as far as they are known."""
        return tuple(watch.info for watch in self._watches if watch.info is not None)

    @property
    def mismatch_s(self) -> float:
        """As :attr:`.Nvml.mismatch_s`."""
        return self._nvml.mismatch_s if self._nvml is not None else 0.0

    def look(self) -> None:
        """Write a sample without figures for a GPU that is late, and have the others read without it."""
        for worker in self._workers:
            if (late := worker.late()) is None:
                continue
            if others := worker.leave(late):
                self._workers = (*self._workers, _Worker(others, self._hz))
            self._write(late.seen(DeviceSample(clock.now_ns(), late.gpu.device, None, None)))

    def _run(self) -> None:
        nvml = self._nvml = self._open()
        while nvml.present:
            known = {watch.gpu: watch for watch in self._watches}
            if known.keys() != set(nvml.gpus):
                self._watches = tuple(known.get(gpu) or _Watch(gpu, nvml, self) for gpu in nvml.gpus)
                if fresh := [watch for watch in self._watches if watch.gpu not in known]:
                    self._workers = (*self._workers, _Worker(fresh, self._hz))
            time.sleep(_REVIVE_S)
            nvml.revive()

    def heard(self, watch: _Watch, reading: Reading, activity: ActivitySample | None) -> None:
        """Write what a watch has read."""
        # In this order: who finds a sample finds what the driver had measured until half a second before.
        if activity is not None:
            self._write(activity)
        self._write(watch.seen(self._make(watch.gpu.device, reading)))

    def described(self) -> None:
        """A watch knows its GPU's name."""
        self._described()


class _Worker:
    """A thread that reads some GPUs, one after the other, ``hz()`` times a second."""

    def __init__(self, watches: Sequence[_Watch], hz: Callable[[], float]) -> None:
        self._watches = tuple(watches)
        self._hz = hz
        self._reading: tuple[_Watch, float] | None = None
        threading.Thread(target=self._run, name="gpu readings", daemon=True).start()

    def late(self) -> _Watch | None:
        """The GPU whose reading takes too long, if there is one."""
        reading = self._reading
        return reading[0] if reading is not None and time.monotonic() - reading[1] > LATE_S else None

    def leave(self, late: _Watch) -> tuple[_Watch, ...]:
        """From now on read only the one that is late; the others are given away."""
        others = tuple(watch for watch in self._watches if watch is not late)
        self._watches = (late,)
        return others

    def _run(self) -> None:
        begun = time.monotonic()
        while True:
            for watch in self._watches:
                self._reading = (watch, time.monotonic())
                watch.read()
                if watch not in self._watches[:-1]:
                    break  # it was late: the others have been given away
            self._reading = None
            begun = pace.wait(begun, self._hz)


class _Watch:
    """What is known of one GPU."""

    def __init__(self, gpu: Gpu, nvml: Nvml, owner: Gpus) -> None:
        self.gpu = gpu
        self.info: DeviceInfo | None = None
        self._nvml, self._owner = nvml, owner
        self._good_ns: int | None = None
        self._seen_us = (0, 0)
        self._offset_ns: int | None = None
        self._slow_at, self._slow = -math.inf, Reading()

    def seen(self, sample: DeviceSample) -> DeviceSample:
        """``sample``; one without figures says since when."""
        if sample.used_bytes is not None:
            self._good_ns = sample.t_ns
            return sample
        return DeviceSample(sample.t_ns, sample.device, None, None, since_ns=self._good_ns)

    def read(self) -> None:
        """Ask the GPU, however long it takes, and hand on what it says."""
        if self.info is None and (info := self._nvml.info(self.gpu)) is not None:
            self.info = info
            self._owner.described()
        if (now := time.monotonic()) - self._slow_at <= _SLOW_S:
            self._owner.heard(self, self._nvml.read(self.gpu, self._slow), None)
            return
        self._slow_at, self._slow = now, self._nvml.read(self.gpu)
        self._owner.heard(self, self._slow, self.activity(*self._nvml.activity(self.gpu, self._seen_us)))

    def activity(self, util: list[Point], power: list[Point]) -> ActivitySample | None:
        """The driver's own readings by our clock; what can't be from the last minute is dropped."""
        wall_ns, now = time.time_ns(), clock.now_ns()
        offset, before = now - wall_ns, self._offset_ns
        self._offset_ns = offset
        self._seen_us = (_newest(util, self._seen_us[0]), _newest(power, self._seen_us[1]))
        if before is not None and abs(offset - before) > _STEPPED_NS:
            self._seen_us = (wall_ns // 1000, wall_ns // 1000)
            return None
        points: list[tuple[int, float | None, float | None]] = [(t * 1000 + offset, value, None) for t, value in util]
        points += [(t * 1000 + offset, None, value) for t, value in power]
        kept = sorted((p for p in points if now - _OLDEST_NS <= p[0] <= now), key=lambda p: p[0])
        return ActivitySample(kept[-1][0], self.gpu.device, tuple(kept)) if kept else None


def _newest(points: list[Point], before: int) -> int:
    return max([before, *(t for t, _ in points)])

"""A sampler in this process over replayed GPUs: time moves when the test says so."""

from __future__ import annotations

import os
import time

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.sampling.ring import RingReader
from llamatelemetry_jupyter.sampling.sampler import Parent, Sampler

KERNEL = Parent(os.getpid(), process_start(os.getpid()))
#: The two cards of the trace t4x2.
ZERO, ONE = "GPU-7f3b2c1a-5d4e-4b8a-9c6d-0e1f2a3b4c5d", "GPU-91c8d7e6-2f3a-4c5b-8d7e-6f5a4b3c2d1e"


class World:
    """A sampler in this process over replayed GPUs, and the reader of its ring."""

    def __init__(self, folder, replay):
        self.replay = replay
        self.sampler = Sampler(KERNEL, 1.0, folder, lambda: Nvml(replay, now=lambda: replay.now_s))
        self.reader = RingReader(folder / f"{KERNEL.stem}.ring")
        self._wish = self.reader.want(10)

    def rows(self):
        return {d.device: d.row(0) for d in self.reader.latest().devices}

    def tick(self, devices=(ZERO, ONE)):
        """Read everything, and wait until these GPUs have answered to it; their newest samples."""
        until(lambda: self.sampler._gpus.devices)
        for _ in range(2):  # a reading that ran before may end in the first round
            begun = clock.now_ns()
            until(lambda begun=begun: self._answered(devices, begun))
        return self.rows()

    def _answered(self, devices, begun):
        self.sampler.tick()
        rows = self.rows()
        return all(device in rows and rows[device].t_ns >= begun for device in devices)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.01)

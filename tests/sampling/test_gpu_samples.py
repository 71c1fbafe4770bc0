"""GPU samples of the sampler, with a machine's GPUs at NVML's interface and real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from gpu.replay import Replay, real_pynvml

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.sampling import gpus
from llamatelemetry_jupyter.sampling.ring import RingReader
from llamatelemetry_jupyter.sampling.sampler import Parent, Sampler
from llamatelemetry_jupyter.values import EngineBuffer, ServerHandle

KERNEL = Parent(os.getpid(), process_start(os.getpid()))
MIB = 1 << 20
ZERO, ONE = "GPU-7f3b2c1a-5d4e-4b8a-9c6d-0e1f2a3b4c5d", "GPU-91c8d7e6-2f3a-4c5b-8d7e-6f5a4b3c2d1e"


class World:
    """A sampler in this process over replayed GPUs, and the reader of its ring."""

    def __init__(self, folder, replay):
        self.replay = replay
        self.sampler = Sampler(KERNEL, 1.0, folder, lambda: Nvml(replay, now=lambda: replay.now_s))
        self.reader = RingReader(folder / f"{KERNEL.stem}.ring")

    def rows(self):
        return {d.device: d.row(0) for d in self.reader.latest().devices}

    def tick(self, devices=(ZERO, ONE)):
        """One tick, and wait until these GPUs have answered to it."""
        begun = clock.now_ns()
        until(lambda: self.sampler._gpus.devices)
        while not all(d in self.rows() and self.rows()[d].t_ns >= begun for d in devices):
            self.sampler.tick()
            time.sleep(0.02)
            assert clock.now_ns() - begun < 20 * 10**9, "no answer"
        return self.rows()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.01)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """``world(trace, at)``."""
    monkeypatch.setattr(gpus, "_REVIVE_S", 0.02)
    made = []

    def make(trace, at=9.0):
        made.append(World(tmp_path, Replay(trace, at=at)))
        return made[-1]

    yield make
    for one in made:
        one.replay.release()
        one.sampler._gpus._nvml.close()


def serve(folder, pid):
    served = ServerHandle(
        name="default",
        url="http://127.0.0.1:9",
        api_key=None,
        backend="llama.cpp",
        owned=True,
        pid=pid,
        pid_start=process_start(pid),
        model=None,
        slots=1,
        ctx_per_slot=512,
        buffers=(EngineBuffer("CUDA0", "weights", 1_000 * MIB), EngineBuffer("CUDA1", "weights", 2_000 * MIB)),
    )
    (folder / f"{KERNEL.stem}.default.server.json").write_text(served.to_json())


@contextlib.contextmanager
def engine_process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        try:
            yield engine
        finally:
            engine.stdin.close()


def owners(sample):
    return {(o.owner, o.source): o.bytes // MIB for o in sample.owners}


def test_each_gpu_is_sampled_beside_the_host_and_a_lost_one_is_na_since_then(world):
    there = world("lost")
    before = there.tick()
    assert list(before) == ["host", ZERO, ONE]
    assert (before[ZERO].util, before[ZERO].power_w, before[ZERO].temp_c) == (0.58, 58.0, 46.0)
    assert [i.name for i in there.reader.devices()[1:]] == ["Tesla T4", "Tesla T4"]
    there.replay.at(12.0)
    lost = there.tick()
    assert (lost[ONE].used_bytes, lost[ONE].owners, lost[ONE].power_w) == (None, (), None)
    assert before[ONE].t_ns <= lost[ONE].since_ns < lost[ONE].t_ns
    assert (lost[ZERO].used_bytes, lost[ZERO].since_ns) == (2_700 * MIB, None)
    there.replay.at(26.0)
    back = there.tick()
    assert (back[ONE].used_bytes, back[ONE].since_ns) == (2_950 * MIB, None)


def test_a_gpu_that_hangs_delays_nobody_and_is_na_until_it_answers(world, monkeypatch):
    monkeypatch.setattr(gpus, "LATE_S", 0.05)
    there = world("hangs")
    there.tick()
    there.replay.at(12.0)
    there.sampler.tick()
    time.sleep(0.06)
    begun = time.perf_counter()
    there.sampler.tick()
    rows = there.tick([ZERO])
    until(lambda: there.sampler.tick() or there.rows()[ONE].used_bytes is None)
    assert time.perf_counter() - begun < 10  # not the 13 s that the call hangs
    assert there.rows()[ONE].since_ns is not None
    assert rows[ZERO].used_bytes == 2_700 * MIB
    assert sum(t.name == ONE for t in threading.enumerate() if t.is_alive()) >= 1
    there.replay.at(26.0)
    until(lambda: there.sampler.tick() or there.rows()[ONE].used_bytes == 2_950 * MIB)


def test_a_restarted_driver_is_found_again_under_the_same_ids(world):
    there = world("restart")
    before = there.tick()
    there.replay.at(13.0)
    gone = there.tick()
    assert [gone[d].used_bytes for d in (ZERO, ONE)] == [None, None]
    assert gone[ZERO].since_ns >= before[ZERO].t_ns
    there.replay.at(60.0)
    until(lambda: there.tick()[ONE].used_bytes is not None)
    assert list(there.rows()) == ["host", ZERO, ONE]


def test_a_driver_that_was_replaced_for_long_needs_a_new_process(world, monkeypatch):
    there = world("restart", at=9.0)
    there.tick()
    there.replay.answer("nvmlInit()", {"error": "LibRmVersionMismatch"})
    started = []

    def execv(path, arguments):
        started.append((path, arguments))
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(
        "llamatelemetry_jupyter.sampling.pace.wait", lambda begun, hz: there.replay.at(moment()) or begun
    )
    seconds = iter(range(10, 200))
    moment = lambda: time.sleep(0.03) or float(next(seconds))  # noqa: E731
    with pytest.raises(SystemExit):
        there.sampler._run()
    assert started == [(sys.executable, sys.orig_argv)]
    assert there.replay.now_s > 60


def test_an_engine_of_foreign_pids_gets_the_change_since_its_start_on_each_gpu(world, tmp_path):
    there = world("foreign-pids", at=0.0)
    for gpu in (0, 1):
        # Two processes of another namespace on each card: no such pid here.
        found = [{"pid": 2**22 + n, "usedGpuMemory": 1} for n in (1, 2)]
        there.replay.answer(f"nvmlDeviceGetComputeRunningProcesses(gpu{gpu})", found)
    there.tick()
    time.sleep(0.05)  # a process's start is known to 1/100 s
    with engine_process() as engine:
        there.replay.at(9.0)
        serve(tmp_path, engine.pid)
        there.sampler.tick()
        rows = there.tick()
        first = owners(rows[ZERO])
        assert first["weights", "estimate"] == 1_000
        assert first["context", "estimate"] == 2_700 - 3 - 1_000
        assert first["unknown", "measured"] == 265 + 3
        assert owners(rows[ONE])["context", "estimate"] == 2_950 - 3 - 2_000
        assert sum(first.values()) == 15_360


def test_an_engine_whose_pid_the_driver_lists_is_measured(world, tmp_path):
    with engine_process() as engine:
        there = world("t4", at=9.0)
        found = [{"pid": engine.pid, "usedGpuMemory": 1_250 * MIB}]
        there.replay.answer("nvmlDeviceGetComputeRunningProcesses(gpu0)", found)
        serve(tmp_path, engine.pid)
        there.sampler.tick()
        rows = there.tick([ZERO])
        assert owners(rows[ZERO])["weights", "engine"] == 1_000
        assert owners(rows[ZERO])["context", "estimate"] == 250


def watch():
    """A GPU's watch whose thread is never told to read."""
    nvml = Nvml(Replay("t4", at=0.0))
    return gpus._Watch(nvml.gpus[0], nvml, SimpleNamespace())


def test_the_drivers_times_are_told_by_our_clock(monkeypatch):
    kernel = clock.Anchor(1_000 * 10**9, time.monotonic_ns())
    monkeypatch.setattr(clock, "_anchor", kernel)
    wall_us = time.time_ns() // 1000
    found = watch().activity([(wall_us - 400_000, 0.5)], [(wall_us - 20_000, 60.0), (wall_us - 500_000, 9.0)])
    ages = [round((clock.now_ns() - t) / 1e9, 1) for t, _, _ in found.points]
    assert ages == [0.5, 0.4, 0.0]
    assert [p[1:] for p in found.points] == [(None, 9.0), (0.5, None), (None, 60.0)]
    assert found.t_ns == found.points[-1][0]


def test_implausible_times_of_the_driver_are_dropped():
    wall_us = time.time_ns() // 1000
    one = watch()
    assert one.activity([(wall_us + 5_000_000, 0.5)], [(wall_us - 61_000_000, 60.0)]) is None
    assert one.activity([], [(12_345, 60.0)]) is None  # since boot, perhaps
    assert one.activity([], [(wall_us, 60.0)]) is not None


def test_when_the_wall_clock_is_set_the_drivers_readings_are_left_out_once(monkeypatch):
    one, real = watch(), time.time_ns
    assert one.activity([], [(real() // 1000, 60.0)]) is not None
    monkeypatch.setattr(gpus.time, "time_ns", lambda: real() - 3600 * 10**9)
    wall_us = gpus.time.time_ns() // 1000
    assert one.activity([], [(wall_us, 60.0)]) is None
    assert abs(one._seen_us[1] - wall_us) < 10**6  # not the later time that was seen before
    assert one.activity([], [(wall_us, 61.0)]) is not None


def test_nvml_without_samples_is_just_less(world):
    there = world("no-permission")
    there.tick()
    assert there.reader.since(0)[1].activity == ()
    assert there.replay.calls["nvmlDeviceGetSamples(gpu0, 0)"] == 1
    assert real_pynvml().NVML_TOTAL_POWER_SAMPLES == 0
    assert real_pynvml().NVML_GPU_UTILIZATION_SAMPLES == 1

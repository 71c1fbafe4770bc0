"""GPU samples of the sampler, with a machine's GPUs at NVML's interface and real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from gpu.faketorch import Torch
from gpu.replay import Replay, real_pynvml
from gpuworld import KERNEL, ONE, ZERO, World, until

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.sampling import gpus, sampler
from llamatelemetry_jupyter.sampling.kernel import publish
from llamatelemetry_jupyter.values import EngineBuffer, ServerHandle

MIB = 1 << 20


@pytest.fixture
def world(tmp_path, monkeypatch):
    """``world(trace, at)``."""
    for module, name in ((gpus, "_SLOW_S"), (sampler, "_STATES_S"), (sampler, "_HOST_S")):
        monkeypatch.setattr(module, name, -1.0)  # a tick reads everything
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
    assert len(there.sampler._gpus._workers) == 2  # the other one reads on
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
    with open(os.devnull) as nobody, pytest.raises(SystemExit):
        there.sampler._run(sampler.Asked(nobody.fileno()))
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


@pytest.mark.parametrize("trace", ["no-pids", "foreign-pids"])
def test_without_usable_pids_this_kernel_and_the_engine_are_told_apart_as_estimates(
    world, trace, tmp_path, monkeypatch
):
    seen = world(trace, at=1.0)
    torch = Torch(300 * MIB)
    monkeypatch.setattr(torch, "get_device_properties", lambda index: SimpleNamespace(uuid=ZERO[4:]))
    monkeypatch.setitem(sys.modules, "torch", torch)
    publish(tmp_path, KERNEL.stem)
    total, idle = 15_360 * MIB, 100 * MIB

    def used(size):
        memory = {"total": total, "reserved": 0, "free": total - size, "used": size}
        seen.replay.answer("nvmlDeviceGetMemoryInfo(gpu0, 33554472)", memory)

    used(idle + 300 * MIB)
    seen.tick()  # the notebook's tensors are there before the engine
    time.sleep(0.05)  # a process's start is known to 1/100 s
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        torch.reserved = [500 * MIB]  # and grow beside it
        publish(tmp_path, KERNEL.stem)
        used(idle + 500 * MIB + 1_100 * MIB)
        if trace == "foreign-pids":
            listed = [{"pid": 2**22 + n, "usedGpuMemory": 600 * MIB} for n in (1, 2)]
            seen.replay.answer("nvmlDeviceGetComputeRunningProcesses(gpu0)", listed)
        serve(tmp_path, engine.pid)
        owners = seen.tick()[ZERO].owners
        engine.stdin.close()
    found = {(o.owner, o.process, o.source): o.bytes for o in owners if o.owner != "free"}
    assert found == {
        ("kernel", "torch", "estimate"): 500 * MIB,
        ("weights", "default", "estimate"): 1_000 * MIB,
        ("context", "default", "estimate"): 100 * MIB,
        ("unknown", None, "measured"): idle,
    }

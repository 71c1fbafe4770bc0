"""Fault campaigns of the sampler: what happens to processes, files, clocks and GPUs, and that readings come back."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from gpu.replay import Replay
from gpuworld import ONE, ZERO, World

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.sampling import gpus, process
from llamatelemetry_jupyter.sampling import sampler as sampling
from llamatelemetry_jupyter.sampling.layout import RingError
from llamatelemetry_jupyter.sampling.process import SamplerProcess
from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.faults


def times(whole, scale):
    return max(3, round(whole * scale))


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def sampler(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    made = SamplerProcess()
    with made.want(10):
        made.start()
        assert until(lambda: made.source.since(0)[0] >= 2)
        yield made
    made.stop()


def test_a_sampler_killed_at_any_moment_loses_nothing_and_is_back(sampler, scale, fault_report, monkeypatch):
    monkeypatch.setattr(process, "_AGAIN_S", 0.0)
    chance, tried, survived, begun = random.Random(7), times(40, scale), 0, time.monotonic()
    for _ in range(tried):
        time.sleep(chance.random() * 0.3)
        seq, _, _ = sampler.source.since(0)
        os.kill(sampler.pid, signal.SIGKILL)
        until(lambda: not sampler.alive)
        end, found, dropped = sampler.source.since(0)
        kept = end >= seq and dropped == 0 and len(found.devices[0].t_ns) == end
        sampler.ensure()
        survived += kept and until(lambda end=end: sampler.source.since(0)[0] > end)
    fault_report(
        id="sampler_killed",
        what="kill -9 of the sampler at a random moment: every sample stays readable, the next call starts it again",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


def test_a_ring_that_is_deleted_is_back_with_all_it_held(sampler, scale, fault_report):
    chance, tried, survived, begun = random.Random(7), times(20, scale), 0, time.monotonic()
    first = sampler.source.since(0)[1].devices[0].t_ns[0]
    for number in range(tried):
        time.sleep(chance.random() * 0.3)
        sampler.source.path.unlink()
        if number % 2:
            sampler.source.path.write_text("somebody's notes")
        time.sleep(0.01)

        def back():
            try:
                found = SamplerProcess(stem=sampler.stem).source.since(0)[1]
            except RingError:  # the notes
                return False
            return found.devices and found.devices[0].t_ns[0] == first

        seconds = time.monotonic()
        survived += until(back) and time.monotonic() - seconds < 6 and bool(sampler.alive)
    fault_report(
        id="ring_deleted",
        what="the ring's file deleted or replaced under the sampler: within 5 s it is back with all that it held",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


@pytest.fixture
def world(tmp_path, monkeypatch):
    for module, name in ((gpus, "_SLOW_S"), (sampling, "_STATES_S"), (sampling, "_HOST_S")):
        monkeypatch.setattr(module, name, -1.0)  # a tick reads everything
    monkeypatch.setattr(gpus, "_REVIVE_S", 0.01)
    monkeypatch.setattr(gpus, "LATE_S", 0.1)
    made = World(tmp_path, Replay("t4x2", at=9.0))
    made.tick()
    yield made
    made.replay.release()
    made.sampler._gpus._nvml.close()


def test_a_wall_clock_that_is_set_moves_no_reading(world, scale, fault_report, monkeypatch):
    chance, tried, survived, begun = random.Random(7), times(100, scale), 0, time.monotonic()
    replay, real, step = world.replay, time.time_ns, [0]
    monkeypatch.setattr(gpus.time, "time_ns", lambda: real() + step[0])
    wall_s = replay._wall_s
    replay._fixed = None  # time passes
    for _ in range(tried):
        step[0] = chance.randrange(-(10**4), 10**4) * 10**9
        replay._wall_s = wall_s + step[0] / 1e9
        world.tick()  # it notices
        seq, since = world.reader.since(0)[0], clock.now_ns()

        def points(seq=seq):
            world.sampler.tick()
            return {one.device for one in world.reader.since(seq)[1].activity} == {ZERO, ONE}

        survived += until(points) and all(
            since - 10**9 <= t <= clock.now_ns() and list(one.t_ns) == sorted(one.t_ns)
            for found in [world.reader.since(seq)[1]]
            for one in (*found.devices, *found.activity)
            for t in one.t_ns
        )
    fault_report(
        id="clock_stepped",
        what="the wall clock set by up to ± 10,000 s under the sampler: samples and the driver's readings keep their time",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


def shown(world):
    """Device → bytes used and since when there are none, as a picture shows them now."""

    class Nothing:
        def rows(self, last=None, trace_id=None, since_ns=None):
            return []

    made = snapshot(Nothing(), world.reader, clock.now_ns(), 900)
    return {d["id"]: (d["used_bytes"], d["since_ms"]) for d in made["devices"]}


@pytest.mark.parametrize(
    ("fault", "whole", "what"),
    [
        ("GpuIsLost", 60, "a GPU falls off the bus and comes back: n/a since then, the other goes on"),
        ("hangs", 40, "a call to a GPU does not return for a while: n/a since then, the other goes on"),
        ("restart", 40, "the driver is replaced: n/a since then, and found again under the same ids"),
    ],
)
def test_readings_come_back(world, scale, fault_report, fault, whole, what):
    chance, tried, survived, begun = random.Random(7), times(whole, scale), 0, time.monotonic()
    at = 9.0
    for _ in range(tried):
        lost, other = chance.sample([ZERO, ONE], 2)
        length = chance.uniform(1, 30)
        at += 1.0
        gpu = None if fault == "restart" else f"gpu{[ZERO, ONE].index(lost)}"
        error = "LibRmVersionMismatch" if fault == "restart" else fault
        world.replay._faults = [
            {"from_s": at, "to_s": at + length, "gpu": gpu, "error": error, "restart": fault == "restart"}
        ]
        world.replay.at(at + length / 2)

        def told(lost=lost):
            world.sampler.tick()
            used, since = shown(world)[lost]
            return used is None and since is not None

        gone = until(told)
        beside = fault == "restart" or world.tick([other])[other].used_bytes is not None
        at += length + 40  # longer than the longest wait between two tries
        world.replay.at(at)

        def back():
            world.sampler.tick()
            return all(shown(world)[d][0] is not None for d in (ZERO, ONE))

        survived += gone and beside and until(back) and list(shown(world)) == ["host", ZERO, ONE]
    fault_report(
        id={"GpuIsLost": "gpu_lost", "hangs": "gpu_hangs", "restart": "driver_restarted"}[fault],
        what=what,
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried

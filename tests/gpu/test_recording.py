"""Traces of NVML: what is recorded is what is replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from gpu.replay import Replay, load_trace, names, real_pynvml
from replayed import replayed_gpus

from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.gpu.recording import Recorder, record


def recorded(replay, seconds, hz=10):
    """What a recorder hears that asks a replay at these moments."""
    replay.at(0.0)
    recorder = Recorder(replay, now=lambda: replay.now_s, wall_s=lambda: replay.wall_s)
    nvml = Nvml(recorder)
    for tick in range(seconds * hz):
        replay.at(tick / hz)
        for gpu in nvml.gpus:
            nvml.read(gpu)
    return recorder.trace("a test")


STANDING = [name for name in names() if name not in ("hangs", "none")]


@pytest.mark.floor
@pytest.mark.parametrize("name", STANDING)
def test_a_recording_of_a_replay_is_the_same_trace(name):
    first = recorded(Replay(name, at=0.0), 30)
    second = recorded(Replay(json.loads(json.dumps(first)), at=0.0), 30)
    assert second == first
    assert first["calls"]["nvmlDeviceGetHandleByIndex(0)"]["v"] == [{"handle": "gpu0"}]


def test_what_is_recorded_is_what_the_trace_says_at_its_changes():
    trace = load_trace("t4x2")
    heard = recorded(Replay("t4x2", at=0.0), 60)
    key = "nvmlDeviceGetUtilizationRates(gpu1)"
    assert heard["calls"][key]["t_ms"] == trace["calls"][key]["t_ms"]
    assert heard["calls"][key]["v"] == trace["calls"][key]["v"]


def test_a_minute_of_two_gpus_is_small(tmp_path):
    text = json.dumps(recorded(Replay("t4x2", at=0.0), 60), separators=(",", ":"))
    assert len(text) < 300_000


def test_every_trace_says_where_it_comes_from():
    assert names() == sorted(
        ["foreign-pids", "hangs", "lost", "mig", "no-permission", "no-pids", "none", "restart", "t4", "t4x2"]
    )
    for name in names():
        assert load_trace(name)["origin"].startswith(("constructed, not recorded", "recorded 20")), name


def test_recording_asks_each_gpu_by_itself_and_a_hanging_one_stands_as_such(tmp_path):
    replay = Replay("hangs", start=time.monotonic() - 9.7)  # the second card hangs from 10 s to 25 s
    told = []
    record(tmp_path / "trace.json", seconds=3.0, hz=10, module=replay, on_progress=told.append)
    replay.release()
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert {(step.total, step.unit) for step in told} == {(3.0, "s")}
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert trace["origin"].endswith("driver 580.105.08")
    hung = [key for key, one in trace["calls"].items() if one["v"][-1] == {"hangs": True}]
    assert len(hung) == 1
    assert "(gpu1" in hung[0]
    last = {key: one["t_ms"][-1] for key, one in trace["calls"].items()}
    assert last["nvmlDeviceGetTotalEnergyConsumption(gpu0)"] > last["nvmlDeviceGetTotalEnergyConsumption(gpu1)"]
    again = Replay(trace, at=0.0)
    assert Nvml(again).gpus[0].device == Nvml(Replay("t4x2", at=0.0)).gpus[0].device


def test_without_a_gpu_there_is_nothing_to_record(tmp_path):
    with pytest.raises(LlamaError, match="no NVIDIA GPU answers"):
        record(tmp_path / "trace.json", module=Replay("none", at=0.0))
    assert not (tmp_path / "trace.json").exists()


@pytest.mark.floor
def test_whole_processes_see_the_gpus_of_a_trace(tmp_path):
    code = (
        "from llamatelemetry_jupyter.gpu.nvml import Nvml; n = Nvml();"
        "print(len(n.gpus), n.driver, n.infos()[1].name); import pynvml; print(pynvml.NVMLError_GpuIsLost.__mro__[1])"
    )
    environ = os.environ | replayed_gpus("t4x2", tmp_path)
    said = subprocess.check_output([sys.executable, "-c", code], text=True, env=environ)
    assert said.splitlines() == ["2 580.105.08 Tesla T4", "<class 'pynvml.NVMLError'>"]


def test_a_replay_has_what_pynvml_has():
    replay = Replay("t4", at=0.0)
    with pytest.raises(AttributeError):
        replay.nvmlDeviceGetHappiness("gpu0")
    with pytest.raises(TypeError):
        replay.nvmlDeviceGetTemperature("gpu0")  # the sensor is missing
    with pytest.raises(real_pynvml().NVMLError_NotSupported):
        replay.nvmlDeviceGetFanSpeed("gpu0")
    assert replay.nvmlMemory_v2 == real_pynvml().nvmlMemory_v2

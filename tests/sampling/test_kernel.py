"""What a kernel's libraries hold, on its way to the sampler and into the balance of a GPU."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest
from faketorch import UUIDS, Torch
from replay import Replay

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.gpu.owners import Held
from llamatelemetry_jupyter.sampling.kernel import KernelFile, publish
from llamatelemetry_jupyter.sampling.ring import RingReader
from llamatelemetry_jupyter.sampling.sampler import Parent, Sampler
from llamatelemetry_jupyter.values import EngineBuffer, ServerHandle

KERNEL = Parent(os.getpid(), process_start(os.getpid()))
DEVICES = (f"GPU-{UUIDS[0]}", f"GPU-{UUIDS[1]}")
MIB = 1 << 20


@pytest.fixture
def torch(monkeypatch):
    """A PyTorch in this kernel."""
    made = Torch(0, 0)
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


@pytest.mark.floor
def test_what_the_kernel_writes_its_sampler_reads(torch, tmp_path):
    file = KernelFile(tmp_path, "1-2")
    publish(tmp_path, "1-2")
    assert list(tmp_path.iterdir()) == []  # a kernel that holds nothing leaves no file
    torch.reserved = [700, 300]
    publish(tmp_path, "1-2")
    path = tmp_path / "1-2.kernel.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.held(d, DEVICES) for d in DEVICES] == [(Held("torch", 700),), (Held("torch", 300),)]
    written = path.stat().st_mtime_ns, path.stat().st_ino
    publish(tmp_path, "1-2")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written  # unchanged is not written
    torch.reserved = [0, 0]
    publish(tmp_path, "1-2")
    assert [file.held(d, DEVICES) for d in DEVICES] == [(), ()]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"allocations": 5}', '{"allocations": [{"x": 1}], "cuda_visible": null}']
)
def test_a_file_that_is_not_ours_says_nothing(text, tmp_path):
    (tmp_path / "1-2.kernel.json").write_text(text)
    assert KernelFile(tmp_path, "1-2").held(DEVICES[0], DEVICES) == ()


def test_numbers_follow_the_variable_as_the_notebook_set_it(torch, tmp_path, monkeypatch):
    torch.uuids, torch.reserved = False, [700]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    publish(tmp_path, "1-2")
    assert KernelFile(tmp_path, "1-2").held(DEVICES[1], DEVICES) == (Held("torch", 700),)


def test_a_full_disk_loses_the_reading_and_nothing_else(torch, tmp_path):
    torch.reserved = [700]
    publish(tmp_path / "missing", "1-2")
    tmp_path.joinpath("missing").mkdir()
    publish(tmp_path / "missing", "1-2")
    assert KernelFile(tmp_path / "missing", "1-2").held(DEVICES[0], DEVICES)


@pytest.mark.parametrize("trace", ["no-pids", "foreign-pids"])
def test_without_usable_pids_kernel_and_engine_are_told_apart_as_estimates(trace, torch, tmp_path, monkeypatch):
    replay = Replay(trace, at=1.0)
    nvml = Nvml(replay)
    device = nvml.gpus[0].device
    monkeypatch.setattr(torch, "get_device_properties", lambda index: type("P", (), {"uuid": device[4:]}))
    torch.reserved = [300 * MIB]
    publish(tmp_path, KERNEL.stem)
    sampler = Sampler(KERNEL, 2.0, tmp_path, nvml)
    before = nvml.read(nvml.gpus[0])
    used = {"total": before.total_bytes, "reserved": 0, "used": before.used_bytes + 300 * MIB}
    replay.answer("nvmlDeviceGetMemoryInfo(gpu0, 33554472)", used | {"free": used["total"] - used["used"]})
    sampler.tick()  # the notebook's tensors are there before the engine
    time.sleep(0.05)  # a process's start is known to 1/100 s
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        handle = ServerHandle(
            "default", "http://127.0.0.1:9", None, "llama.cpp", True, engine.pid, process_start(engine.pid), None, 1, 512,
            buffers=(EngineBuffer("CUDA0", "weights", 900 * MIB),),
        )  # fmt: skip
        (tmp_path / f"{KERNEL.stem}.default.server.json").write_text(handle.to_json())
        torch.reserved = [500 * MIB]  # and grow beside it
        publish(tmp_path, KERNEL.stem)
        used["used"] += (200 + 1000) * MIB
        replay.answer("nvmlDeviceGetMemoryInfo(gpu0, 33554472)", used | {"free": used["total"] - used["used"]})
        if trace == "foreign-pids":
            listed = [{"pid": 2**22 + n, "usedGpuMemory": 600 * MIB} for n in (1, 2)]
            replay.answer("nvmlDeviceGetComputeRunningProcesses(gpu0)", listed)
        sampler.tick()
        engine.stdin.close()
    rows = {d.device: d for d in RingReader(tmp_path / f"{KERNEL.stem}.ring").latest().devices}
    found = {(o.owner, o.process, o.source): o.bytes for o in rows[device].owners[0]}
    assert found["kernel", "torch", "estimate"] == 500 * MIB
    assert found["weights", "default", "estimate"] == 900 * MIB
    assert found["context", "default", "estimate"] == 100 * MIB
    assert found["unknown", None, "measured"] == before.used_bytes
    assert sum(found.values()) == before.total_bytes

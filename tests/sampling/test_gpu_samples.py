"""GPU samples of the sampler, with a machine's GPUs at NVML's interface and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

from fakenvml import FakeNvml, NVMLError_GpuIsLost

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.nvml import Nvml
from llamatelemetry_jupyter.sampling.ring import RingReader
from llamatelemetry_jupyter.sampling.sampler import Parent, Sampler
from llamatelemetry_jupyter.values import EngineBuffer, ServerHandle

KERNEL = Parent(os.getpid(), process_start(os.getpid()))


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
        buffers=(EngineBuffer("CUDA0", "weights", 1_000), EngineBuffer("CUDA1", "weights", 2_000)),
    )
    (folder / f"{KERNEL.stem}.default.server.json").write_text(served.to_json())


def owners(reader, device):
    series = {d.device: d for d in reader.latest().devices}[device]
    return {(o.owner, o.source): o.bytes for o in series.owners[0]}


def test_each_gpu_is_sampled_beside_the_host_and_a_lost_one_is_na(tmp_path):
    fake = FakeNvml(gpus=2)
    sampler = Sampler(KERNEL, 2.0, tmp_path, Nvml(fake))
    fake.answers["memory_v2", 1] = fake.answers["memory", 1] = NVMLError_GpuIsLost(15)
    sampler.tick()
    reader = RingReader(tmp_path / f"{KERNEL.stem}.ring")
    rows = {d.device: d.row(0) for d in reader.latest().devices}
    assert set(rows) == {"host", "GPU-0", "GPU-1"}
    assert (rows["GPU-0"].util, rows["GPU-0"].power_w, rows["GPU-0"].energy_j) == (0.5, 70.5, 123.0)
    assert (rows["GPU-1"].used_bytes, rows["GPU-1"].owners) == (None, ())
    assert [i.name for i in reader.devices()[1:]] == ["Tesla T4", "Tesla T4"]


def test_an_engine_of_foreign_pids_gets_the_change_since_its_start_on_each_gpu(tmp_path):
    fake = FakeNvml(gpus=2)
    for kind in ("compute", "graphics"):
        for gpu in (0, 1):
            # Pids of another namespace: no such process here.
            fake.answers[kind, gpu] = [SimpleNamespace(pid=2**22 - n, usedGpuMemory=1) for n in (1, 2)]

    def used(bytes_, gpu):
        memory = SimpleNamespace(total=16_000, reserved=400, free=15_600 - bytes_, used=bytes_)
        fake.answers["memory_v2", gpu] = memory

    used(100, 0), used(50, 1)
    sampler = Sampler(KERNEL, 2.0, tmp_path, Nvml(fake))
    sampler.tick()
    time.sleep(0.05)  # a process's start is known to 1/100 s
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        used(1_400, 0), used(2_550, 1)
        serve(tmp_path, engine.pid)
        sampler.tick()
        reader = RingReader(tmp_path / f"{KERNEL.stem}.ring")
        first = owners(reader, "GPU-0")
        assert first["weights", "estimate"] == 1_000
        assert first["context", "estimate"] == 300
        assert first["unknown", "measured"] == 500
        assert owners(reader, "GPU-1")["context", "estimate"] == 500
        assert sum(first.values()) == 16_000
        engine.stdin.close()


def test_an_engine_whose_pid_the_driver_lists_is_measured(tmp_path):
    fake = FakeNvml()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        fake.answers["compute", 0] = [SimpleNamespace(pid=engine.pid, usedGpuMemory=1_250)]
        fake.answers["graphics", 0] = []
        serve(tmp_path, engine.pid)
        sampler = Sampler(KERNEL, 2.0, tmp_path, Nvml(fake))
        sampler.tick()
        found = owners(RingReader(tmp_path / f"{KERNEL.stem}.ring"), "GPU-0")
        assert found["weights", "engine"] == 1_000
        assert found["context", "estimate"] == 250
        engine.stdin.close()

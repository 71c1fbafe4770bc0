"""NVML's answers and refusals, at pynvml's interface."""

from __future__ import annotations

import sys

import pytest
from fakenvml import FakeNvml, NVMLError_FunctionNotFound, NVMLError_GpuIsLost, NVMLError_NotSupported

from llamatelemetry_jupyter.gpu.nvml import Nvml, Reading
from llamatelemetry_jupyter.gpu.owners import ProcessBytes


@pytest.mark.floor
def test_no_driver_means_no_devices():
    assert list(Nvml(FakeNvml(driver=False)).gpus) == []
    assert Nvml(FakeNvml(driver=False)).infos() == ()


def test_a_machine_without_nvml_imports_no_pynvml(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it would raise
    assert list(Nvml().gpus) == []


def test_a_reading_in_our_units():
    nvml = Nvml(FakeNvml())
    assert nvml.read(nvml.gpus[0]) == Reading(
        used_bytes=5_000,
        total_bytes=16_000,
        free_bytes=10_600,
        util=0.5,
        mem_util=0.25,
        power_w=70.5,
        energy_j=123.0,
        temp_c=61.0,
        processes=(ProcessBytes(7, 4_100),),  # in both lists: the larger, not the sum
    )
    (info,) = nvml.infos()
    assert (info.device, info.name, info.compute_capability) == ("GPU-0", "Tesla T4", "7.5")


def test_old_drivers_know_only_the_first_memory_call_and_it_is_asked_once():
    fake = FakeNvml()
    fake.answers["memory_v2", 0] = NVMLError_FunctionNotFound(13)
    nvml = Nvml(fake)
    assert [nvml.read(nvml.gpus[0]).used_bytes for _ in range(3)] == [5_400] * 3
    assert fake.calls.count(("memory_v2", 0)) == 1


def test_what_a_gpu_does_not_support_is_na_and_not_asked_again():
    fake = FakeNvml(gpus=2)
    fake.answers["energy", 0] = NVMLError_NotSupported(3)
    nvml = Nvml(fake)
    for _ in range(3):
        first, second = (nvml.read(g) for g in nvml.gpus)
        assert (first.energy_j, second.energy_j) == (None, 123.0)
    assert fake.calls.count(("energy", 0)) == 1
    assert fake.calls.count(("energy", 1)) == 3


def test_a_lost_gpu_does_not_take_the_others_along_and_may_come_back():
    fake = FakeNvml(gpus=2)
    nvml = Nvml(fake)
    fake.answers["memory_v2", 0] = fake.answers["memory", 0] = NVMLError_GpuIsLost(15)
    assert [nvml.read(g).used_bytes for g in nvml.gpus] == [None, 5_000]
    assert [i.device for i in nvml.infos()] == ["GPU-1"]
    fake.answers.clear()
    assert nvml.read(nvml.gpus[0]).used_bytes == 5_000


def test_the_binding_may_fail_with_a_type_error_or_undecodable_names():
    fake = FakeNvml()
    fake.answers["compute", 0] = TypeError("an integer is required")
    fake.answers["name", 0] = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    nvml = Nvml(fake)
    assert nvml.read(nvml.gpus[0]).processes == (ProcessBytes(7, 4_100),)
    assert nvml.infos()[0].name == "NVIDIA GPU"


def test_process_lists_fall_back_to_the_second_version():
    fake = FakeNvml()
    fake.answers["compute", 0] = NVMLError_FunctionNotFound(13)
    fake.answers["graphics", 0] = []
    nvml = Nvml(fake)
    assert nvml.read(nvml.gpus[0]).processes == (ProcessBytes(7, 3_900),)


def test_memory_of_a_process_that_the_driver_hides_is_na():
    fake = FakeNvml()
    for name in ("compute", "graphics"):
        fake.answers[name, 0] = [type("P", (), {"pid": 7, "usedGpuMemory": None})]
    nvml = Nvml(fake)
    assert nvml.read(nvml.gpus[0]).processes == (ProcessBytes(7, None),)


def test_old_bindings_give_bytes():
    fake = FakeNvml()
    fake.answers["uuid", 0], fake.answers["name", 0] = b"GPU-old", b"Tesla K80"
    (info,) = Nvml(fake).infos()
    assert (info.device, info.name) == ("GPU-old", "Tesla K80")


def test_instances_stand_for_a_partitioned_gpu():
    nvml = Nvml(FakeNvml(mig=("one", "two")))
    assert [g.device for g in nvml.gpus] == ["MIG-one", "MIG-two"]
    reading = nvml.read(nvml.gpus[0])
    assert reading.used_bytes == 5_000
    assert (reading.util, reading.power_w, reading.energy_j) == (None, None, None)


def test_closing_shuts_nvml_down():
    fake = FakeNvml()
    nvml = Nvml(fake)
    nvml.close()
    assert ("shutdown", None) in fake.calls
    assert list(nvml.gpus) == []


def test_the_drivers_version_is_known_with_a_driver_only():
    fake = FakeNvml()
    assert Nvml(fake).driver == "550.54.15"
    fake.answers["driver", None] = fake.NVMLError("unknown")
    assert Nvml(fake).driver is None
    assert Nvml(FakeNvml(driver=False)).driver is None

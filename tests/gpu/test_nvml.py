"""NVML's answers and refusals, at pynvml's interface."""

from __future__ import annotations

import sys

import pytest
from gpu.replay import Replay, real_pynvml

from llamatelemetry_jupyter.gpu.nvml import Nvml, Reading
from llamatelemetry_jupyter.gpu.owners import ProcessBytes

MIB = 1 << 20
V2 = real_pynvml().nvmlMemory_v2
ZERO, ONE = "GPU-7f3b2c1a-5d4e-4b8a-9c6d-0e1f2a3b4c5d", "GPU-91c8d7e6-2f3a-4c5b-8d7e-6f5a4b3c2d1e"


@pytest.mark.floor
def test_no_driver_means_no_devices():
    nvml = Nvml(Replay("none", at=0.0))
    assert list(nvml.gpus) == []
    assert nvml.infos() == ()
    assert nvml.driver is None


def test_a_machine_without_nvml_imports_no_pynvml(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it would raise
    nvml = Nvml()
    assert list(nvml.gpus) == []
    assert not nvml.present
    assert not nvml.revive()


@pytest.mark.floor
def test_a_reading_in_our_units():
    replay = Replay("t4", at=9.0)
    for kind, mib in (("Compute", 4_000), ("Graphics", 4_100)):
        found = [{"pid": 7, "usedGpuMemory": mib * MIB}]
        replay.answer(f"nvmlDeviceGet{kind}RunningProcesses(gpu0)", found)
    nvml = Nvml(replay)
    assert nvml.read(nvml.gpus[0]) == Reading(
        used_bytes=2_700 * MIB,
        total_bytes=15_360 * MIB,
        free_bytes=(15_360 - 265 - 2_700) * MIB,
        util=0.58,
        mem_util=0.46,
        power_w=58.0,
        energy_j=4_200_000 + 3 * 9.6 + 5 * 26.8 + 58.0,
        temp_c=46.0,
        processes=(ProcessBytes(7, 4_100 * MIB),),  # in both lists: the larger, not the sum
    )
    (info,) = nvml.infos()
    assert (info.device, info.name, info.compute_capability) == (ZERO, "Tesla T4", "7.5")
    assert nvml.driver == "580.105.08"


def test_old_drivers_know_only_the_first_memory_call_and_it_is_asked_once():
    replay = Replay("t4", at=9.0)
    replay.answer(f"nvmlDeviceGetMemoryInfo(gpu0, {V2})", {"error": "FunctionNotFound"})
    nvml = Nvml(replay)
    assert [nvml.read(nvml.gpus[0]).used_bytes for _ in range(3)] == [(2_700 + 265) * MIB] * 3
    assert replay.calls[f"nvmlDeviceGetMemoryInfo(gpu0, {V2})"] == 1


def test_what_a_gpu_does_not_support_is_na_and_not_asked_again():
    replay = Replay("t4x2", at=9.0)
    replay.answer("nvmlDeviceGetTotalEnergyConsumption(gpu0)", {"error": "NotSupported"})
    nvml = Nvml(replay)
    for _ in range(3):
        first, second = (nvml.read(g).energy_j for g in nvml.gpus)
        assert first is None
        assert second > 4e6
    assert replay.calls["nvmlDeviceGetTotalEnergyConsumption(gpu0)"] == 1
    assert replay.calls["nvmlDeviceGetTotalEnergyConsumption(gpu1)"] == 3


def test_without_permission_memory_is_still_read():
    replay = Replay("no-permission", at=9.0)
    nvml = Nvml(replay)
    for _ in range(3):
        reading = nvml.read(nvml.gpus[0])
        assert (reading.used_bytes, reading.util) == (2_700 * MIB, 0.58)
        assert (reading.processes, reading.power_w, reading.energy_j) == (None, None, None)
        assert nvml.activity(nvml.gpus[0], (0, 0)) == ([], [])
    assert replay.calls["nvmlDeviceGetSamples(gpu0, 0)"] == 1


def test_a_lost_gpu_does_not_take_the_others_along_and_comes_back():
    replay = Replay("lost", at=9.0)
    nvml = Nvml(replay, now=lambda: replay.now_s)
    used = lambda: [nvml.read(g).used_bytes for g in nvml.gpus]  # noqa: E731
    assert None not in used()
    replay.at(10.0)
    assert used() == [2_700 * MIB, None]
    assert [i.device for i in nvml.infos()] == [ZERO]
    for second in range(10, 25):
        replay.at(second)
        assert not nvml.revive()
        assert used()[1] is None
    assert replay.calls[f"nvmlDeviceGetHandleByUUID({ONE})"] == 4  # after 0, 1, 3 and 7 s
    replay.at(25.0)
    assert None not in used()
    assert not nvml.gpus[1].lost


def test_a_driver_that_is_replaced_is_opened_again_and_its_gpus_keep_their_ids():
    replay = Replay("restart", at=9.0)
    nvml = Nvml(replay, now=lambda: replay.now_s)
    before = list(nvml.gpus)
    before[0].unsupported.add("something that the new driver may have")
    told = {}
    for tick in range(90, 400):
        replay.at(tick / 10)
        if tick % 10 == 0:
            assert not nvml.revive()  # the same GPUs, before and after
        told[tick / 10] = [nvml.read(g).used_bytes is not None for g in nvml.gpus]
        if tick == 195:
            assert 5 < nvml.mismatch_s < 8
    assert told[9.9] == [True, True]
    assert not any(any(told[second / 10]) for second in range(100, 200))
    back = min(t for t, read in told.items() if t >= 20 and all(read))
    assert back <= 28  # tried again after 1, 2, 4, 8 s
    assert all(all(read) for t, read in told.items() if t >= back)
    assert replay.calls["nvmlInit()"] <= 6
    assert list(nvml.gpus) == before
    assert before[0].unsupported == {"nvmlDeviceGetMigMode"}
    assert nvml.mismatch_s == 0


def test_a_driver_may_come_later_than_we():
    replay = Replay("t4", at=0.0)
    replay.answer("nvmlInit()", {"error": "DriverNotLoaded"})
    nvml = Nvml(replay, now=lambda: replay.now_s)
    assert list(nvml.gpus) == []
    replay.at(3.0)
    replay.answer("nvmlInit()", None)
    assert nvml.revive()
    assert [g.device for g in nvml.gpus] == [ZERO]
    assert not nvml.revive()


def test_a_restart_that_takes_a_gpu_away_leaves_it_na_and_a_new_one_is_found():
    replay = Replay("restart", at=9.0)
    replay.answer("nvmlDeviceGetUUID(gpu1)", ONE)
    nvml = Nvml(replay, now=lambda: replay.now_s)
    replay.at(21.0)
    replay.answer("nvmlDeviceGetUUID(gpu1)", "GPU-another")
    nvml.read(nvml.gpus[0])
    assert nvml.revive()
    assert [g.device for g in nvml.gpus] == [ZERO, "GPU-another", ONE]


def test_the_binding_may_fail_with_a_type_error_or_undecodable_names():
    replay = Replay("t4", at=0.0)
    replay.answer("nvmlDeviceGetComputeRunningProcesses(gpu0)", {"error": "TypeError"})
    replay.answer("nvmlDeviceGetGraphicsRunningProcesses(gpu0)", [{"pid": 7, "usedGpuMemory": 5}])
    replay.answer("nvmlDeviceGetName(gpu0)", {"error": "UnicodeDecodeError"})
    nvml = Nvml(replay)
    assert nvml.read(nvml.gpus[0]).processes == (ProcessBytes(7, 5),)
    assert nvml.infos()[0].name == "NVIDIA GPU"


@pytest.mark.floor
@pytest.mark.parametrize("error", ["FunctionNotFound", "NVMLLibraryMismatchError"])  # the binding has both
def test_process_lists_fall_back_to_the_second_version(error):
    replay = Replay("t4", at=0.0)
    for kind in ("Compute", "Graphics", "MPSCompute"):
        replay.answer(f"nvmlDeviceGet{kind}RunningProcesses(gpu0)", {"error": error})
    replay.answer("nvmlDeviceGetComputeRunningProcesses_v2(gpu0)", [{"pid": 7, "usedGpuMemory": 3_900}])
    nvml = Nvml(replay)
    assert [nvml.read(nvml.gpus[0]).processes for _ in range(2)] == [(ProcessBytes(7, 3_900),)] * 2
    assert replay.calls["nvmlDeviceGetComputeRunningProcesses(gpu0)"] == 1


def test_the_first_of_several_names_that_a_driver_knows_answers():
    replay = Replay("t4", at=0.0)
    replay.answer("nvmlDeviceGetCurrentClocksEventReasons(gpu0)", {"error": "FunctionNotFound"})
    replay.answer("nvmlDeviceGetCurrentClocksThrottleReasons(gpu0)", 4)
    nvml = Nvml(replay)
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    assert [nvml.ask_first(nvml.gpus[0], *names) for _ in range(2)] == [4, 4]
    assert replay.calls["nvmlDeviceGetCurrentClocksEventReasons(gpu0)"] == 1


def test_foreign_and_empty_process_lists_are_told_apart_from_none():
    read = {}
    for name in ("foreign-pids", "no-pids", "no-permission"):
        nvml = Nvml(Replay(name, at=9.0))
        read[name] = nvml.read(nvml.gpus[1]).processes
    assert read["no-pids"] == ()
    assert read["no-permission"] is None
    assert ProcessBytes(4194304 + 101, 2_947 * MIB) in read["foreign-pids"]
    assert ProcessBytes(4194304 + 55, None) in read["foreign-pids"]  # hidden memory is n/a


def test_old_bindings_give_bytes():
    replay = Replay("t4", at=0.0)
    replay.answer("nvmlDeviceGetUUID(gpu0)", {"bytes": "GPU-old"})
    replay.answer("nvmlDeviceGetName(gpu0)", {"bytes": "Tesla K80"})
    (info,) = Nvml(replay).infos()
    assert (info.device, info.name) == ("GPU-old", "Tesla K80")


@pytest.mark.floor
def test_instances_stand_for_a_partitioned_gpu():
    nvml = Nvml(Replay("mig", at=6.0))
    assert [g.device[:5] for g in nvml.gpus] == ["MIG-0", "MIG-1"]
    reading = nvml.read(nvml.gpus[0])
    assert (reading.used_bytes, reading.total_bytes) == (3_200 * MIB, 20_096 * MIB)
    assert (reading.util, reading.power_w, reading.energy_j) == (None, None, None)
    assert reading.processes == (ProcessBytes(4194304 + 7, None),)
    assert nvml.activity(nvml.gpus[0], (0, 0)) == ([], [])


@pytest.mark.floor
def test_the_drivers_own_readings_are_finer_than_ours():
    replay = Replay("t4", at=30.5)
    nvml = Nvml(replay)
    util, power = nvml.activity(nvml.gpus[0], (0, 0))
    start_us = (replay.wall_s - 30.5) * 1e6
    assert len(power) == 119
    busy = [t for t, watts in power if watts == 52.0]  # a call of 0.4 s at 30 s
    assert len(busy) == 20
    assert (min(busy) - start_us) / 1e6 == pytest.approx(30.0, abs=0.02)
    assert {value for t, value in util if 29.8 < (t - start_us) / 1e6 < 30.4} == {0.0, 0.55}
    seen = (util[-1][0], power[-1][0])
    assert nvml.activity(nvml.gpus[0], seen) == ([], [])
    replay.at(30.6)
    assert [len(new) for new in nvml.activity(nvml.gpus[0], seen)] == [1, 5]


def test_closing_shuts_nvml_down():
    replay = Replay("t4", at=0.0)
    nvml = Nvml(replay)
    gpu = nvml.gpus[0]
    nvml.close()
    assert replay.calls["nvmlShutdown()"] == 1
    assert list(nvml.gpus) == []
    assert nvml.read(gpu) == Reading()
    assert not nvml.revive()


def test_the_versions_of_driver_and_cuda_are_known_with_a_driver_only():
    assert (Nvml(Replay("t4", at=0.0)).driver, Nvml(Replay("t4", at=0.0)).cuda) == ("580.105.08", "13.0")
    assert (Nvml(Replay("none", at=0.0)).driver, Nvml(Replay("none", at=0.0)).cuda) == (None, None)

"""Attribution of memory, with numbers that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter.gpu.owners import (
    Engine,
    ProcessBytes,
    Resident,
    closed,
    gpu_index,
    gpu_owners,
    host_owners,
    visible,
)
from llamatelemetry_jupyter.values import EngineBuffer, OwnerBytes

CPU = (
    EngineBuffer("CPU_Mapped", "weights", 92),
    EngineBuffer("CPU", "kv", 45),
    EngineBuffer("CPU", "compute", 15),
    EngineBuffer("CUDA_Host", "output", 1),
)
CUDA = (EngineBuffer("CUDA0", "weights", 600), EngineBuffer("CUDA0", "kv", 100), EngineBuffer("CUDA1", "weights", 50))
GPU = "GPU-a"


def engine(buffers=CPU, pid=7, kv_fill=None, gpus=()):
    return Engine("default", pid, buffers, kv_fill, gpus)


def table(owners):
    return {o.owner: (o.bytes, o.source) for o in owners}


def on_gpu(processes, *, used=800, total=1000, free=180, engines=None, trusted=True, before=None):
    engines = [engine(CUDA, gpus=(GPU, "GPU-b"))] if engines is None else engines
    return gpu_owners(
        GPU,
        used=used,
        total=total,
        free=free,
        processes=processes,
        engines=engines,
        kernel_pid=1,
        trusted=trusted,
        before=before,
    )


@pytest.mark.floor
def test_an_engine_on_the_host_splits_into_what_it_announced_and_its_context():
    owners = host_owners(1000, 700, [(engine(kv_fill=0.2), Resident(7, 80, 100))], Resident(1, 50, 20))
    assert table(owners) == {
        "weights": (92, "engine"),
        "kv": (45, "engine"),
        "compute": (15, "engine"),
        "output": (1, "engine"),
        "context": (27, "estimate"),
        "kernel": (70, "measured"),
        "other": (170, "measured"),  # (1000 - 700) - 80 - 50
        "free": (580, "measured"),  # 1000 - 180 - 70 - 170
    }
    assert next(o for o in owners if o.owner == "kv").filled_bytes == 9
    assert sum(o.bytes for o in owners) == 1000


def test_weights_that_are_partly_resident_give_way_first_and_say_so():
    owners = host_owners(1000, 900, [(engine(), Resident(7, 65, 35))], None)
    assert table(owners)["weights"] == (39, "estimate")  # 100 measured - 45 - 15 - 1
    assert table(owners)["kv"] == (45, "engine")
    assert "context" not in table(owners)


def test_without_server_and_kernel_there_are_only_others_and_free():
    assert table(host_owners(1000, 600, [], None)) == {"other": (400, "measured"), "free": (600, "measured")}


def test_an_engine_that_announced_nothing_is_one_block():
    assert table(host_owners(1000, 900, [(engine(()), Resident(7, 60, 0))], None))["context"] == (60, "estimate")


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**6)), max_size=4),
    st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)),
)
def test_owners_of_the_host_always_sum_to_its_total(total, available, engines, kernel):
    found = [(engine(pid=10 + i), Resident(10 + i, anon, mapped)) for i, (anon, mapped) in enumerate(engines)]
    owners = host_owners(total, available, found, Resident(1, *kernel))
    assert sum(o.bytes for o in owners) == total
    assert all(o.bytes >= 0 for o in owners)
    assert all(o.filled_bytes is None or o.filled_bytes <= o.bytes for o in owners)


def test_a_gpu_with_matching_processes_is_measured():
    owners = on_gpu([ProcessBytes(7, 720), ProcessBytes(1, 30, "python3"), ProcessBytes(99, 20, "game")])
    assert table(owners) == {
        "weights": (600, "engine"),
        "kv": (100, "engine"),
        "context": (20, "estimate"),
        "kernel": (30, "measured"),
        "other": (20, "measured"),
        "unknown": (50, "measured"),  # 800 - 770 that nobody holds, and 20 that the driver reserves
        "free": (180, "measured"),
    }
    assert next(o for o in owners if o.owner == "other").process == "game"


def test_foreign_pids_are_no_match_and_the_only_process_is_taken_for_the_engine():
    owners = on_gpu([ProcessBytes(4711, 710)], trusted=False)
    assert table(owners)["weights"] == (600, "estimate")
    assert table(owners)["context"] == (10, "estimate")
    assert table(owners)["unknown"] == (110, "measured")


def test_an_empty_process_list_leaves_the_change_since_the_start():
    owners = on_gpu([], before=60)
    assert sum(o.bytes for o in owners if o.pid == 7) == 740
    assert table(owners)["unknown"] == (80, "measured")


def test_a_match_without_bytes_is_not_taken_as_zero():
    owners = on_gpu([ProcessBytes(7, None)], before=60)
    assert sum(o.bytes for o in owners if o.pid == 7) == 740


def test_without_any_measure_of_the_engine_its_own_words_count():
    owners = on_gpu(None, trusted=False)
    assert table(owners)["weights"] == (600, "estimate")
    assert table(owners)["kv"] == (100, "estimate")
    assert "context" not in table(owners)


def test_buffers_of_another_gpu_are_not_counted_here():
    owners = gpu_owners(
        "GPU-b",
        used=60,
        total=100,
        free=40,
        processes=None,
        engines=[engine(CUDA, gpus=(GPU, "GPU-b"))],
        kernel_pid=1,
        trusted=False,
    )
    assert table(owners) == {"weights": (50, "estimate"), "unknown": (10, "measured"), "free": (40, "measured")}


@given(
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.lists(st.tuples(st.sampled_from([1, 7, 8, 9]), st.none() | st.integers(0, 3000)), max_size=5),
    st.booleans(),
    st.none() | st.integers(0, 3000),
)
def test_owners_of_a_gpu_always_sum_to_its_total(used, free, processes, trusted, before):
    total = used + free + 20
    listed = [ProcessBytes(pid, size) for pid, size in dict(processes).items()]
    owners = on_gpu(listed, used=used, total=total, free=free, trusted=trusted, before=before)
    assert sum(o.bytes for o in owners) == total
    assert all(o.bytes >= 0 for o in owners)


def test_an_excess_is_taken_from_the_unknown_then_others_then_the_largest():
    entries = [OwnerBytes(GPU, "kv", 70), OwnerBytes(GPU, "other", 20), OwnerBytes(GPU, "unknown", 15)]
    assert table(closed(GPU, 60, entries)) == {"kv": (60, "estimate"), "free": (0, "measured")}


def test_engine_device_names():
    assert [gpu_index(n) for n in ("CUDA0", "CUDA1_Split", "ROCm2", "Vulkan0", "CPU", "CPU_Mapped", "CUDA_Host")] == [
        0,
        1,
        2,
        0,
        None,
        None,
        None,
    ]
    assert gpu_index("CPU_REPACK") is None
    assert gpu_index("Vulkan_Host") is None


def test_visible_devices_are_read_as_cuda_reads_them():
    devices = ("GPU-aa", "GPU-bb", "GPU-cc")
    assert visible(devices, None) == devices
    assert visible(devices, "2,0") == ("GPU-cc", "GPU-aa")
    assert visible(devices, "GPU-b") == ("GPU-bb",)
    assert visible(devices, "1,-1,0") == ("GPU-bb",)
    assert visible(devices, "") == ()

"""Attribution of memory, with numbers that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter.gpu.owners import (
    Engine,
    Held,
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


def on_gpu(processes, *, used=800, total=1000, free=180, engines=None, trusted=True, before=None, held=()):
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
        held=held,
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
    st.lists(st.integers(0, 3000), max_size=2),
)
def test_owners_of_a_gpu_always_sum_to_its_total(used, free, processes, trusted, before, held):
    total = used + free + 20
    listed = [ProcessBytes(pid, size) for pid, size in dict(processes).items()]
    held = [Held("torch", size) for size in held]
    owners = on_gpu(listed, used=used, total=total, free=free, trusted=trusted, before=before, held=held)
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


def test_mapped_weights_are_measured_apart_and_the_rest_of_the_engine_follows_its_word():
    resident = Resident(7, anon_bytes=80, file_bytes=100, weights_bytes=70, weights_mapped=80)
    owners = host_owners(1000, 800, [(engine(), resident)], None)
    weights = [(o.bytes, o.source) for o in owners if o.owner == "weights"]
    assert weights == [(70, "measured"), (12, "engine")]  # 92 announced, 80 of them mapped and 70 of those in memory
    assert table(owners)["context"] == (180 - 70 - 12 - 45 - 15 - 1, "estimate")
    assert sum(o.bytes for o in owners if o.pid == 7) == 180


def test_other_processes_are_named_as_far_as_they_fit_into_what_is_left():
    others = [ProcessBytes(8, 150, "game"), ProcessBytes(9, 100, "late"), ProcessBytes(10, 30, "editor")]
    owners = host_owners(1000, 800, [], None, others)
    assert [(o.process, o.bytes) for o in owners if o.owner == "other"] == [("game", 150), ("editor", 30), (None, 20)]


def test_what_libraries_of_this_kernel_hold_is_a_part_of_what_the_driver_lists():
    owners = on_gpu([ProcessBytes(7, 720), ProcessBytes(1, 60, "python3")], held=[Held("torch", 40)])
    kernel = [(o.process, o.bytes, o.source) for o in owners if o.owner == "kernel"]
    assert kernel == [("torch", 40, "estimate"), ("python3", 20, "measured")]


def test_where_the_driver_lists_nothing_libraries_are_all_that_is_known_of_this_kernel():
    owners = on_gpu([], before=60, held=[Held("torch", 40), Held("cupy", 10)])
    assert [(o.process, o.bytes) for o in owners if o.owner == "kernel"] == [("torch", 40), ("cupy", 10)]
    assert sum(o.bytes for o in owners if o.pid == 7) == 800 - 50 - 60
    assert table(owners)["unknown"] == (80, "measured")


def test_libraries_that_claim_more_than_is_used_are_cut():
    owners = on_gpu(None, engines=[], used=30, free=970, held=[Held("torch", 40)])
    assert table(owners) == {"kernel": (30, "estimate"), "free": (970, "measured")}

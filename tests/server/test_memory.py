"""Starts of the real engine beside their forecast: what was predicted, what was taken, and ends for want of memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import fakellama
import pytest
from gpu.replay import Replay

from llamatelemetry_jupyter.environment import kernel_key, runtime_dir
from llamatelemetry_jupyter.errors import ServerError
from llamatelemetry_jupyter.memory import Memory
from llamatelemetry_jupyter.models.plan import CONTEXT_BYTES
from llamatelemetry_jupyter.server.places import freed
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.runtime import find_runtime
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.server.state import State
from llamatelemetry_jupyter.values import ServerHandle

pytestmark = pytest.mark.engine
GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def manager():
    made = ServerManager(name="memory")
    yield made
    made.stop()


@pytest.fixture
def free(monkeypatch):
    """``free(bytes)``: so much is free on this machine, as its meminfo would say."""

    def set_(available):
        monkeypatch.setattr(
            "llamatelemetry_jupyter.models.host.HostMemory.read", lambda _: Memory(64 * GIB, round(available))
        )

    return set_


def by_owner(buffers, device="CPU"):
    return {one.owner: one.bytes for one in buffers if one.device == device}


def test_predicted_stands_beside_actual_in_handle_event_and_state_file(manager):
    events = []
    manager._on_event = events.append
    handle = manager.start(ServerSettings(ctx=1024, slots=2, warmup=False))
    predicted, actual = by_owner(handle.predicted), by_owner(handle.buffers)
    assert set(predicted) == set(actual) == {"weights", "kv", "compute", "output"}
    for owner in predicted:
        assert predicted[owner] == pytest.approx(actual[owner], abs=0.011 * MIB), owner
    (ready,) = (event.data for event in events if event.kind == "ready")
    assert [tuple(one.values()) for one in ready["predicted"]] == [("CPU", o, b) for o, b in predicted.items()]
    assert len(ready["buffers"]) == len(handle.buffers)
    json.dumps(ready)
    path = runtime_dir() / f"{kernel_key()}.memory.server.json"
    assert State.read(path).handle.predicted == handle.predicted
    old = json.loads(path.read_text())
    del old["predicted"]  # a server that an earlier version kept
    assert ServerHandle.from_json(json.dumps(old)).predicted == ()


def test_a_context_that_nobody_asked_for_is_lowered_and_a_named_one_is_not(manager, free):
    told = []
    free(0.25 * GIB)
    handle = manager.start(ServerSettings(warmup=False), on_notice=told.append)
    assert 256 <= handle.ctx_per_slot < 8192
    assert by_owner(handle.buffers)["kv"] == pytest.approx(by_owner(handle.predicted)["kv"], abs=0.011 * MIB)
    (line,) = told
    assert line.startswith(f"context: {handle.ctx_per_slot:,} tokens, the most that fits")
    assert manager.warnings == ()
    # The same again is the same server, also with other free memory; what is named is done, and said before.
    assert manager.start(ServerSettings(warmup=False)) is handle
    manager.stop()
    spawned = []
    manager._on_event = lambda event: spawned.append(len(told)) if event.kind == "spawned" else None
    named = manager.start(ServerSettings(warmup=False, ctx=8192), on_notice=told.append)
    assert named.ctx_per_slot == 8192
    assert told[1].startswith("warning: the model needs 295 MiB, ")
    assert "\n  try: %llama restart --name memory --ctx " in told[1]
    assert spawned == [2]
    ((cause, remedy),) = manager.warnings
    assert told[1] == f"warning: {cause}\n  try: {remedy}"
    manager.stop()
    assert manager.restart(ctx=None).ctx_per_slot < 8192


def test_what_the_running_server_holds_is_free_for_the_one_in_its_place(manager, free):
    first = manager.start(ServerSettings(ctx=8192, slots=2, warmup=False, load_mode="none"))
    back = freed(first)["CPU"]  # its weights are its own here, its caches are not touched yet
    assert by_owner(first.buffers)["weights"] <= back <= sum(one.bytes for one in first.buffers)
    needed = sum(one.bytes for one in first.predicted)
    told = []
    free(needed - back + MIB)
    manager.restart(seed=1, on_notice=told.append)
    assert told == []
    manager.stop()
    manager.restart(seed=2, on_notice=told.append)
    assert told[0].startswith("warning: the model needs")


LIMITED = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from llamatelemetry_jupyter.errors import ServerError
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
told = []
with ServerManager() as manager:
    try:
        manager.start(ServerSettings(ctx=32768, slots=8, warmup=False), on_notice=told.append)
    except ServerError as error:
        changes = dict(zip(error.hint.split()[2::2], map(int, error.hint.split()[3::2])))
        again = manager.restart(**{name.strip("-"): value for name, value in changes.items()})
        print(json.dumps([told, str(error), error.hint, again.ctx_per_slot, again.slots]))
"""


def test_a_real_end_for_want_of_memory_names_a_start_that_then_works():
    """The engine's own malloc fails: this process and its children may use 4 GiB of addresses (ulimit -v)."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(4 * GIB)], capture_output=True, text=True, timeout=120, check=True
    )
    told, error, hint, context, slots = json.loads(done.stdout)
    assert "memory is not enough: the model needs 5.8 GiB, 3.0 GiB are free" in error
    assert hint == f"%llama restart --ctx {context}"
    assert (context, slots) == (8192, 8)
    assert told == [
        f"warning: the model needs 5.8 GiB, 3.0 GiB are free: the start may fail, or be slow\n  try: {hint}"
    ]


# ------------------------------------------------------------------------------------------- engines that see GPUs
# Lines as llama.cpp writes them (its source); no CUDA device was at hand.

CUDA = """#!/bin/sh
case "$1" in
--help) {engine} --help; echo "--list-devices"; exit 0;;
--version) exec {engine} --version;;
--list-devices) printf 'Available devices:\\n  CUDA0: Tesla T4 (15095 MiB, {free} MiB free)\\n'; exit 0;;
esac
cat >&2 <<'END'
{log}
END
{end}
"""
LOADING = """0.00.014.573 I srv    load_model: loading model '/models/x.gguf'
0.00.591.245 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)"""
NO_MEMORY = f"""{LOADING}
0.00.900.100 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1440.00 MiB on device 0: cudaMalloc failed: out of memory
0.00.900.200 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 1509949440
0.00.900.300 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"""
ON_GPU = f"""{LOADING}
0.00.605.090 I load_tensors:        CUDA0 model buffer size =   {{weights}} MiB
0.00.606.364 I llama_kv_cache:      CUDA0 KV buffer size =   200.00 MiB"""


@pytest.fixture
def cuda(tmp_path, monkeypatch):
    """``cuda(log, end, free=…)``: an engine on a T4 that writes ``log``, and the T4 at NVML's interface."""
    replay = Replay("t4", at=0.0)
    monkeypatch.setitem(sys.modules, "pynvml", replay)
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    engine = fakellama.write(tmp_path / "engine")

    def make(log, end="exit 1", free=14000):
        path = tmp_path / f"llama-server-{free}"
        path.write_text(CUDA.format(engine=engine, log=log, end=end.format(engine=engine), free=free))
        path.chmod(0o755)
        return find_runtime(path)

    make.replay = replay
    return make


def test_a_gpus_end_for_want_of_memory_names_what_would_fit(manager, cuda):
    with pytest.raises(ServerError) as problem:
        manager.start(ServerSettings(ctx=65536, gpu_layers=31), cuda(NO_MEMORY, free=1900))
    assert "the GPU's memory is not enough: the model needs 2.0 GiB on CUDA0, 1.9 GiB are free" in str(problem.value)
    context = int(re.fullmatch(r"%llama restart --name memory --ctx (\d+)", problem.value.hint)[1])
    assert 2048 <= context <= 8192
    assert manager.last_crash in str(problem.value)
    # With room by the plan, the engine's own figure is what is known, and half of it the next thing to try.
    with pytest.raises(ServerError) as problem:
        manager.start(ServerSettings(ctx=8192), cuda(NO_MEMORY))
    assert "the engine asked for 1440.00 MiB on device 0, although the model needs" in str(problem.value)
    assert problem.value.hint == "%llama restart --name memory --ctx 4096"


@pytest.mark.parametrize(("weights", "agrees"), [(2000, True), (2700, True), (1000, False), (3500, False)])
def test_a_breakdown_that_the_driver_contradicts_is_left_out(manager, cuda, weights, agrees):
    """The T4 of the trace takes 2,697 MiB between 0 and 6 s."""
    used = "nvmlDeviceGetMemoryInfo(gpu0, 33554472)"
    before, after = (memory_used(cuda.replay, used, at) for at in (0, 6000))
    grown = (after - before) >> 20
    manager._on_event = lambda event: cuda.replay.at(6.0) if event.kind == "spawned" else None
    handle = manager.start(
        ServerSettings(ctx=512, warmup=False), cuda(ON_GPU.format(weights=f"{weights:.2f}"), 'exec {engine} "$@"')
    )
    announced = weights + 200
    assert agrees == (0.9 * announced <= grown <= 1.1 * announced + 1.5 * CONTEXT_BYTES / MIB)
    assert {one.device for one in handle.predicted} == {"CPU", "CUDA0"}
    if agrees:
        assert by_owner(handle.buffers, "CUDA0") == {"weights": weights * MIB, "kv": 200 * MIB}
        assert manager.warnings == ()
        return
    assert by_owner(handle.buffers, "CUDA0") == {}
    assert by_owner(handle.buffers)  # the host's stay
    ((cause, remedy),) = manager.warnings
    assert cause.startswith("CUDA0: what the engine took is not shown by owner, its figures do not agree (")
    assert remedy


def memory_used(replay, key, at_ms):
    series = replay.trace["calls"][key]
    return next(v for t, v in reversed(list(zip(series["t_ms"], series["v"], strict=True))) if t <= at_ms)["used"]


def test_a_gpu_that_the_driver_does_not_show_is_not_doubted(manager, cuda, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    handle = manager.start(
        ServerSettings(ctx=512, warmup=False), cuda(ON_GPU.format(weights="9000.00"), 'exec {engine} "$@"')
    )
    assert by_owner(handle.buffers, "CUDA0")["weights"] == 9000 * MIB
    assert Path(handle.log_path).exists()

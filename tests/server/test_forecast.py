"""What a start is going to take: planned before it, stored beside what it took, and named when it was too much."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace

import pytest
from gpu.fakenvml import FakeNvml

from llamatelemetry_jupyter.errors import ServerError
from llamatelemetry_jupyter.models import catalogue, gguf
from llamatelemetry_jupyter.models.plan import Device
from llamatelemetry_jupyter.server import forecast, proof
from llamatelemetry_jupyter.server.forecast import Forecast
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.runtime import find_runtime
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.server.state import State
from llamatelemetry_jupyter.values import EngineBuffer

MIB, GIB = 2**20, 2**30


@pytest.fixture
def manager():
    made = ServerManager(name="forecast")
    yield made
    made.stop()


@pytest.fixture
def machine(monkeypatch):
    """``machine(host_mib, gpu_mib, …)``: this much is free."""

    def has(host_mib, *gpus_mib):
        monkeypatch.setattr(forecast, "host_device", lambda: Device("host", host_mib * MIB, "host", host_mib * MIB))
        gpus = [Device(f"CUDA{n}", mib * MIB, "gpu", mib * MIB) for n, mib in enumerate(gpus_mib)]
        monkeypatch.setattr(forecast, "engine_gpus", lambda runtime: gpus)

    return has


def of(settings, ending=()):
    model = catalogue.resolve(settings.model)
    header = gguf.read_header(model.path)
    wanted = settings.resolved(model, header)
    return Forecast.of(wanted, model, header, find_runtime("xllamacpp"), fixed=settings.ctx is not None, ending=ending)


SETTINGS = (
    {"ctx": 1024, "slots": 3},
    {"ctx": 4096, "cache_type_k": "q8_0", "cache_type_v": "q4_0", "ubatch": 256},
    {"ctx": 2048, "slots": 2, "kv_unified": True},
    {"ctx": 1024, "embeddings": True},
    {"ctx": 512, "slots": 2, "embeddings": True},
    {"ctx": 2048, "flash_attention": "off"},
    {"ctx": 2048, "load_mode": "none"},
)


@pytest.mark.engine
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_was_planned_is_what_the_engine_takes(manager, settings):
    handle = manager.start(ServerSettings(warmup=False, **settings))
    actual = {(one.device, one.owner): one.bytes for one in handle.buffers}
    planned = {(one.device, one.owner): one.bytes for one in handle.predicted}
    assert planned.keys() == actual.keys()
    for part, taken in actual.items():
        assert abs(planned[part] - taken) <= 0.0101 * MIB, part  # compute buffers of several are added up


@pytest.mark.engine
def test_it_is_kept_with_the_server_and_told_when_it_is_ready():
    events = []
    with ServerManager("kept", on_event=events.append) as manager:
        handle = manager.start(ServerSettings(ctx=512, warmup=False))
        assert State.read(manager._path("server.json")).handle.predicted == handle.predicted
        (ready,) = [event.data for event in events if event.kind == "ready"]
        assert ready["predicted_bytes"] == pytest.approx(ready["actual_bytes"], rel=1e-3)


@pytest.mark.engine
def test_a_context_that_nobody_asked_for_is_made_to_fit_and_stays(manager, machine):
    machine(1250)
    handle = manager.start(ServerSettings(warmup=False))
    assert 2048 <= handle.ctx_per_slot < 8192
    ((cause, remedy),) = manager.warnings
    assert cause.startswith(f"the context is {handle.ctx_per_slot:,} tokens: 8,192 do not fit")
    assert "--ctx 8192" in remedy
    assert manager.start(ServerSettings(warmup=False)).pid == handle.pid
    machine(64_000)
    assert manager.start(ServerSettings(warmup=False)).pid == handle.pid  # more memory is no reason to restart
    assert manager.start(ServerSettings(ctx=8192, warmup=False)).ctx_per_slot == 8192
    assert manager.warnings == ()


@pytest.mark.engine
def test_a_context_that_was_asked_for_is_tried_with_a_warning(manager, machine):
    machine(120)
    assert manager.start(ServerSettings(ctx=2048, warmup=False)).ctx_per_slot == 2048
    ((cause, remedy),) = manager.warnings
    assert cause.startswith("the model needs 154 MiB, 120 MiB are free")
    assert remedy == "%llama models list"  # nothing is as small as this one


@pytest.mark.engine
@pytest.mark.parametrize("ctx", [2048, 131072])
def test_a_start_without_memory_says_how_much_it_needs_and_what_would_fit(manager, tmp_path, ctx):
    limited = tmp_path / "limited"
    limited.write_text('#!/bin/sh\nulimit -v 1100000\n[ "$1" = small ] && ulimit -v 700000\nshift\nexec "$@"\n')
    limited.chmod(limited.stat().st_mode | stat.S_IXUSR)
    runtime = find_runtime("xllamacpp")
    wrapped = replace(runtime, argv=(str(limited), "small" if ctx == 2048 else "large", *runtime.argv))
    with pytest.raises(ServerError, match="memory is not enough") as refused:
        manager.start(ServerSettings(ctx=ctx, warmup=False), wrapped)
    assert "the model needs 154 MiB" in str(refused.value) or "the model needs 3.0 GiB" in str(refused.value)
    assert "or this one is limited" in str(refused.value)
    assert refused.value.hint == f"%llama start smollm2-135m --ctx {ctx // 2}"


def test_where_the_context_is_too_large_the_largest_is_named(machine):
    machine(1500)
    found = of(ServerSettings(ctx=32768))
    assert not found.fits or found.plan.shares[-1].left < 0
    assert found.remedy().startswith("%llama start smollm2-135m --ctx ")


def test_gpus_count_and_what_a_server_that_ends_gives_back(machine):
    machine(64_000, 1600)
    found = of(ServerSettings(ctx=512))
    assert {one.device for one in found.buffers} == {"CPU", "CUDA0"}
    assert found.plan.gpu_layers == 31  # all 30 and the output
    crowded = of(ServerSettings(ctx=8192, gpu_layers=99))
    assert not crowded.fits or crowded.plan.shares[0].left < 0
    given_back = of(ServerSettings(ctx=8192, gpu_layers=99), [EngineBuffer("CUDA0", "kv", 700 * MIB)])
    assert given_back.plan.shares[0].device.free_bytes - crowded.plan.shares[0].device.free_bytes == 700 * MIB


def test_a_context_is_narrowed_to_keep_all_layers_on_the_gpu(machine):
    machine(64_000, 1720)
    found = of(ServerSettings())
    assert found.usual == 8192
    assert found.plan.gpu_layers == 31
    assert 2048 <= found.settings.ctx < 8192
    assert of(ServerSettings(ctx=8192)).usual is None


def test_what_is_not_counted_is_named():
    settings = ServerSettings(cpu_moe="all", tensor_split=(1.0, 2.0))
    assert forecast.uncounted(settings) == ("experts on the host", "a tensor split of your own")


@pytest.mark.parametrize(
    ("taken_mib", "doubted"),
    [(1000, False), (900, False), (1100, False), (1700, False), (899, True), (1800, True), (0, True), (-50, True)],
)
def test_a_gpus_breakdown_must_agree_with_the_driver(taken_mib, doubted):
    buffers = [EngineBuffer("CUDA0", "weights", 800 * MIB), EngineBuffer("CUDA0", "kv", 200 * MIB)]
    found = proof.doubts(buffers, {"GPU-a": GIB}, {"GPU-a": GIB + taken_mib * MIB}, ["GPU-a"])
    assert bool(found) is doubted


def test_what_the_driver_does_not_show_is_not_doubted():
    buffers = [EngineBuffer("CUDA1", "weights", GIB), EngineBuffer("CPU", "weights", GIB)]
    assert proof.doubts(buffers, {"GPU-a": 0}, {"GPU-a": 0}, ["GPU-a"]) == []
    assert proof.doubts(buffers, {}, {}, []) == []


@pytest.mark.engine
def test_buffers_of_a_gpu_that_nothing_was_taken_of_are_not_shown(manager, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(1))
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    speaks = tmp_path / "speaks"
    line = "0.00.000.900 I load_tensors:        CUDA0 model buffer size =   900.00 MiB"
    speaks.write_text(f'#!/bin/sh\necho "{line}"\nexec "$@"\n')
    speaks.chmod(speaks.stat().st_mode | stat.S_IXUSR)
    runtime = find_runtime("xllamacpp")
    handle = manager.start(ServerSettings(ctx=512, warmup=False), replace(runtime, argv=(str(speaks), *runtime.argv)))
    assert {buffer.device for buffer in handle.buffers} == {"CPU"}
    causes = [cause for cause, _ in manager.warnings]
    assert any(
        cause.startswith("CUDA0: its memory is not shown by owner (900 MiB by the engine, 0 B") for cause in causes
    )

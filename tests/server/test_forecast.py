"""What a server will take, from its settings and what is free: values in, plan out; and what is said when it is too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("gguf")

from ggufs import Shape, write

from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.plan import CONTEXT_BYTES, Device, largest_context, placed, plan
from llamatelemetry_jupyter.models.shape import shape_of
from llamatelemetry_jupyter.server.failures import explain
from llamatelemetry_jupyter.server.forecast import demand_of, forecast, uncounted
from llamatelemetry_jupyter.server.places import freed, places
from llamatelemetry_jupyter.server.proof import Before
from llamatelemetry_jupyter.server.remedy import explained, notices, warning
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.values import EngineBuffer, Runtime, ServerHandle

GIB, MIB = 1 << 30, 1 << 20
HOST = Device("CPU", 64 * GIB, "host")
OOM = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory"


def card(free_gib, name="CUDA0"):
    return Device(name, round(free_gib * GIB), "gpu", 16 * GIB)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model whose weights are 1.3 GiB and whose cache takes 1 GiB for 16,384 tokens (16 layers, 1,024 wide)."""
    small = Shape(layers=16, embd=512, ff=1792, heads=8, kv_heads=8, head=64, vocab=4096, tied=False)
    shape = shape_of(gguf.check(write(tmp_path_factory.mktemp("large") / "m.gguf", small)))
    layers = tuple(replace(x, key_width=1024, value_width=1024, weight_bytes=64 * MIB) for x in shape.layers)
    tensors = tuple(replace(t, bytes=t.bytes * 11, offset=t.offset * 11) for t in shape.tensors)
    return replace(shape, layers=layers, tensors=tensors, context_length=65536)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    made = Shape(arch="qwen3moe", layers=6, embd=512, ff=256, heads=8, kv_heads=2, head=64, experts=16, experts_used=4)
    return shape_of(gguf.check(write(tmp_path_factory.mktemp("experts") / "m.gguf", made)))


def settings(**given):
    return ServerSettings("/m.gguf", **{"ctx": 8192, **given})


def test_every_setting_that_takes_memory_is_in_the_demand():
    assert demand_of(settings()) == Demand(8192)
    asked = settings(
        ctx=1000, slots=3, cache_type_k="q8_0", cache_type_v="q4_0", ubatch=4096, kv_unified=True, split_mode="none",
        load_mode="none", swa_full=True, kv_offload=False, cpu_moe="all", tensor_split=(2, 1), fit_margin_mib=512,
        embeddings=True,
    )  # fmt: skip
    assert demand_of(asked) == Demand(
        1000, 3, "q8_0", True, 4096, 4096, True, "none", "q4_0", True, True, False, True, 1 << 16, (2, 1), 512 * MIB
    )
    assert demand_of(settings(flash_attention="off")).flash_attention is False
    assert demand_of(settings(reranking=True)).embeddings
    assert demand_of(settings(cpu_moe="7")).host_experts == 7
    assert demand_of(settings(batch=256)).batch == 256
    assert uncounted(settings(mmproj="/p", lora=("/a:1",), split_mode="row")) == (
        "a projector", "adapters", "split mode row",
    )  # fmt: skip
    assert uncounted(settings(split_mode="layer")) == ()


def test_layers_go_where_the_settings_say_else_as_many_as_fit(large):
    found = forecast(settings(), large, [card(14)], HOST)
    assert (found.plan.gpu_layers, found.fits, found.lowered) == (17, True, None)
    assert {b.device for b in found.buffers} == {"CUDA0", "CPU"}
    assert EngineBuffer("CUDA0", "context", CONTEXT_BYTES) in found.buffers
    assert forecast(settings(gpu_layers=3), large, [card(14)], HOST).plan.gpu_layers == 3
    assert 0 < forecast(settings(), large, [card(2.4)], HOST).plan.gpu_layers < 17
    assert forecast(settings(gpu_layers=17), large, [card(2.4)], HOST).fits is True  # the margin is not kept, no more


def test_experts_and_caches_can_stay_with_the_host(large, experts):
    here, there = ([card(8)], HOST), ([card(8)], HOST)
    whole, kept = forecast(settings(), experts, *here), forecast(settings(cpu_moe="all"), experts, *there)
    moved = sum(layer.expert_bytes for layer in experts.layers)
    assert moved > 0
    assert whole.plan.shares[0].weights - kept.plan.shares[0].weights == moved
    one = forecast(settings(cpu_moe="1"), experts, *here).plan.shares[0].weights
    assert whole.plan.shares[0].weights - one == experts.layers[0].expert_bytes
    gpu, host = forecast(settings(kv_offload=False), large, *here).plan.shares
    assert (gpu.kv, host.kv) == (0, forecast(settings(), large, *here).plan.shares[0].kv)


def test_a_tensor_split_of_the_users_own_is_followed(large):
    cards = [card(14), card(14, "CUDA1")]
    found = forecast(settings(tensor_split=(3, 1)), large, cards, HOST).plan
    assert found.tensor_split == (0.75, 0.25)
    assert [len(share.layers) for share in found.shares] == [13, 3, 0]
    assert forecast(settings(), large, cards, HOST).plan.tensor_split == (0.5, 0.5)


def test_a_context_that_nobody_asked_for_is_lowered_to_the_most_that_fits(large):
    small = replace(HOST, free_bytes=2 * GIB)
    found = forecast(settings(), large, [], small, lower=True)
    assert found.settings.ctx == found.plan.ctx_per_slot == largest_context(large, [], small, Demand())
    assert 256 <= found.settings.ctx < 8192
    assert found.plan.fits
    assert not placed(large, [], small, replace(found.plan.demand, ctx=found.settings.ctx + 256), 0).fits
    assert found.lowered.startswith(f"context: {found.settings.ctx:,} tokens, the most that fits with 4")
    assert "(8,192: the model needs 1.9 GiB, 2.0 GiB are free)" in found.lowered
    assert found.lowered.endswith("--ctx 8192 insists")
    assert "\n" not in found.lowered
    named = forecast(settings(), large, [], small)
    assert (named.settings.ctx, named.lowered) == (8192, None)
    roomy = forecast(settings(), large, [], HOST, lower=True)
    assert (roomy.settings.ctx, roomy.lowered) == (8192, None)


def test_more_free_memory_never_means_less_context(large):
    free = [round(gib / 10 * GIB) for gib in range(5, 70, 3)]
    contexts = [
        forecast(settings(ctx=32768), large, [], replace(HOST, free_bytes=one), lower=True).settings.ctx for one in free
    ]
    fitting = contexts[contexts.index(min(contexts)) :]  # where none fits, the usual one is tried
    assert fitting == sorted(fitting)
    assert set(contexts[: contexts.index(min(contexts))]) == {32768}
    assert len(set(fitting)) > 5


def test_a_context_is_lowered_to_keep_the_model_whole_on_the_gpu_but_not_below_2048(large):
    whole = forecast(settings(), large, [card(3.0)], HOST, lower=True)
    assert 2048 <= whole.settings.ctx < 8192
    assert whole.plan.gpu_layers == 17
    assert "whole on the GPU" in whole.lowered
    assert "CUDA0" in whole.lowered
    part = forecast(settings(), large, [card(2.4)], HOST, lower=True)
    assert (part.settings.ctx, part.lowered) == (8192, None)
    assert 0 < part.plan.gpu_layers < 17
    # Neither on the GPU nor with the host's help: as much as goes into both.
    both = forecast(settings(slots=2), large, [card(2.4)], replace(HOST, free_bytes=round(1.5 * GIB)), lower=True)
    assert both.settings.ctx < 8192
    assert both.plan.fits


# ------------------------------------------------------------------------------------------------- what is said of it


def said(found, asked="/m.gguf", server="default"):
    problem = warning(found, asked, server)
    return problem and (problem.cause, problem.remedy)


def test_what_will_not_fit_is_warned_of_with_a_context_that_does(large):
    tight = replace(HOST, free_bytes=2 * GIB)
    found = forecast(settings(ctx=32768), large, [], tight)
    cause, remedy = said(found)
    assert cause == "the model needs 3.4 GiB, 2.0 GiB are free: the start may fail, or be slow"
    context = int(remedy.removeprefix("%llama restart --ctx "))
    assert context == largest_context(large, [], tight, Demand())
    assert said(forecast(settings(ctx=context), large, [], tight)) is None
    assert said(found, server="second")[1].startswith("%llama restart --name second --ctx ")
    assert notices(found, "/m.gguf", "default") == [f"warning: {cause}\n  try: {remedy}"]
    lowered = forecast(settings(), large, [], tight, lower=True)
    assert notices(lowered, "/m.gguf", "default") == [lowered.lowered]
    assert notices(forecast(settings(), large, [], HOST), "/m.gguf", "default") == []


def test_fewer_slots_or_layers_are_proposed_where_less_context_is_too_little(large):
    slots = forecast(settings(slots=24), large, [], replace(HOST, free_bytes=3 * GIB))
    assert said(slots)[1] == "%llama restart --slots 1 --ctx 8192"
    layers = forecast(settings(gpu_layers=17), large, [card(2)], HOST)
    cause, remedy = said(layers)
    assert cause.startswith("the model needs 2.3 GiB on CUDA0, 2.0 GiB are free")
    count = int(remedy.removeprefix("%llama restart --gpu-layers "))
    assert count == plan(large, [card(2)], HOST, Demand()).gpu_layers < 17


def test_a_smaller_form_is_proposed_where_the_weights_are_too_much(large):
    found = forecast(settings(ctx=2048), large, [], replace(HOST, free_bytes=GIB))
    assert said(found, "qwen2.5-0.5b")[1] == "%llama start qwen2.5-0.5b:Q8_0 --ctx 2048"
    less = forecast(settings(ctx=16384), large, [], replace(HOST, free_bytes=round(1.3 * GIB)))
    assert said(less, "qwen2.5-0.5b", "b")[1] == "%llama start qwen2.5-0.5b:Q8_0 --name b --ctx 2048"
    # Without other forms: the largest known model that fits, and where none does the list.
    few = replace(large, parameters=900_000_000)
    assert said(replace(found, shape=few))[1] == "%llama start qwen3-0.6b"
    nothing = forecast(settings(ctx=2048), large, [], replace(HOST, free_bytes=100 * MIB))
    assert said(nothing)[1] == "%llama models list"


def test_an_end_for_want_of_memory_says_how_much_was_missing(large):
    gpu = forecast(settings(ctx=65536), large, [card(4.2)], HOST)
    cuda = explain(1, [OOM])
    assert cuda.memory == "gpu"
    assert cuda.cause == "the GPU's memory is not enough: the engine asked for 900.00 MiB on device 0"
    found = explained(cuda, gpu, "/m.gguf", "default")
    assert found.cause == "the GPU's memory is not enough: the model needs 5.8 GiB on CUDA0, 4.2 GiB are free"
    assert found.remedy.startswith("%llama restart --ctx ")
    # By the plan it fits: half of the context, and both figures.
    fits = explained(cuda, forecast(settings(), large, [card(14)], HOST), "/m.gguf", "default")
    assert "asked for 900.00 MiB on device 0, although the model needs 2." in fits.cause
    assert fits.remedy == "%llama restart --ctx 4096"
    unseen = explained(cuda, forecast(settings(), large, [], HOST), "/m.gguf", "default")
    assert unseen.cause == cuda.cause


@pytest.mark.parametrize("code", [-9, -6])
def test_a_signal_is_put_down_to_memory_only_where_it_is_short(large, code):
    failure = explain(code, ["all is well"])
    assert explained(failure, forecast(settings(), large, [], HOST), "/m.gguf", "default") == failure
    short = forecast(settings(ctx=32768), large, [], replace(HOST, free_bytes=2 * GIB))
    found = explained(failure, short, "/m.gguf", "default")
    assert found.cause == f"{failure.cause}: the model needs 3.4 GiB, 2.0 GiB are free"
    assert found.remedy != failure.remedy
    other = explain(1, ["invalid argument: --x"])
    assert explained(other, short, "/m.gguf", "default") == other


# ---------------------------------------------------------------------------------------------------------- places


def handle(*buffers, **more):
    return ServerHandle("x", "", None, "llama.cpp", True, None, None, None, 1, 512, buffers=buffers, **more)


def test_what_a_server_gives_back_is_counted():
    ended = handle(EngineBuffer("CUDA1", "weights", GIB), EngineBuffer("CUDA1", "kv", 5), EngineBuffer("CPU", "kv", 7))
    assert freed(ended) == {"CUDA1": CONTEXT_BYTES + GIB + 5, "CPU": 0}  # its process is gone: nothing is known of it
    assert freed(replace(ended, owned=False)) == freed(None) == {}


LISTED = """#!/bin/sh
case "$1" in
--help) echo "--model --list-devices";;
--list-devices) printf 'Available devices:\\n  CUDA0: Tesla T4 (15095 MiB, 14000 MiB free)\\n  CUDA1: Tesla T4 (15095 MiB, 2000 MiB free)\\n';;
*) exit 1;;
esac
"""


def test_gpus_are_those_that_the_engine_sees_by_its_names(tmp_path, monkeypatch):
    monkeypatch.setattr("llamatelemetry_jupyter.server.places._any_gpu", lambda: True)
    path = tmp_path / "llama-server"
    path.write_text(LISTED)
    path.chmod(0o755)
    runtime = Runtime("binary", (str(path),), frozenset())
    gpus, host = places(settings(), runtime)
    assert [(gpu.name, gpu.free_bytes >> 20, gpu.total_bytes >> 20) for gpu in gpus] == [
        ("CUDA0", 14000, 15095), ("CUDA1", 2000, 15095),
    ]  # fmt: skip
    assert (host.name, host.kind) == ("CPU", "host")
    ending = handle(EngineBuffer("CUDA1", "weights", GIB))
    assert places(settings(), runtime, ending)[0][1].free_bytes == (2000 << 20) + CONTEXT_BYTES + GIB
    assert [gpu.name for gpu in places(settings(devices=("CUDA1",)), runtime)[0]] == ["CUDA1"]
    assert [gpu.name for gpu in places(settings(split_mode="none", main_gpu=1), runtime)[0]] == ["CUDA1"]
    assert places(settings(gpu_layers=0), runtime)[0] == ()
    path.write_text("#!/bin/sh\nexit 1\n")  # it cannot say: the start goes on, planned for this machine
    assert places(settings(), runtime)[0] == ()


# ----------------------------------------------------------------------------------------------------------- proof


@pytest.mark.parametrize(
    ("taken_mib", "doubted"),
    [(1000, False), (900, False), (1775, False), (899, True), (1776, True), (0, True), (-50, True)],
)
def test_a_gpus_figures_must_agree_with_the_driver_within_a_tenth_and_a_context(monkeypatch, taken_mib, doubted):
    buffers = [EngineBuffer("CUDA0", "weights", 800 * MIB), EngineBuffer("CUDA0", "kv", 200 * MIB)]
    monkeypatch.setattr(
        "llamatelemetry_jupyter.server.proof._used", lambda: {"GPU-b": 0, "GPU-a": GIB + taken_mib * MIB}
    )
    before = Before({"GPU-b": 0, "GPU-a": GIB}, "GPU-a")  # CUDA_VISIBLE_DEVICES: the second by NVML is the first here
    found = before.doubts([*buffers, EngineBuffer("CPU", "kv", GIB), EngineBuffer("CUDA3", "kv", GIB)])
    assert [(one.device, one.announced_bytes, one.taken_bytes) for one in found] == (
        [("CUDA0", 1000 * MIB, taken_mib * MIB)] if doubted else []
    )
    assert Before({}, None).doubts(buffers) == []

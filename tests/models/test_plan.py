"""The plan against what the real engine allocates, and what it says about cards that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from ggufs import Shape, write
from plancases import CASES, engine_report, fit_params_report, fit_params_tool, model_file, parts, predicted

from llamatelemetry_jupyter import cards
from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.host import repacked_types
from llamatelemetry_jupyter.models.plan import QUANTS, Device, largest_context, largest_quant, placed, plan, quantised
from llamatelemetry_jupyter.models.shape import shape_of

GIB = 1 << 30
HOST = Device("host", 64 * GIB, "host")


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_plan_is_what_the_engine_then_allocates(case, tmp_path):
    path = model_file(case, tmp_path)
    _, share = predicted(path, case.demand)
    ours, theirs = parts(share), engine_report(path, case.demand)
    # The log's figures are rounded, one per buffer, and several are added up.
    assert ours["kv"] == pytest.approx(theirs["kv"], abs=0.011)
    assert ours["weights"] == pytest.approx(theirs["weights"], abs=0.011)
    assert ours["output"] == pytest.approx(theirs["output"], abs=0.011)
    total = sum(theirs.values())
    assert sum(ours.values()) == pytest.approx(total, abs=max(0.02 * total, 4))


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case.id)
def test_llamas_own_planner_says_the_same_of_weights_and_caches(case, tmp_path):
    tool = fit_params_tool()
    if tool is None:
        pytest.skip("no llama-fit-params on PATH")
    path = model_file(case, tmp_path)
    ours, theirs = parts(predicted(path, case.demand)[1]), fit_params_report(tool, path, case.demand)
    assert theirs["weights"] == pytest.approx(ours["weights"], abs=1)  # it prints whole MiB
    assert theirs["context"] == pytest.approx(ours["kv"] + ours["output"], abs=1)
    # It reserves logits for a whole batch, which a server does not: up to half a GiB more.
    assert theirs["compute"] >= int(ours["compute"])


# ---------------------------------------------------------------------------------------------------- large models
# An 8B model needs no file of 5 GB here: the header's numbers are enough.


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The shape of Llama 3.1 8B in Q4_K: 32 layers of 4096, 8 key/value heads of 128."""
    small = Shape(layers=32, embd=512, ff=1792, heads=4, kv_heads=1, head=128, vocab=16032, tied=False, kind="Q4_K")
    shape = shape_of(gguf.check(write(tmp_path_factory.mktemp("eight") / "m.gguf", small)))
    wide = 8
    layers = tuple(
        replace(x, heads=32, kv_heads=8, key_width=1024, value_width=1024, weight_bytes=x.weight_bytes * wide**2)
        for x in shape.layers
    )
    tensors = tuple(
        replace(
            t,
            dimensions=tuple(d * wide for d in t.dimensions),
            bytes=t.bytes * wide ** len(t.dimensions),
            offset=t.offset * wide**2,
        )
        for t in shape.tensors
    )
    parameters = sum(t.elements for t in tensors)
    assert parameters == 8_030_261_248  # what its makers say, without the 64 rope factors
    return replace(
        shape, layers=layers, tensors=tensors, width=4096, feed_forward=14336, vocabulary=128256, parameters=parameters,
        context_length=131072,
    )  # fmt: skip


def t4s(count):
    return tuple(Device(f"T4 {n}", cards.parse("T4")[0].usable_bytes, "gpu") for n in range(count))


def test_an_8b_model_in_four_bits_fits_one_t4_and_the_context_per_slot_is_said(eight):
    found = plan(eight, t4s(1), HOST, Demand(8192, slots=2))
    gpu, host = found.shares
    assert found.fits
    assert (found.gpu_layers, found.ctx_per_slot, found.tensor_split) == (33, 8192, ())
    assert gpu.kv == 2 * 8192 * 32 * 2 * 1024 * 2
    assert gpu.layers == tuple(range(32))
    assert (host.layers, host.kv, host.context) == ((), 0, 0)
    assert host.output == 2 * 128256 * 4
    assert gpu.context > 0
    assert host.weights == host.mapped > 0  # the embeddings stay with the host


def test_two_cards_share_layers_by_their_free_memory(eight):
    one, two = t4s(2)
    found = plan(eight, (one, replace(two, free_bytes=one.free_bytes // 2)), HOST, Demand(8192))
    assert found.fits
    first, second, _ = found.shares
    assert first.layers + second.layers == tuple(range(32))
    assert len(first.layers) == 22  # 33 · 2/3: layers are counted with the output
    assert found.tensor_split == (0.667, 0.333)
    assert second.kv == first.kv * 10 // 22


def test_without_a_split_the_first_card_takes_all(eight):
    found = plan(eight, t4s(2), HOST, Demand(8192, split="none"))
    assert [share.layers for share in found.shares] == [tuple(range(32)), ()]
    assert found.tensor_split == ()


def test_what_does_not_fit_is_placed_in_part_and_the_most_that_would_fit_is_named(eight):
    card = (Device("6 GB", 5 * GIB, "gpu"),)
    found = plan(eight, card, HOST, Demand(8192))
    assert found.fits
    assert 0 < found.gpu_layers < 33
    assert not placed(eight, card, HOST, Demand(8192), found.gpu_layers + 1).fits
    gpu, host = found.shares
    assert host.layers + gpu.layers == tuple(range(32))
    assert host.kv + gpu.kv == 8192 * 32 * 2 * 1024 * 2
    assert largest_context(eight, card, HOST, Demand()) is None
    name, size = largest_quant(eight, card, HOST, Demand(2048))
    assert largest_quant(eight, (), Device("host", 8 * GIB, "host"), Demand(2048))[0] == "Q6_K"
    best = [quant for quant, _ in QUANTS].index(name)
    fitting = [placed(quantised(eight, bits), card, HOST, Demand(2048), 33).fits for _, bits in QUANTS]
    assert fitting == [False] * best + [True] * (len(QUANTS) - best)
    assert size == round(8_030_261_248 * QUANTS[best][1] / 8)
    assert largest_quant(eight, (Device("1 GB", GIB, "gpu"),), HOST, Demand()) is None


def test_the_largest_context_is_the_last_that_fits(eight):
    found = largest_context(eight, t4s(1), HOST, Demand())
    assert 8192 < found < 131072
    assert placed(eight, t4s(1), HOST, Demand(found), 33).fits
    assert not placed(eight, t4s(1), HOST, Demand(found + 256), 33).fits
    assert largest_context(eight, t4s(1), HOST, Demand(kv_type="q8_0")) > 1.6 * found
    big = (Device("H200", 140 * GIB, "gpu"),)
    assert largest_context(eight, big, HOST, Demand()) == 131072


def test_more_of_anything_never_takes_less(eight):
    base = plan(eight, t4s(2), HOST, Demand(4096)).total
    for more in (
        Demand(8192),
        Demand(4096, slots=2),
        Demand(4096, ubatch=1024, batch=4096),
        Demand(4096, kv_type="f32"),
    ):
        assert placed(eight, t4s(2), HOST, more, 33).total > base
    assert placed(eight, t4s(2), HOST, Demand(4096, kv_type="q8_0"), 33).total < base


def test_demands_that_no_engine_takes_are_refused(eight):
    for wrong in ({"ctx": 0}, {"slots": 65}, {"kv_type": "q3_k"}, {"kv_type": "q8_0", "flash_attention": False}):
        with pytest.raises(CommandError):
            Demand(**wrong)
    odd = replace(eight, layers=tuple(replace(x, key_width=1000) for x in eight.layers))
    with pytest.raises(CommandError, match="do not fit a q8_0 KV cache"):
        plan(odd, t4s(1), HOST, Demand(kv_type="q8_0"))


def test_a_cpus_features_say_what_is_kept_twice():
    assert repacked_types("flags\t\t: fpu avx2 avx512f") == {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}
    assert "Q6_K" in repacked_types("Features\t: fp asimd asimddp")
    assert repacked_types("flags\t\t: fpu sse2") == frozenset()

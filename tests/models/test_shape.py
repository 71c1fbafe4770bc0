"""What a file leaves out is filled in as the engine does: windows, recurrent layers, shared and absent caches."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter.errors import GGUFError
from llamatelemetry_jupyter.models.demand import Demand, kv_bytes
from llamatelemetry_jupyter.models.header import GGUFHeader, Part, TensorInfo
from llamatelemetry_jupyter.models.shape import shape_of

pytestmark = pytest.mark.floor


def shape(arch, layers=8, tensors=(), **keys):
    usual = {"block_count": layers, "embedding_length": 512, "attention.head_count": 8, "attention.head_count_kv": 2}
    metadata = {f"{arch}.{key.replace('__', '.')}": value for key, value in {**usual, **keys}.items()}
    return shape_of(GGUFHeader(3, "<", arch, (Part("m.gguf", 0, 0),), metadata, tuple(tensors)))


def kinds(found):
    return "".join({"full": "F", "window": "w", "none": "-"}[layer.attention] for layer in found.layers)


def states(found):
    return "".join("R" if layer.state_bytes else "." for layer in found.layers)


WINDOW = {"attention__sliding_window": 512}


@pytest.mark.parametrize(
    ("arch", "keys", "expected", "window"),
    [
        ("llama", {}, "FFFFFFFF", None),
        ("llama", WINDOW, "FFFFFFFF", None),  # Mistral's key: the engine does not use it
        ("phi3", WINDOW, "FFFFFFFF", None),
        ("gemma3", WINDOW, "wwwwwFww", 512),
        ("gemma3", {}, "FFFFFFFF", None),
        ("gemma3", {**WINDOW, "attention__sliding_window_pattern": 2}, "wFwFwFwF", 512),
        ("gemma3", {**WINDOW, "attention__sliding_window_pattern": (True, False) * 4}, "wFwFwFwF", 512),
        ("gemma3", {**WINDOW, "attention__sliding_window_pattern": 0}, "wwwwwwww", 512),
        ("gemma2", {}, "wFwFwFwF", 4096),
        ("gpt-oss", {"attention__sliding_window": 128}, "wFwFwFwF", 128),
        ("llama4", {}, "wwwFwwwF", 8192),
        ("llama4", {"attention__sliding_window": 0}, "FFFFFFFF", None),
        ("smallthinker", {"attention__sliding_window": 1}, "FwwwFwww", 4096),
        ("exaone4", {}, "FFFFFFFF", None),
        ("bert", {}, "--------", None),
        (
            "gemma4",
            {**WINDOW, "attention__sliding_window_pattern": (True, False) * 4, "attention__shared_kv_layers": 3},
            "wFwFw---",
            512,
        ),
    ],
)
def test_which_layers_see_only_a_window(arch, keys, expected, window):
    found = shape(arch, **keys)
    assert (kinds(found), found.window) == (expected, window)


@pytest.mark.parametrize(
    ("arch", "keys", "caches", "recurrent"),
    [
        ("mamba", {"ssm__conv_kernel": 4, "ssm__inner_size": 1024, "ssm__state_size": 16}, "--------", "RRRRRRRR"),
        ("rwkv7", {"wkv__head_size": 64}, "--------", "RRRRRRRR"),
        ("lfm2", {"shortconv__l_cache": 3, "attention__head_count_kv": (0, 0, 2, 0, 0, 2, 0, 2)}, "--F--F-F", "RR.RR.R."),
        ("qwen3next", {"ssm__conv_kernel": 4, "ssm__inner_size": 1024, "ssm__state_size": 128}, "---F---F", "RRR.RRR."),
        ("falcon-h1", {"ssm__conv_kernel": 4, "ssm__inner_size": 1024, "ssm__state_size": 128}, "FFFFFFFF", "RRRRRRRR"),
        (
            "nemotron_h",
            {"ssm__conv_kernel": 4, "ssm__inner_size": 1024, "ssm__state_size": 128, "attention__head_count_kv": (0, 0, 2, 0) * 2, "feed_forward_length": (0, 64, 0, 0) * 2},
            "--F---F-",
            "R..RR..R",
        ),
    ],
)  # fmt: skip
def test_recurrent_layers_have_a_state_and_no_cache(arch, keys, caches, recurrent):
    found = shape(arch, **keys)
    assert (kinds(found), states(found)) == (caches, recurrent)


def test_a_state_does_not_grow_with_the_context_but_with_the_slots():
    found = shape("mamba", layers=1, ssm__conv_kernel=4, ssm__inner_size=1024, ssm__state_size=16)
    one = 4 * (3 * 1024 + 16 * 1024)
    assert kv_bytes(found, Demand(256), found.layers[0]) == kv_bytes(found, Demand(65536), found.layers[0]) == one
    assert kv_bytes(found, Demand(256, slots=3), found.layers[0]) == 3 * one


def test_latent_attention_caches_keys_only():
    found = shape("deepseek2", attention__head_count_kv=1, attention__key_length=576, attention__value_length=512, attention__key_length_mla=192, attention__value_length_mla=128)  # fmt: skip
    assert {(x.key_width, x.value_width) for x in found.layers} == {(576, 0)}
    assert found.approximate is None
    assert shape("deepseek4").approximate is not None


def test_heads_and_lengths_may_differ_by_layer():
    found = shape("gemma3", layers=6, attention__head_count_kv=(1, 2, 3, 4, 5, 6), attention__key_length=128, attention__value_length=128, attention__key_length_swa=32, **WINDOW)  # fmt: skip
    assert [x.key_width for x in found.layers] == [32, 64, 96, 128, 160, 768]
    assert [x.value_width for x in found.layers] == [128, 256, 384, 512, 640, 768]


def test_layers_that_predict_ahead_are_not_counted():
    assert len(shape("glm4moe", nextn_predict_layers=1).layers) == 7


def test_experts_are_told_apart_and_active_weights_counted():
    made = [
        TensorInfo("blk.0.ffn_up_exps.weight", "F16", (64, 64, 8), 0, 65536),
        TensorInfo("blk.0.attn_q.weight", "F16", (64, 64), 0, 8192),
    ]
    found = shape("qwen3moe", layers=1, tensors=made, expert_count=8, expert_used_count=2)
    assert (found.layers[0].weight_bytes, found.layers[0].expert_bytes) == (73728, 65536)
    assert (found.parameters, found.active_parameters) == (9 * 4096, 3 * 4096)


@pytest.mark.parametrize("keys", [{"block_count": 1 << 40}, {"expert_count": 1 << 40}])
def test_more_than_any_engine_takes_is_refused_at_once(keys):
    with pytest.raises(GGUFError, match="layers and"):
        shape("llama", **keys)


@pytest.mark.parametrize("value", [-1, 1 << 63, "text", (), (-5,), True, 1.5])
@pytest.mark.parametrize("key", ["attention.head_count", "attention.head_count_kv", "attention.key_length", "feed_forward_length", "embedding_length", "context_length"])  # fmt: skip
def test_no_value_of_a_key_breaks_the_shape(key, value):
    found = shape("llama", **{key: value})
    assert all(x.key_width >= 0 for x in found.layers)

"""What one token reads and computes, counted from real headers."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("gguf")

from ggufs import Shape, write

from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models.demand import Demand, kv_bytes
from llamatelemetry_jupyter.models.shape import shape_of
from llamatelemetry_jupyter.models.traffic import traffic

DENSE = Shape(layers=4, embd=128, ff=256, heads=4, kv_heads=2, head=32, vocab=512, tied=False)


def shaped(tmp_path, shape):
    return shape_of(gguf.check(write(tmp_path / "m.gguf", shape)))


def test_a_dense_model_reads_all_but_its_embeddings(tmp_path):
    shape = shaped(tmp_path, DENSE)
    found = traffic(shape, Demand(1024), 0)
    assert found.weight_bytes == sum(t.bytes for t in shape.tensors if not t.name.startswith("token_embd"))
    assert found.parameters == sum(t.elements for t in shape.tensors if not t.name.startswith("token_embd"))
    assert found.parameters - found.prompt_parameters == sum(t.elements for t in shape.output_tensors)
    assert found.cache_bytes == 0


def test_a_model_without_an_output_matrix_reads_its_embeddings_as_one(tmp_path):
    shape = shaped(tmp_path, replace(DENSE, tied=True))
    assert traffic(shape, Demand(1024), 0).weight_bytes == sum(t.bytes for t in shape.tensors)


def test_a_full_cache_is_read_whole(tmp_path):
    shape, demand = shaped(tmp_path, DENSE), Demand(1024)
    assert traffic(shape, demand, 1024).cache_bytes == sum(kv_bytes(shape, demand, x) for x in shape.layers)
    assert traffic(shape, demand, 256).cache_bytes * 4 == traffic(shape, demand, 1024).cache_bytes
    assert traffic(shape, Demand(1024, kv_type="q8_0"), 1024).cache_bytes == pytest.approx(
        traffic(shape, demand, 1024).cache_bytes * 34 / 64
    )


def test_of_experts_only_those_that_are_used_count(tmp_path):
    shape = shaped(tmp_path, replace(DENSE, experts=8, experts_used=2))
    found = traffic(shape, Demand(1024), 0)
    experts = [t for t in shape.tensors if "_exps." in t.name]
    assert experts
    unused = 3 * sum(t.elements for t in experts) // 4
    lookup = sum(t.elements for t in shape.tensors if t.name.startswith("token_embd"))
    assert found.parameters == shape.parameters - unused - lookup == shape.active_parameters - lookup
    assert found.weight_bytes < traffic(shape, Demand(1024), 0).weight_bytes + sum(t.bytes for t in experts)


def test_layers_that_are_shared_out_add_up_to_the_whole(tmp_path):
    shape, demand = shaped(tmp_path, DENSE), Demand(1024)
    first = traffic(shape, demand, 100, [0, 1], output=False)
    second = traffic(shape, demand, 100, [2, 3])
    whole = traffic(shape, demand, 100)
    for name in ("weight_bytes", "cache_bytes", "parameters", "prompt_parameters"):
        assert getattr(first, name) + getattr(second, name) == getattr(whole, name)


def test_a_layer_with_a_window_reads_no_more_than_that(tmp_path):
    shape = shaped(tmp_path, replace(DENSE, arch="gemma3", layers=6, tied=True, extra={"attention.sliding_window": 64}))
    windowed = sum(x.attention == "window" for x in shape.layers)
    assert windowed == 5
    row = Demand(1024).row_bytes(shape.layers[0].key_width, "f16") * 2
    assert traffic(shape, Demand(1024), 512).cache_bytes == row * (5 * 64 + 512)

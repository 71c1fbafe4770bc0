"""Files of other architectures, types, byte orders and in several parts, written by the ``gguf`` package and read by both."""

from __future__ import annotations

import pytest

gguf_py = pytest.importorskip("gguf")

import numpy as np  # noqa: E402
from ggufs import Shape, raw, write  # noqa: E402

from llamatelemetry_jupyter.errors import GGUFError  # noqa: E402
from llamatelemetry_jupyter.models import ggml, gguf  # noqa: E402
from llamatelemetry_jupyter.models.header import LongArray  # noqa: E402

LLAMA = Shape()
MOE = Shape("qwen3moe", experts=4, experts_used=2)
GEMMA = Shape("gemma3", extra={"attention.sliding_window": 512, "attention.layer_norm_rms_epsilon": 1e-6})
LAYERS = Shape(
    "openelm", layers=3, extra={"feed_forward_length_per_layer": [256, 512, 768], "flags": [True, False, True]}
)


def same_as_the_package(path):
    """Every key, array, tensor and byte of the header, as ``gguf.GGUFReader`` reads them."""
    ours, theirs = gguf.read_header(path), gguf_py.GGUFReader(path)
    keys = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert set(ours.metadata) == set(keys)
    for key, field in keys.items():
        expected = field.contents()
        if isinstance(expected, list):
            assert (
                list(gguf.array(ours, key)) == pytest.approx(expected)
                if isinstance(expected[0], float)
                else list(gguf.array(ours, key)) == expected
            )
        elif isinstance(expected, float):
            assert ours.metadata[key] == pytest.approx(expected)
        else:
            assert ours.metadata[key] == expected
            assert type(ours.metadata[key]) is type(expected)
    assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.kind, mine.dimensions, mine.offset) == (
            other.tensor_type.name,
            tuple(other.shape.tolist()),
            other.data_offset,
        )
        assert (mine.bytes, mine.elements) == (other.n_bytes, other.n_elements)
    assert ours.parts[0].data_offset == theirs.data_offset
    return ours


@pytest.mark.parametrize("shape", [LLAMA, MOE, GEMMA, LAYERS], ids=lambda s: s.arch)
def test_every_field_is_what_the_gguf_package_reads(tmp_path, shape):
    header = same_as_the_package(write(tmp_path / "m.gguf", shape))
    assert (header.architecture, header.order, header.quant) == (shape.arch, "<", "F16")
    assert header.parameters == sum(np.prod(t.dimensions) for t in header.tensors)


def test_the_demo_model_is_what_the_gguf_package_reads(model_path):
    same_as_the_package(model_path)


def test_a_big_endian_file_is_read_but_not_served(tmp_path):
    path = write(tmp_path / "m.gguf", LAYERS, endianess=gguf_py.GGUFEndian.BIG)
    header = same_as_the_package(path)
    assert (header.order, header.metadata["openelm.feed_forward_length_per_layer"]) == (">", (256, 512, 768))
    assert gguf.array(header, "tokenizer.ggml.tokens")[:2] == ("<|start|>", "<|end|>")
    with pytest.raises(GGUFError, match="is big endian"):
        gguf.check(path)


def test_version_2_differs_in_nothing_but_its_number(tmp_path):
    path = write(tmp_path / "m.gguf", LLAMA)
    raw_bytes = bytearray(path.read_bytes())
    raw_bytes[4] = 2
    path.write_bytes(raw_bytes)
    assert same_as_the_package(path).version == 2


def test_tensors_of_every_type_have_their_size(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf_py.GGUFWriter(path, "llama")
    kinds = [kind for kind in gguf_py.GGMLQuantizationType if kind.name != "Q8_1"]
    for kind in kinds:
        if kind.name in ("F32", "F16"):
            writer.add_tensor(kind.name, raw(kind.name, 512, 3)[0])
        else:
            writer.add_tensor(kind.name, raw(kind.name, 512, 3)[0], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = same_as_the_package(path)
    assert {t.kind for t in header.tensors} == {kind.name for kind in kinds}
    assert {name for name, _, _ in ggml.TENSOR_TYPES.values()} - {t.kind for t in header.tensors} == {"Q8_1", "Q2_0"}
    assert header.tensors[-1].offset + header.tensors[-1].bytes <= header.file_bytes


def test_a_type_of_tomorrow_is_named_and_one_of_yesterday_refused(tmp_path):
    path = write(tmp_path / "m.gguf", Shape(layers=1))
    good = path.read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = good.index(name) + len(name) + 4 + 16
    for number, kind in ((77, "type 77"), (31, "Q4_0_4_4")):
        path.write_bytes(good[:at] + number.to_bytes(4, "little") + good[at + 4 :])
        found = next(t for t in gguf.read_header(path).tensors if t.name == name.decode())
        assert (found.kind, found.bytes, found.elements) == (kind, None, 256 * 512)
    with pytest.raises(GGUFError, match="uses Q4_0_4_4, which engines no longer read"):
        gguf.check(path)


@pytest.fixture
def split(tmp_path):
    """The same model in one file and in parts."""
    whole = write(tmp_path / "whole.gguf", LLAMA)
    write(tmp_path / "model.gguf", LLAMA, split_max_tensors=8)
    return whole, sorted(tmp_path.glob("model-*.gguf"))


def test_a_model_in_parts_is_one_model(split):
    whole, parts = split
    assert [p.name for p in parts] == [f"model-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    one, several = gguf.check(whole), gguf.check(parts[0])
    assert [(t.name, t.kind, t.dimensions, t.bytes) for t in several.tensors] == [
        (t.name, t.kind, t.dimensions, t.bytes) for t in one.tensors
    ]
    assert {t.part for t in several.tensors} == {0, 1, 2}
    assert several.file_bytes == sum(p.stat().st_size for p in parts)
    assert isinstance(several.metadata["llama.block_count"], int)


def test_a_part_that_is_missing_or_wrong_is_named(split):
    _, parts = split
    with pytest.raises(GGUFError, match="is part 2 of a model: the first part stands for all") as problem:
        gguf.check(parts[1])
    assert problem.value.hint.endswith("model-00001-of-00003.gguf")
    lone = parts[0].with_name("renamed.gguf")
    lone.write_bytes(parts[0].read_bytes())
    with pytest.raises(GGUFError, match="is one of 3 files"):
        gguf.check(lone)
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(GGUFError, match="is not part 2 of"):
        gguf.check(parts[0])
    parts[2].unlink()
    parts[1].unlink()
    with pytest.raises(GGUFError, match=r"there is no file .*model-00002-of-00003\.gguf"):
        gguf.check(parts[0])


def test_long_number_arrays_are_read_in_both_orders(tmp_path):
    for order in gguf_py.GGUFEndian:
        path = tmp_path / f"{order.name}.gguf"
        writer = gguf_py.GGUFWriter(path, "llama", endianess=order)
        writer.add_token_scores([n / 4 for n in range(3000)])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        header = gguf.read_header(path)
        assert isinstance(header.metadata["tokenizer.ggml.scores"], LongArray)
        assert gguf.array(header, "tokenizer.ggml.scores") == tuple(n / 4 for n in range(3000))

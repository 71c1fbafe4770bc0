"""What a GGUF file says about itself, and how a damaged one is noticed before an engine is started on it."""

from __future__ import annotations

import os
import struct

import pytest

from llamatelemetry_jupyter.errors import GGUFError
from llamatelemetry_jupyter.models import ggml, gguf
from llamatelemetry_jupyter.models.header import LongArray


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, packed):
    return text(key) + struct.pack("<I", kind) + packed


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def build(path, keys=(ARCHITECTURE,), tensors=((4, 2),), version=3, data=b"\0" * 64, counts=None):
    """A GGUF file; every tensor is F32 of the given dimensions, all at offset 0."""
    infos = b"".join(
        text(f"t{i}") + struct.pack("<I", len(d)) + struct.pack(f"<{len(d)}Q", *d) + struct.pack("<IQ", 0, 0)
        for i, d in enumerate(tensors)
    )
    tensor_count, key_count = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(keys) + infos
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path


def test_the_demo_model_describes_itself(model_path):
    header = gguf.check(model_path)
    assert (header.architecture, header.quant, header.context_length) == ("llama", "Q4_1", 8192)
    assert (header.block_count, header.embedding_length, header.head_count, header.head_count_kv) == (30, 576, 9, 3)
    assert (header.vocab_size, header.tensor_count, header.file_bytes) == (49152, 272, 98_362_432)
    assert "im_start" in header.metadata["tokenizer.chat_template"]
    assert max(t.offset + t.bytes for t in header.tensors) == header.file_bytes


def test_sizes_of_tensor_types_are_those_of_the_gguf_package():
    constants = pytest.importorskip("gguf.constants")
    for kind, (block, size) in constants.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # never in a file; the package counts 4 bytes too many (block_q8_1 in ggml-common.h)
            assert ggml.TENSOR_TYPES[kind] == (kind.name, block, size)


def test_every_tensor_type_of_the_engine_is_known():
    xllamacpp = pytest.importorskip("xllamacpp")
    theirs = {t.value: t.name.removeprefix("GGML_TYPE_") for t in xllamacpp.ggml_type}
    theirs.pop(max(theirs))  # GGML_TYPE_COUNT
    assert {number: name for number, (name, _, _) in ggml.TENSOR_TYPES.items()} == theirs


def test_long_arrays_stay_in_the_file_until_they_are_asked_for(model_path):
    header = gguf.read_header(model_path)
    found = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(found, LongArray)
    assert found.length == 49152
    assert gguf.array(header, "tokenizer.ggml.tokens")[:2] == ("<|endoftext|>", "<|im_start|>")
    types = gguf.array(header, "tokenizer.ggml.token_type")
    assert (len(types), set(types)) == (49152, {1, 3})
    with pytest.raises(KeyError):
        gguf.array(header, "general.name")


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path):
    path = build(tmp_path / "m.gguf")
    first = gguf.read_header(path)
    assert gguf.read_header(path) is first
    build(path, tensors=((4, 4),))
    assert gguf.read_header(path).parameters == 16


def test_a_file_that_nothing_can_be_read_from_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(GGUFError, match="not a regular file"):
        gguf.read_header(tmp_path / "pipe.gguf")


def test_values_per_layer_are_kept_and_long_arrays_counted(tmp_path):
    heads = pair("llama.attention.head_count", 9, struct.pack("<IQ3I", 4, 3, 8, 8, 4))
    tokens = pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2000) + text("ab") * 2000)
    header = gguf.read_header(build(tmp_path / "m.gguf", (ARCHITECTURE, heads, tokens)))
    assert header.head_count == (8, 8, 4)
    assert header.vocab_size == 2000


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.write_bytes(b"not a model at all, just words"), "is not a GGUF file"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_bytes(b"GGUF\3\0\0\0"), "is truncated"),
        (lambda p: build(p, version=1), "GGUF version 1"),
        (lambda p: build(p, version=3 << 24), "claims"),  # the byte order of the version, not of what follows
        (lambda p: build(p, (ARCHITECTURE, ARCHITECTURE)), "twice"),
        (lambda p: build(p, (ARCHITECTURE, pair("", 0, b"1"))), "unnamed"),
        (
            lambda p: build(p, (ARCHITECTURE, pair("general.type", 8, text("adapter")))),
            "is a LoRA adapter, not a model",
        ),
        (lambda p: build(p, (ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 9, 1)))), "array of unknown type 9"),
        (lambda p: build(p, tensors=((1 << 40, 1 << 40),)), "elements"),
        (lambda p: build(p, tensors=((2, 2), (2, 2))), "'t1' at 0, not 32"),
        (lambda p: build(p, counts=(1, 1 << 60)), "or damaged"),
        (lambda p: build(p, counts=(1 << 62, 1)), "or damaged"),
        (lambda p: build(p, (pair("k", 8, struct.pack("<Q", 1 << 50)),)), "is truncated"),
        (lambda p: build(p, (ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 8, 1 << 61)))), "truncated or damaged"),
        (lambda p: build(p, (ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 10, 1 << 61)))), "is truncated"),
        (lambda p: build(p, (ARCHITECTURE, pair("k", 77, b""))), "unknown type 77"),
        (lambda p: build(p, ()), "does not name its architecture"),
        (lambda p: build(p, (ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 0)))), "alignment"),
        (lambda p: build(p, tensors=((2,) * 9,)), "9 dimensions"),
        (lambda p: build(p, tensors=((1 << 40,),)), "its weights end at byte 4,398"),
        (lambda p: build(p, tensors=()), "holds no tensors"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: None, "there is no file"),
    ],
)
def test_every_kind_of_damage_is_named_in_two_lines(tmp_path, make, said):
    path = tmp_path / "m.gguf"
    make(path)
    with pytest.raises(GGUFError, match=said) as problem:
        gguf.check(path)
    assert len(problem.value._render_traceback_()) == 2


def test_a_file_cut_anywhere_is_noticed(tmp_path, model_path):
    whole = model_path.read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (5, 23, 24, 100, 5_000, 1_000_000, 1_785_664, 50_000_000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(GGUFError, match="truncated"):
            gguf.check(path)

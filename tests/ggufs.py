"""Small GGUF files of any architecture, written with the ``gguf`` package: random weights, shapes that the real engine loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Types = gguf.GGMLQuantizationType
#: The file type that a model of one tensor type claims.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K": 15, "Q6_K": 18, "IQ4_NL": 25}


@dataclass(frozen=True)
class Shape:
    """A model's measures; ``extra`` are keys of the architecture beside the usual ones (arrays as lists)."""

    arch: str = "llama"
    layers: int = 2
    embd: int = 256
    ff: int = 512
    heads: int = 4
    kv_heads: int | tuple[int, ...] = 2
    head: int = 64
    vocab: int = 512
    kind: str = "F16"
    tied: bool = True
    experts: int = 0
    experts_used: int = 0
    train_ctx: int = 32768
    extra: Mapping[str, Any] = field(default_factory=dict)


def raw(kind: str, *dimensions: int, seed: int = 0) -> tuple[np.ndarray, Types]:
    """Random bytes of a tensor with ``dimensions`` as ggml counts them (the row's length first); scales are harmless."""
    block, size = gguf.GGML_QUANT_SIZES[Types[kind]]
    rows = dimensions[::-1]
    rng = np.random.default_rng(seed)
    if kind in ("F32", "F16"):
        return rng.standard_normal(rows).astype(np.float32 if kind == "F32" else np.float16) * 0.02, Types[kind]
    # A block of zeros is a block of zero weights in every quantisation, and a file of zeros is quick to write.
    return np.zeros((*rows[:-1], rows[-1] // block * size), dtype=np.uint8), Types[kind]


def tokens(count: int) -> list[str]:
    """A byte-level vocabulary: the 256 bytes as GPT-2 writes them, a few specials, then words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    words = ["<|start|>", "<|end|>", *letters]
    return words + [f"word{n}" for n in range(count - len(words))]


def add_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens(count))
    writer.add_token_types([3, 3] + [1] * (count - 2))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def write(path: Path, shape: Shape, **writer_options: Any) -> Path:
    """The model of ``shape`` at ``path``; options go to ``GGUFWriter`` (``endianess``, ``split_max_tensors``)."""
    writer = gguf.GGUFWriter(path, shape.arch, **writer_options)
    writer.add_name("tiny")  # the engine looks for "phi3" in it and then for that model's tokens
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.train_ctx)
    writer.add_embedding_length(shape.embd)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads if isinstance(shape.kv_heads, int) else list(shape.kv_heads))
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(FILE_TYPES[shape.kind])
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.ff)
    for key, value in shape.extra.items():
        name = f"{shape.arch}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    add_vocabulary(writer, shape.vocab)
    for number, (name, kind, dimensions) in enumerate(tensors(shape)):
        data, dtype = raw(kind, *dimensions, seed=number)
        writer.add_tensor(name, data, raw_dtype=None if data.dtype in (np.float32, np.float16) else dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(shape: Shape) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and dimensions of every tensor that the engine asks for."""
    e = shape.embd
    norm = "token_embd_norm.weight" if shape.arch == "lfm2" else "output_norm.weight"
    found: list[tuple[str, str, tuple[int, ...]]] = [
        ("token_embd.weight", shape.kind, (e, shape.vocab)),
        (norm, "F32", (e,)),
    ]
    if not shape.tied:
        found.append(("output.weight", shape.kind, (e, shape.vocab)))
    for n in range(shape.layers):
        heads = shape.kv_heads if isinstance(shape.kv_heads, int) else shape.kv_heads[n]
        layer = [("attn_norm", "F32", (e,)), *mixer(shape, heads * shape.head), ("ffn_norm", "F32", (e,))]
        layer += feed_forward(shape)
        if shape.arch.startswith(("gemma2", "gemma3")):
            layer += [("post_attention_norm", "F32", (e,)), ("post_ffw_norm", "F32", (e,))]
        found += [(f"blk.{n}.{name}.weight", kind, dims) for name, kind, dims in layer]
        if shape.arch == "qwen2":
            sizes = {"q": shape.heads * shape.head, "k": heads * shape.head, "v": heads * shape.head}
            found += [(f"blk.{n}.attn_{x}.bias", "F32", (size,)) for x, size in sizes.items()]
    return found


def mixer(shape: Shape, kv: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """What mixes tokens in a layer: attention with ``kv`` key elements, or LFM2's convolution where there are none."""
    e, q = shape.embd, shape.heads * shape.head
    if shape.arch == "lfm2" and not kv:
        taps = shape.extra["shortconv.l_cache"]
        return [
            ("shortconv.conv", "F32", (taps, e)), ("shortconv.in_proj", shape.kind, (e, 3 * e)),
            ("shortconv.out_proj", shape.kind, (e, e)),
        ]  # fmt: skip
    if shape.arch == "phi3":
        return [("attn_qkv", shape.kind, (e, q + 2 * kv)), ("attn_output", shape.kind, (q, e))]
    found = [(f"attn_{x}", shape.kind, (e, q if x == "q" else kv)) for x in "qkv"]
    found.append(("attn_output", shape.kind, (q, e)))
    if shape.arch.startswith(("qwen3", "gemma3", "lfm2")):
        found += [("attn_q_norm", "F32", (shape.head,)), ("attn_k_norm", "F32", (shape.head,))]
    return found


def feed_forward(shape: Shape) -> list[tuple[str, str, tuple[int, ...]]]:
    """The part of a layer that is wider than the rest: dense, fused, or experts."""
    e, ff = shape.embd, shape.ff
    if shape.experts:
        found = [("ffn_gate_inp", "F32", (e, shape.experts))]
        found += [(f"ffn_{part}_exps", shape.kind, (e, ff, shape.experts)) for part in ("gate", "up")]
        return [*found, ("ffn_down_exps", shape.kind, (ff, e, shape.experts))]
    if shape.arch == "phi3":
        return [("ffn_up", shape.kind, (e, 2 * ff)), ("ffn_down", shape.kind, (ff, e))]
    return [*((f"ffn_{part}", shape.kind, (e, ff)) for part in ("gate", "up")), ("ffn_down", shape.kind, (ff, e))]

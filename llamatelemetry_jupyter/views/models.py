"""What a model file holds: a picture of its memory by layer with tables below, and text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .. import escape
from ..models.demand import Demand, kv_bytes
from ..models.header import GGUFHeader, TensorInfo
from ..models.shape import ModelShape
from . import svg
from .bars import Bar, columns
from .format import NA, count, short, size
from .text import Table

_TOKENIZERS = {"gpt2": "BPE", "llama": "SentencePiece", "bert": "WordPiece", "t5": "Unigram", "rwkv": "RWKV"}
#: Parts of a model by the names of their tensors, the first that matches.
_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("experts", re.compile(r"_(ch)?exps\.")),
    ("attention", re.compile(r"\.attn_(?!norm|post_norm)")),
    ("feed-forward", re.compile(r"\.ffn_(?!norm|post_norm)")),
    ("recurrent", re.compile(r"\.(ssm|time_mix|channel_mix|shortconv)")),
    ("embeddings", re.compile(r"^(token_embd|position_embd|per_layer_token_embd)\.")),
    ("output", re.compile(r"^output\.weight")),
)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model's header: ``summary``, ``tensors`` by part, ``layers`` in runs of equal ones. Shows itself."""

    title: str
    summary: Table
    tensors: Table
    layers: Table
    picture: str

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in (self.summary, self.tensors, self.layers) if table.rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(table._repr_html_() for table in (self.summary, self.tensors, self.layers) if table.rows)
        return svg.image(self.picture, f"Memory by layer of {self.title}; the tables below hold the numbers.") + tables


def model_view(header: GGUFHeader, shape: ModelShape, demand: Demand) -> ModelView:
    """Everything worth knowing of a model before it is loaded; the cache is that of ``demand``."""
    title = short(escape.plain(header.name or header.architecture or "a GGUF file"), 60)
    cache = [kv_bytes(shape, demand, layer) for layer in shape.layers]
    note = f"KV cache: {count(demand.ctx)} tokens per slot, {demand.slots} × {demand.kv_type}"
    bars = [Bar("in", {"weights": _bytes(shape.input_tensors), "kv": 0})]
    bars += [
        Bar(str(layer.index), {"weights": layer.weight_bytes, "kv": kv})
        for layer, kv in zip(shape.layers, cache, strict=True)
    ]
    own_output = [t for t in shape.output_tensors if t.name != "token_embd.weight"]
    bars.append(Bar("out", {"weights": _bytes(own_output), "kv": 0}))
    drawn = columns(f"{title}: memory by layer", bars, note)
    return ModelView(title, _summary(header, shape), _tensors(shape), _layers(shape, cache), drawn)


def _bytes(tensors: Sequence[TensorInfo]) -> int:
    return sum(tensor.bytes or 0 for tensor in tensors)


def _summary(header: GGUFHeader, shape: ModelShape) -> Table:
    files = f" in {len(header.parts)} files" if len(header.parts) > 1 else ""
    parameters = count(shape.parameters)
    if shape.experts:
        parameters += f", {count(shape.active_parameters)} active for a token"
    bits = 8 * header.weight_bytes / max(shape.parameters, 1)
    kind = header.text("tokenizer.ggml.model")
    tokenizer = _TOKENIZERS.get(kind or "", kind) or NA
    rows = [
        ("architecture", header.architecture + (" (cache not modelled)" if shape.approximate else "")),
        ("parameters", parameters),
        ("quantisation", f"{header.quant or NA}, {bits:.2f} bits a weight"),
        ("size", f"{size(header.file_bytes)}{files}; GGUF {header.version}, {_order(header)} endian"),
        ("context", f"{count(shape.context_length)} tokens{_rope(header)}"),
        ("layers", f"{len(shape.layers)} of width {count(shape.width)}, {_kinds(shape)}"),
        ("heads", f"{_range(x.heads for x in shape.layers)}, key/value {_range(x.kv_heads for x in shape.layers)}"),
    ]
    if shape.experts:
        rows.append(("experts", f"{shape.experts}, {shape.experts_used} used for a token"))
    template = header.chat_template
    rows += [
        ("tokenizer", f"{tokenizer}, {count(shape.vocabulary or None)} tokens"),
        ("chat template", f"{count(len(template))} characters" if template else "none"),
    ]
    licence = header.text("general.license")
    if licence:
        rows.append(("licence", licence))
    return Table(("what", "value"), tuple((name, short(escape.plain(text), 96)) for name, text in rows))


def _order(header: GGUFHeader) -> str:
    return "little" if header.order == "<" else "big"


def _rope(header: GGUFHeader) -> str:
    kind = header.text(f"{header.architecture}.rope.scaling.type")
    original = header.own("rope.scaling.original_context_length")
    base = header.metadata.get(f"{header.architecture}.rope.freq_base")
    said = [f"RoPE base {base:,.0f}"] if isinstance(base, float) and 0 < base < 1e12 else []
    if kind and kind != "none":
        said.append(f"scaling {short(kind, 20)}" + (f" from {original:,}" if original else ""))
    return f"; {', '.join(said)}" if said else ""


def _kinds(shape: ModelShape) -> str:
    parts = []
    for kind, said in (("full", "attention"), ("window", f"window of {count(shape.window)}"), ("none", "no cache")):
        number = sum(layer.attention == kind for layer in shape.layers)
        if number:
            parts.append(f"{number} {said}")
    recurrent = sum(layer.state_bytes > 0 for layer in shape.layers)
    return ", ".join([*parts, f"{recurrent} recurrent"] if recurrent else parts) or NA


def _range(values: Iterable[int]) -> str:
    seen = sorted(set(values))
    return NA if not seen else str(seen[0]) if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"


def _tensors(shape: ModelShape) -> Table:
    groups: dict[str, list[TensorInfo]] = {}
    for tensor in shape.tensors:
        part = next((name for name, pattern in _PARTS if pattern.search(tensor.name)), "norms and others")
        groups.setdefault(part, []).append(tensor)
    order = [name for name, _ in _PARTS] + ["norms and others"]
    rows = []
    for part in sorted(groups, key=order.index):
        tensors = groups[part]
        kinds = sorted({t.kind for t in tensors}, key=lambda k: -_bytes([t for t in tensors if t.kind == k]))
        total = "n/a" if any(t.bytes is None for t in tensors) else size(_bytes(tensors))
        elements = sum(t.elements for t in tensors)
        rows.append((part, count(len(tensors)), count(elements), short(", ".join(kinds), 40), total))
    right = frozenset({"tensors", "parameters", "bytes"})
    return Table(("part", "tensors", "parameters", "types", "bytes"), tuple(rows), right)


def _layers(shape: ModelShape, cache: Sequence[int]) -> Table:
    rows = []
    facts = [(x.attention, x.weight_bytes, kv) for x, kv in zip(shape.layers, cache, strict=True)]
    start = 0
    for (attention, weights, kv), run in groupby(facts):
        length = len(list(run))
        name = str(start) if length == 1 else f"{start} to {start + length - 1}"
        said = {"full": "all tokens", "window": f"{count(shape.window)} tokens", "none": "recurrent or none"}[attention]
        rows.append((name, said, size(weights), size(kv)))
        start += length
    right = frozenset({"weights each", "KV cache each"})
    return Table(("layer", "sees", "weights each", "KV cache each"), tuple(rows), right)

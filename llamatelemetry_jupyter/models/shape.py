"""A model's layers as its memory sees them: weights, key/value heads, windows, recurrent state.

What a file leaves out is filled in as llama.cpp does (src/llama-hparams.cpp, src/models/*.cpp, build 11434); an
architecture with a cache of its own kind is marked as such instead of being computed wrongly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ._reader import damaged
from .header import GGUFHeader, TensorInfo

#: LLAMA_MAX_LAYERS; LLAMA_MAX_EXPERTS (llama-hparams.h).
_MAX_LAYERS = 512
_MAX_EXPERTS = 1024

_BLOCK = re.compile(r"blk\.(\d+)\.")
#: Tensors that are looked up, not multiplied: the engine keeps them on the host (LLM_TENSOR_LAYER_INPUT).
_INPUT = re.compile(r"(token_embd|token_types|position_embd|per_layer_token_embd|token_embd_norm)\.")
_EXPERTS = re.compile(r"_(ch)?exps\.")


@dataclass(frozen=True, slots=True)
class _Window:
    """Which layers of an architecture see only a window: all but one in ``period``, the last or the ``first``.

    ``tokens`` is what the engine takes where the file says nothing; ``needed``: without the key there is no window.
    """

    period: int | None
    first: bool = False
    tokens: int | None = None
    needed: bool = False


#: Only these architectures have windowed caches; a window in the file of another one is not used (phi3, mistral).
_WINDOWS: dict[str, _Window] = {
    "afmoe": _Window(4, needed=True),
    "cohere2": _Window(4),
    "cohere2moe": _Window(4, first=True),
    "exaone-moe": _Window(4, tokens=128),
    "exaone4": _Window(4, tokens=4096),
    "gemma2": _Window(2, tokens=4096),
    "gemma3": _Window(6, needed=True),
    "gemma3n": _Window(5),
    "gemma4": _Window(None),
    "gpt-oss": _Window(2),
    "granite_swa": _Window(None),
    "laguna": _Window(4, first=True, needed=True),
    "lfm2": _Window(0, needed=True),
    "llama4": _Window(4, tokens=8192),
    "maple": _Window(None),
    "mellum": _Window(4, needed=True),
    "mimo2": _Window(None),
    "muse-glimmer": _Window(4),
    "olmo2": _Window(4, needed=True),
    "plamo3": _Window(8, needed=True),
    "smallthinker": _Window(4, first=True, tokens=4096, needed=True),
    "spark2_5": _Window(None),
    "step35": _Window(None),
}
#: Every layer has a state of fixed size and none a cache.
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
#: A layer without key/value heads is a recurrent one.
_HYBRID_BY_HEADS = frozenset(
    {
        "jamba",
        "plamo2",
        "granitehybrid",
        "lfm2",
        "lfm2moe",
        "kimi-linear",
        "bailingmoe3",
        "nemotron_h",
        "nemotron_h_moe",
    }
)
#: Three of four layers are recurrent, or as the file says.
_HYBRID_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
#: Bidirectional or diffusion models: nothing is cached.
_NO_CACHE = frozenset(
    {
        "bert", "clef", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
        "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec",
    }
)  # fmt: skip
#: Caches of their own kind (sparse attention with an index, compressed states): counted as plain ones, and said so.
_OTHER_CACHE = frozenset(
    {
        "deepseek32", "deepseek4", "dflash", "dots3note", "eagle3", "gemma4-assistant", "glm-dsa", "glm5-next", "hy_v4",
        "kimi-k3", "minimax-01", "minimax-m3", "qwen4exp",
    }
)  # fmt: skip

Attention = Literal["full", "window", "none"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. ``key_width`` and ``value_width`` are elements per token in the cache, 0 where it has none.

    ``state_bytes`` is a recurrent layer's state per slot; ``expert_bytes`` is the part of ``weight_bytes`` that is
    routed experts.
    """

    index: int
    attention: Attention
    heads: int
    kv_heads: int
    key_width: int
    value_width: int
    state_bytes: int
    weight_bytes: int
    expert_bytes: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a plan needs to know of a model; ``approximate`` says why its cache can only be estimated, else ``None``."""

    architecture: str
    quant: str | None
    parameters: int
    width: int
    feed_forward: int
    vocabulary: int
    context_length: int | None
    window: int | None
    experts: int
    experts_used: int
    layers: tuple[Layer, ...]
    tensors: tuple[TensorInfo, ...]
    approximate: str | None

    @property
    def input_tensors(self) -> tuple[TensorInfo, ...]:
        """Weights that stay on the host wherever the layers go: the token embeddings."""
        return tuple(t for t in self.tensors if _INPUT.match(t.name))

    @property
    def output_tensors(self) -> tuple[TensorInfo, ...]:
        """Weights behind the last layer; a model without an output matrix uses its embeddings a second time."""
        found = tuple(t for t in self.tensors if not _BLOCK.match(t.name) and not _INPUT.match(t.name))
        if any(t.name == "output.weight" for t in found):
            return found
        return (*found, *(t for t in self.tensors if t.name == "token_embd.weight"))

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes: of the experts only those that are used."""
        experts = sum(t.elements for t in self.tensors if _EXPERTS.search(t.name))
        return self.parameters - experts + (experts * self.experts_used // self.experts if self.experts else 0)

    def layer_tensors(self, index: int, experts: bool | None = None) -> tuple[TensorInfo, ...]:
        """The weights of one layer; with ``experts`` only those of routed experts, or only the others."""
        return tuple(
            t
            for t in self.tensors
            if t.name.startswith(f"blk.{index}.") and experts in (None, _EXPERTS.search(t.name) is not None)
        )


def shape_of(header: GGUFHeader) -> ModelShape:
    """The shape of the model in ``header``, every field as the engine would set it.

    Raises GGUFError for more layers or experts than any engine takes.
    """
    arch = header.architecture
    count, experts = header.block_count or 0, header.own("expert_count") or 0
    if count > _MAX_LAYERS or experts > _MAX_EXPERTS:
        raise damaged(header.parts[0].where, f"claims {count:,} layers and {experts:,} experts: it is damaged")
    attending = max(
        count - (header.own("nextn_predict_layers") or 0), 0
    )  # the others predict ahead, and are not loaded
    window, windowed = _windows(header, attending)
    used = max(_each(header.own_each("expert_used_count"), max(count, 1), 0)) if experts else 0
    return ModelShape(
        architecture=arch,
        quant=header.quant,
        parameters=header.parameters,
        width=header.embedding_length or 0,
        feed_forward=max(_each(header.own_each("feed_forward_length"), max(count, 1), 0)),
        vocabulary=header.vocab_size or 0,
        context_length=header.context_length,
        window=window,
        experts=experts,
        experts_used=min(used, experts),
        layers=tuple(_layers(header, attending, windowed)),
        tensors=header.tensors,
        approximate=f"{arch} keeps a cache of its own kind" if arch in _OTHER_CACHE else None,
    )


def _each(found: int | tuple[int, ...] | None, count: int, default: int) -> tuple[int, ...]:
    """One value per layer."""
    values = found if isinstance(found, tuple) else (default if found is None else found,) * count
    return (*values, *(default,) * (count - len(values)))[:count]


def _windows(header: GGUFHeader, count: int) -> tuple[int | None, tuple[bool, ...]]:
    """The window in tokens, and for each layer whether it sees no more than that."""
    none = (None, (False,) * count)
    known = _WINDOWS.get(header.architecture)
    tokens = header.own("attention.sliding_window")
    if known is None or (known.needed and not tokens) or (header.architecture == "exaone4" and count != 64):
        return none
    if header.architecture in ("llama4", "smallthinker"):  # the key is a switch there, the size the engine's own
        tokens = known.tokens if tokens != 0 else 0
    tokens = known.tokens if tokens is None else tokens
    if not tokens:
        return none
    pattern = header.own_each("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return tokens, tuple(bool(x) for x in _each(pattern, count, 0))
    period = known.period if pattern is None else pattern
    if period is None:
        return none
    if header.architecture == "lfm2":
        return tokens, tuple(heads > 0 for heads in _each(header.head_count_kv, count, 0))
    if period == 0:
        return tokens, (True,) * count
    full = 0 if known.first else period - 1
    return tokens, tuple(index % period != full for index in range(count))


def _recurrent(header: GGUFHeader, count: int) -> tuple[bool, ...]:
    arch = header.architecture
    if arch in _RECURRENT or arch == "falcon-h1":
        return (True,) * count
    if arch in _HYBRID_BY_HEADS:
        heads = _each(header.head_count_kv, count, 0)
        if not arch.startswith("nemotron_h"):
            return tuple(n == 0 for n in heads)
        feed = _each(header.own_each("feed_forward_length"), count, 0)
        return tuple(n == 0 and f == 0 for n, f in zip(heads, feed, strict=True))
    if arch in _HYBRID_BY_INTERVAL:
        said = header.own_each("attention.recurrent_layers")
        if isinstance(said, tuple):
            return tuple(bool(x) for x in _each(said, count, 0))
        interval = header.own("full_attention_interval") or 4
        return tuple((index + 1) % interval != 0 for index in range(count))
    return (False,) * count


def _state_bytes(header: GGUFHeader, heads: int) -> int:
    """Bytes of a recurrent layer's state per slot, in F32 (llama_hparams::n_embd_r, n_embd_s)."""
    width = header.embedding_length or 0
    kernel = header.own("ssm.conv_kernel") or 0
    if head := header.own("wkv.head_size"):
        return 4 * width * ((header.own("token_shift_count") or 2) + head)
    if taps := header.own("shortconv.l_cache"):
        return 4 * width * (taps - 1)
    if head := header.own("kda.head_dim"):
        return 4 * (3 * (kernel - 1 if kernel else 3) * heads * head + head * head * heads)
    inner, state = header.own("ssm.inner_size") or 0, header.own("ssm.state_size") or 0
    groups = header.own("ssm.group_count") or 0
    return 4 * (max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner)


def _layers(header: GGUFHeader, count: int, windowed: tuple[bool, ...]) -> list[Layer]:
    arch = header.architecture
    heads = _each(header.head_count, count, 0)
    kv_heads = _each(header.head_count_kv, count, 0)
    recurrent = _recurrent(header, count)
    first = heads[0] if heads else 0
    default = (header.embedding_length or 0) // first if first else 0
    key, value = header.own("attention.key_length"), header.own("attention.value_length")
    full = (default if key is None else key, default if value is None else value)
    small = (header.own("attention.key_length_swa"), header.own("attention.value_length_swa"))
    keys_only = bool(header.own("attention.key_length_mla") and header.own("attention.value_length_mla"))
    own = {"gemma3n": 20, "gemma4": count - (header.own("attention.shared_kv_layers") or 0)}.get(arch, count)
    weights, experts = [0] * count, [0] * count
    for tensor in header.tensors:
        found = _BLOCK.match(tensor.name)
        if found and int(found[1]) < count:
            weights[int(found[1])] += tensor.bytes or 0
            if _EXPERTS.search(tensor.name):
                experts[int(found[1])] += tensor.bytes or 0
    layers = []
    for index in range(count):
        cached = (
            arch not in _RECURRENT
            and arch not in _NO_CACHE
            and index < own
            and kv_heads[index] > 0
            and (not recurrent[index] or arch == "falcon-h1")
        )
        lengths = [s or f if windowed[index] else f for s, f in zip(small, full, strict=True)]
        layers.append(
            Layer(
                index=index,
                attention=("window" if windowed[index] else "full") if cached else "none",
                heads=heads[index],
                kv_heads=kv_heads[index],
                key_width=lengths[0] * kv_heads[index] if cached else 0,
                value_width=lengths[1] * kv_heads[index] if cached and not keys_only else 0,
                state_bytes=_state_bytes(header, first) if recurrent[index] else 0,
                weight_bytes=weights[index],
                expert_bytes=experts[index],
            )
        )
    return layers

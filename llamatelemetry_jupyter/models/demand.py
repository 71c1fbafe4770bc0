"""How a model is to be run, and what follows before any weight is looked at: cells of context, bytes of cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import CommandError
from .ggml import TENSOR_TYPES
from .shape import Layer, ModelShape

#: The engine rounds a context, and a windowed cache, up to this many cells (llama-context.cpp, GGML_PAD(n_ctx, 256)).
CELLS = 256
_TYPES = {name.lower(): (block, size) for name, block, size in TENSOR_TYPES.values()}
_KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def quantised(kind: str) -> bool:
    """Whether a type of the cache consists of blocks."""
    return kind.startswith(("q", "iq"))


def padded(count: int, step: int = CELLS) -> int:
    """``count`` rounded up to a multiple of ``step``."""
    return -(-count // step) * step


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a server; ``ctx`` is tokens **per slot**. Raises CommandError for a value no engine takes."""

    ctx: int = 8192
    slots: int = 1
    #: Type of the cache's keys, and of its values where ``value_type`` says nothing else.
    kv_type: str = "f16"
    flash_attention: bool = True
    batch: int = 2048
    ubatch: int = 512
    #: One cache for all slots: each may take what the others leave.
    unified: bool = False
    #: ``layer``: layers are shared out among the GPUs; ``none``: the first takes all.
    split: Literal["layer", "none"] = "layer"
    value_type: str | None = None
    #: A server of embeddings: the last layers and the output are computed for every token.
    embeddings: bool = False

    def __post_init__(self) -> None:
        for name, most in (("ctx", 1 << 24), ("slots", 64), ("batch", 1 << 16), ("ubatch", 1 << 16)):
            if not 1 <= getattr(self, name) <= most:
                raise CommandError(f"--{name} must be from 1 to {most:,}", hint="%llama plan --help")
        for kind in (self.kv_type, self.values):
            if kind not in _KV_TYPES:
                raise CommandError(f"KV cache type {kind!r}: one of {', '.join(_KV_TYPES)}", hint="%llama plan --help")
        if quantised(self.values) and not self.flash_attention:
            raise CommandError(f"a {self.values} KV cache needs flash attention", hint="--flash on")

    @property
    def values(self) -> str:
        """Type of the cache's values."""
        return self.value_type or self.kv_type

    @property
    def cells(self) -> int:
        """Cells of one stream of the cache."""
        total = padded(self.ctx * self.slots)
        return total if self.unified else padded(total // self.slots)

    @property
    def streams(self) -> int:
        """Caches side by side."""
        return 1 if self.unified else self.slots

    @property
    def rows(self) -> int:
        """Tokens that are computed at once (llama-context.cpp: n_ubatch ≤ n_batch ≤ n_ctx)."""
        return min(self.ubatch, self.batch, padded(self.ctx * self.slots))

    @property
    def outputs(self) -> int:
        """Tokens of a batch for which the output is computed."""
        return padded(self.rows, self.slots) if self.embeddings else self.slots

    def window_cells(self, window: int) -> int:
        """Cells of one stream for layers that see only ``window`` tokens (llama-kv-cache-iswa.cpp)."""
        shared = self.slots if self.unified else 1
        return padded(min(self.cells, window * shared + self.rows))

    def row_bytes(self, width: int, kind: str) -> int:
        """Bytes of ``width`` cached elements; raises CommandError when they do not consist of whole blocks."""
        block, size = _TYPES[kind]
        if width % block:
            raise CommandError(f"this model's heads do not fit a {kind} KV cache (blocks of {block})", hint="--kv f16")
        return width // block * size


def kv_bytes(shape: ModelShape, demand: Demand, layer: Layer) -> int:
    """Bytes of one layer's cache in all slots, its recurrent state included (llama-kv-cache.cpp)."""
    value = layer.value_width
    if value and not demand.flash_attention:  # stored by columns then, all layers with the widest layer's stride
        value = max(each.value_width for each in shape.layers)
    cells = demand.cells
    if layer.attention == "window" and shape.window:
        cells = demand.window_cells(shape.window)
    cache = (
        demand.streams
        * cells
        * (demand.row_bytes(layer.key_width, demand.kv_type) + demand.row_bytes(value, demand.values))
    )
    return cache + demand.slots * layer.state_bytes

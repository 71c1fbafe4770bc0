"""Which form of a model suits a machine: the largest that fits is the best that runs.

What a model needs beside its weights is counted by :mod:`.plan` where its header can be read, else bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ModelError
from ..units import size
from .demand import Demand
from .gguf import read_model
from .plan import Device, placed
from .quants import Variant, told
from .shape import shape_of

#: What is taken where nobody knows the memory: the usual compromise first (llama.cpp's tools/perplexity/README.md,
#: Llama 3 8B: Q4_K_M costs 2.8 % of perplexity).
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0")
#: Twice the memory of Q8_0 for a perplexity that differs by 0.04 % (same table): only when asked for, or alone.
_FULL = ("F16", "BF16", "F32")
_TOKENS = 8192  # the most that a server takes as its context when none is named
_GPU_BYTES, _HOST_BYTES = 1536 << 20, 512 << 20


@dataclass(frozen=True, slots=True)
class Free:
    """Memory that can be had now, in bytes: of each GPU, and of the host."""

    gpus: tuple[int, ...]
    host_bytes: int

    @property
    def gpu_bytes(self) -> int:
        """Of all GPUs together."""
        return sum(self.gpus)


@dataclass(frozen=True, slots=True)
class Beside:
    """Bytes that a model needs beside its weights when it lies whole on the GPUs, and when on the host."""

    gpus: int
    host: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, and why it was taken in one line; ``why`` is ``None`` when there was nothing to choose."""

    variant: Variant
    why: str | None


def beside(where: str, free: Free) -> Beside | None:
    """What the plan counts for one slot with at most 8,192 tokens, its margin included; ``None``: no header to be had.

    ``where`` is a file or an address of any form of the model: caches and buffers do not depend on the form.
    """
    try:
        header = read_model(where)
        shape = shape_of(header)
    except ModelError:
        return None
    demand = Demand(ctx=min(_TOKENS, header.context_length or _TOKENS))
    gpus = [Device(f"GPU {number}", free_bytes, "gpu") for number, free_bytes in enumerate(free.gpus)]
    host = Device("host", free.host_bytes, "host")

    def counted(on_gpu: int) -> int:
        kind = "gpu" if on_gpu else "host"
        shares = placed(shape, gpus, host, demand, on_gpu).shares
        return sum(
            share.kv + share.compute + share.output + share.context + share.margin
            for share in shares
            if share.device.kind == kind
        )

    return Beside(counted(len(shape.layers) + 1) if gpus else 0, counted(0))


def bound(file_bytes: int, gpus: int) -> Beside:
    """An upper bound by rule of thumb where no header can be read.

    A fifth of the file for KV cache and compute buffers (Llama 3.1 8B, Q4_K_M: 8,192 tokens of KV cache are 1.0 GiB, a
    fifth is 0.9 GiB); on each GPU 1.5 GiB for what the engine's own fitting leaves free (common/fit.cpp: 1 GiB) and the
    context, on the host 0.5 GiB.
    """
    return Beside(file_bytes // 5 + gpus * _GPU_BYTES, file_bytes // 5 + _HOST_BYTES)


def place(file_bytes: int, free: Free, more: Beside | None = None) -> str | None:
    """Where a model of this size fits whole: ``GPU``, ``host``, or ``None``."""
    more = more or bound(file_bytes, len(free.gpus))
    if free.gpus and file_bytes + more.gpus <= free.gpu_bytes:
        return "GPU"
    return "host" if file_bytes + more.host <= free.host_bytes else None


def usual(offered: Sequence[Variant]) -> Variant:
    """The form that is taken where nobody knows the memory."""
    by_quant = {one.quant: one for one in reversed(offered)}
    return next((by_quant[one] for one in _USUAL if one in by_quant), offered[0])


def pick(
    name: str,
    offered: Sequence[Variant],
    quant: str | None = None,
    free: Free | None = None,
    more: Beside | None = None,
) -> Choice:
    """The variant called ``quant``; else the largest that fits ``free``; else the usual one.

    Raises ModelError when there is none, when ``quant`` is not offered, or when not even the smallest fits.
    """
    if not offered:
        raise ModelError(f"{name} offers no .gguf file", hint="%llama models list")
    if quant is not None:
        return Choice(_called(name, offered, quant), None)
    if len(offered) == 1:
        return Choice(offered[0], None)
    worth = [one for one in offered if one.quant not in _FULL] or list(offered)
    if free is None:
        return Choice(usual(worth), f"{told(usual(worth))}: the usual compromise")
    smallest = worth[0]
    fitting = [one for one in worth if place(one.bytes, free, more) == ("GPU" if free.gpus else "host")]
    if fitting:
        cards = "the GPU" if len(free.gpus) == 1 else f"{len(free.gpus)} GPUs"
        where = (
            f"{size(free.gpu_bytes)} free on {cards}" if free.gpus else f"{size(free.host_bytes)} free in this machine"
        )
        return Choice(fitting[-1], f"{told(fitting[-1])}: the largest that fits the {where}")
    if place(smallest.bytes, free, more) == "host":
        return Choice(smallest, f"{told(smallest)}: the smallest; a part of it will stay in the host's memory")
    needs = smallest.bytes + (more or bound(smallest.bytes, 0)).host
    raise ModelError(
        f"{name} needs about {size(needs)} in its smallest form; {size(max(free.gpu_bytes, free.host_bytes))} are free",
        hint="%llama models list",
    )


def _called(name: str, offered: Sequence[Variant], quant: str) -> Variant:
    found = [one for one in offered if one.quant == quant.upper()]
    if len(found) == 1:
        return found[0]
    if found:
        paths = ", ".join(one.files[0].path for one in found[:3])
        raise ModelError(f"{name} has {len(found)} files called {quant}: {paths}", hint="name the file instead")
    known = [one.quant for one in offered if one.quant]
    has = f"it has {', '.join(dict.fromkeys(known))}" if known else f"its files are {offered[0].files[0].path}, …"
    base = name.removesuffix(f":{quant}")
    raise ModelError(f"{base} has no {quant}; {has}", hint=f"{base}:{known[0]}" if known else "name the file instead")

"""The forms in which one model is offered, and which of them suits a machine.

A repository holds the same model in many quantisations, each one file or several. People should not have to know them:
the largest that fits is the best that runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._files import size
from ..errors import ModelError

#: Bits per weight of a whole file; llama.cpp's tools/quantize/README.md, measured on Llama 3.1 8B.
BITS: dict[str, float] = {
    "Q3_K_M": 4.00,
    "Q4_0": 4.64,
    "Q4_K_M": 4.89,
    "Q4_1": 5.11,
    "Q5_K_M": 5.70,
    "Q6_K": 6.56,
    "Q8_0": 8.50,
    "F16": 16.0,
}
#: What is taken where nobody knows the memory: the usual compromise first (same README: +2.8 % perplexity).
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0")
#: Twice the memory of Q8_0 for a perplexity that differs by 0.04 % (same README): only when asked for, or alone.
_FULL = ("F16", "BF16", "F32")

_NAMED = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4\w*))(?=(?:-\d{5}-of-\d{5})?\.gguf$)", re.IGNORECASE
)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
#: Files of a repository that are no model by themselves: vision projectors, importance matrices, draft heads.
_BESIDE = re.compile(r"(?:^|[-._/])(?:mmproj|imatrix)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class File:
    """A file that is offered: its path in the repository, its bytes and its SHA-256 (``None`` where nobody says)."""

    path: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a model: its quantisation's name (``None``: not in the name) and its files, the first one first."""

    quant: str | None
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Free:
    """Memory that can be had now, in bytes: of all GPUs together, how many they are, and of the host."""

    gpu_bytes: int
    gpus: int
    host_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, and why it was taken in one line; ``why`` is ``None`` when there was nothing to choose."""

    variant: Variant
    why: str | None


def quant_of(path: str) -> str | None:
    """The quantisation in a file's name: ``Qwen2.5-7B-Instruct-Q4_K_M.gguf`` → ``Q4_K_M``."""
    found = _NAMED.search(path.rsplit("/", 1)[-1])
    return None if found is None else re.sub(r"^FP", "F", found[1].upper())


def variants(files: Iterable[File]) -> list[Variant]:
    """The models among ``files``, the smallest first; a split one counts only when all its parts are there."""
    whole: dict[str, list[File]] = {}
    counts: dict[str, int] = {}
    for file in sorted(files, key=lambda one: one.path):
        if not file.path.lower().endswith(".gguf") or _BESIDE.search(file.path):
            continue
        part = _PART.fullmatch(file.path)
        stem = part[1] if part else file.path
        counts[stem] = int(part[3]) if part else 1
        whole.setdefault(stem, []).append(file)
    found = [
        Variant(quant_of(parts[0].path), tuple(parts)) for stem, parts in whole.items() if len(parts) == counts[stem]
    ]
    return sorted(found, key=lambda one: (one.bytes, one.files[0].path))


def needed_bytes(file_bytes: int, gpus: int = 0) -> int:
    """Memory that a model needs to run whole with some thousand tokens of context: an upper bound by rule of thumb.

    A fifth on top of the file for KV cache and compute buffers (Llama 3.1 8B, Q4_K_M: 8,192 tokens of KV cache are
    1.0 GiB, a fifth is 0.9 GiB); on each GPU 1.5 GiB for what the engine's own fitting leaves free (common/fit.cpp:
    1 GiB) and the context, on the host 0.5 GiB. ``%llama plan`` counts instead of guessing.
    """
    return file_bytes + file_bytes // 5 + (gpus * (1536 << 20) if gpus else 512 << 20)


def place(file_bytes: int, free: Free) -> str | None:
    """Where a model of this size fits whole: ``GPU``, ``host``, or ``None``."""
    if free.gpus and needed_bytes(file_bytes, free.gpus) <= free.gpu_bytes:
        return "GPU"
    return "host" if needed_bytes(file_bytes) <= free.host_bytes else None


def pick(name: str, offered: Sequence[Variant], quant: str | None = None, free: Free | None = None) -> Choice:
    """The variant called ``quant``; else the largest that fits ``free``; else the usual one.

    Raises ModelError when there is none, when ``quant`` is not offered, or when not even the smallest fits.
    """
    if not offered:
        raise ModelError(f"{name} offers no .gguf file", hint="%llama models list")
    if quant is not None:
        return Choice(_called(name, offered, quant), None)
    if len(offered) == 1:
        return Choice(offered[0], None)
    usual = [one for one in offered if one.quant not in _FULL] or list(offered)
    if free is None:
        by_quant = {one.quant: one for one in reversed(usual)}
        found = next((by_quant[one] for one in _USUAL if one in by_quant), usual[0])
        return Choice(found, f"{told(found)}: the usual compromise")
    for one in reversed(usual):
        if free.gpus and place(one.bytes, free) == "GPU":
            cards = "the GPU" if free.gpus == 1 else f"{free.gpus} GPUs"
            return Choice(one, f"{told(one)}: the largest that fits the {size(free.gpu_bytes)} free on {cards}")
    smallest = usual[0]
    if place(smallest.bytes, free) is None:
        raise ModelError(
            f"{name} needs about {size(needed_bytes(smallest.bytes))} in its smallest form;"
            f" {size(max(free.gpu_bytes, free.host_bytes))} are free",
            hint="%llama models list",
        )
    if free.gpus:
        return Choice(smallest, f"{told(smallest)}: the smallest; a part of it will stay in the host's memory")
    best = next(one for one in reversed(usual) if place(one.bytes, free))
    return Choice(best, f"{told(best)}: the largest that fits the {size(free.host_bytes)} free in this machine")


def _called(name: str, offered: Sequence[Variant], quant: str) -> Variant:
    found = [one for one in offered if one.quant == quant.upper()]
    if len(found) == 1:
        return found[0]
    if found:
        paths = ", ".join(one.files[0].path for one in found[:3])
        raise ModelError(f"{name} has {len(found)} files called {quant}: {paths}", hint="name the file instead")
    known = [one.quant for one in offered if one.quant]
    told = f"it has {', '.join(dict.fromkeys(known))}" if known else f"its files are {offered[0].files[0].path}, …"
    raise ModelError(f"{name} has no {quant}; {told}", hint=f"{name}:{known[0]}" if known else "name the file instead")


def told(variant: Variant) -> str:
    """Its name and size."""
    return f"{variant.quant or variant.files[0].path} ({size(variant.bytes)})"

"""The forms in which one model is offered: a repository holds it in many quantisations, each one file or several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..units import size

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


def quant_of(path: str) -> str | None:
    """The quantisation in a file's name: ``Qwen2.5-7B-Instruct-Q4_K_M.gguf`` → ``Q4_K_M``."""
    found = _NAMED.search(path.rsplit("/", 1)[-1])
    return None if found is None else re.sub(r"^FP", "F", found[1].upper())


def variants(files: Iterable[File]) -> list[Variant]:
    """The models among ``files``, the smallest first; a split one counts only when all its parts are there."""
    whole: dict[str, list[File]] = {}
    counts: dict[str, int] = {}
    for file in sorted(files, key=lambda one: one.path):
        # Names come from strangers and are shown: one that is not printable is no model's.
        if not file.path.lower().endswith(".gguf") or _BESIDE.search(file.path) or not file.path.isprintable():
            continue
        part = _PART.fullmatch(file.path)
        stem = part[1] if part else file.path
        counts[stem] = int(part[3]) if part else 1
        whole.setdefault(stem, []).append(file)
    found = [
        Variant(quant_of(parts[0].path), tuple(parts)) for stem, parts in whole.items() if len(parts) == counts[stem]
    ]
    return sorted(found, key=lambda one: (one.bytes, one.files[0].path))


def told(variant: Variant) -> str:
    """Its name and size."""
    return f"{variant.quant or variant.files[0].path} ({size(variant.bytes)})"

"""Named GPUs, so that a plan can be made for a card that is not here.

Nominal figures are those of NVIDIA's data sheets and product pages (``source``). A program gets less memory than the
sheet says, because error correction and the driver keep a part: ``usable_gib`` is what CUDA reported as total on such
a card (PyTorch's ``total_memory``, printed in public training logs); where no such print is known, 97 % of the nominal
size are assumed, the smallest share among those that are.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from .errors import CommandError

_UNKNOWN_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU. ``bandwidth_gb_s`` is of its memory; ``fp16_tflops`` is its fastest dense FP16 rate.

    That is the tensor cores' where it has some, on GeForce cards with sums in FP16: with sums in FP32 it is half.
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    fp16_tflops: float
    compute_capability: str
    source: str
    usable_gib: float | None = None

    @property
    def usable_bytes(self) -> int:
        """Bytes that CUDA has to give on an idle card."""
        return round((self.usable_gib or self.memory_gib * _UNKNOWN_SHARE) * 2**30)


_CARDS = (
    Card("T4", 16, 320, 65, "7.5", "NVIDIA T4 data sheet (2019)", usable_gib=14.741),
    Card("P100", 16, 732, 18.7, "6.0", "NVIDIA Tesla P100 PCIe data sheet (2016)"),
    Card("V100", 16, 900, 112, "7.0", "NVIDIA V100 PCIe data sheet (2020)"),
    Card("L4", 24, 300, 121, "8.9", "NVIDIA L4 data sheet (2023); its 242 TFLOPS are with sparsity", usable_gib=22.168),
    Card("A10", 24, 600, 125, "8.6", "NVIDIA A10 data sheet (2021)"),
    Card("A100-40GB", 40, 1555, 312, "8.0", "NVIDIA A100 data sheet (2021)", usable_gib=39.394),
    Card("A100-80GB", 80, 2039, 312, "8.0", "NVIDIA A100 SXM data sheet (2021)"),
    Card("L40S", 48, 864, 362, "8.9", "NVIDIA L40S data sheet (2023)"),
    Card("H100", 80, 3350, 989, "9.0", "NVIDIA H100 SXM data sheet (2023); its 1,979 TFLOPS are with sparsity"),
    Card("H200", 141 * 1e9 / 2**30, 4800, 989, "9.0", "NVIDIA H200 data sheet (2024): 141 GB"),
    Card("RTX-2080-Ti", 11, 616, 108, "7.5", "NVIDIA Turing architecture white paper (2018)"),
    Card("RTX-3060", 12, 360, 51, "8.6", "NVIDIA GA10x architecture white paper (2021)"),
    Card("RTX-3090", 24, 936, 142, "8.6", "NVIDIA GA102 architecture white paper (2020)"),
    Card("RTX-4060", 8, 272, 60, "8.9", "NVIDIA GeForce RTX 4060 product page (2023)"),
    Card("RTX-4090", 24, 1008, 330, "8.9", "NVIDIA Ada architecture white paper (2022)", usable_gib=23.64),
    Card("RTX-5090", 32, 1792, 419, "12.0", "NVIDIA RTX Blackwell architecture white paper (2025)"),
)
_ALIASES = {"a100": "a10040gb", "h100sxm": "h100", "teslat4": "t4", "teslap100": "p100"}
#: What NVML calls these cards. Others of similar names differ in memory or rate: A10G, RTX 4090 D, H100 PCIe, laptops'.
_PRODUCTS = {
    "T4": r"Tesla T4|NVIDIA T4",
    "P100": r"Tesla P100-PCIE-16GB",
    "V100": r"Tesla V100-PCIE-(16|32)GB",
    "L4": r"NVIDIA L4",
    "A10": r"NVIDIA A10",
    "A100-40GB": r"(NVIDIA )?A100-(SXM4|PCIE)-40GB",
    "A100-80GB": r"(NVIDIA )?A100-SXM4-80GB",
    "L40S": r"NVIDIA L40S",
    "H100": r"NVIDIA H100 80GB HBM3",
    "H200": r"NVIDIA H200",
}
_GEFORCE = re.compile(r"(?:NVIDIA )?GeForce RTX (\d{4}(?: Ti)?)")
_COUNTED = re.compile(r"\s*(?:(\d+)\s*[x×*]\s*)?(.+?)\s*", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g)", re.IGNORECASE)
_MOST = 16


def names() -> tuple[str, ...]:
    """Names that :func:`parse` knows."""
    return tuple(card.name for card in _CARDS)


def cards() -> tuple[Card, ...]:
    """Everything that is known about the named cards."""
    return _CARDS


def parse(text: str) -> tuple[Card, ...]:
    """The cards of ``2xT4``, ``T4,L4`` or ``2x16GB`` (a card of that size); raises CommandError for an unknown one."""
    found: list[Card] = []
    for word in text.split(","):
        match = _COUNTED.fullmatch(word)
        count = int(match[1] or 1) if match else 0
        if match is None or not 1 <= count <= _MOST:
            raise CommandError(f"--gpus takes cards like 2xT4, at most {_MOST}, not {text!r}", hint="--gpus 2xT4")
        found += [_card(match[2])] * count
    return tuple(found)


def of_product(product: str, total_bytes: int | None = None) -> Card | None:
    """The card that NVML calls ``product``; ``None`` for one that is not known or has another amount of memory."""
    geforce = _GEFORCE.fullmatch(product)
    for card in _CARDS:
        name = f"RTX-{geforce[1].replace(' ', '-')}" if geforce else None
        if card.name == name or (card.name in _PRODUCTS and re.fullmatch(_PRODUCTS[card.name], product)):
            # There are RTX 3060 of 8 GB too, with two thirds of the bandwidth; V100 of 16 and 32 GB are alike.
            share = (total_bytes or card.usable_bytes) / (card.memory_gib * 2**30)
            return card if 0.9 <= share <= 1.1 or card.name == "V100" else None
    return None


def _card(name: str) -> Card:
    if size := _SIZE.fullmatch(name.strip()):
        return Card(name.strip(), float(size[1]), 0, 0, "", "a card of this size", usable_gib=float(size[1]))
    wanted = _plain(name)
    wanted = _ALIASES.get(wanted, wanted)
    for card in _CARDS:
        if wanted in (_plain(card.name), _plain(card.name).removeprefix("rtx")):
            return card
    near = difflib.get_close_matches(wanted, [_plain(card.name) for card in _CARDS], 1, 0.6)
    guess = next((card.name for card in _CARDS if near and _plain(card.name) == near[0]), None)
    raise CommandError(
        f"unknown card {name!r}" + (f"; did you mean {guess}?" if guess else f"; known: {', '.join(names())}"),
        hint=f"--gpus {guess or '16GB'}",
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", "").replace("geforce", ""))

"""The most tokens per second that a place can reach: pure arithmetic on what must be read and multiplied.

The roofline model (Williams, Waterman, Patterson, Communications of the ACM 52/4, 2009) of a transformer that answers
one request: whatever an engine does, it reads every active weight and the filled cache once for each generated token,
and multiplies and adds every active weight once for each token.

* decode: time per token ≥ max(bytes / bandwidth, 2 × parameters / FLOPS) on each place; places follow each other, so
  their times add up.
* prefill: time per token ≥ 2 × parameters / FLOPS; several places work on several batches at once: the slowest counts.

Bandwidth and FLOPS are a card's nominal figures (:mod:`..cards`, "from spec sheet") or measured. A sheet's FP16 rate is
no bound for kernels that multiply 8-bit integers, which on some cards run at twice that rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..values import Traffic


@dataclass(frozen=True, slots=True)
class Place:
    """Where layers lie: GB/s of its memory, TFLOPS, and where those figures are from; ``None`` is n/a."""

    name: str
    bandwidth_gb_s: float | None
    tflops: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens per second at most; ``None`` where a figure of a place that is used is not known."""

    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None


def limits(parts: Sequence[tuple[Place, Traffic]]) -> Limits:
    """The limits of a model whose layers are shared out over places."""
    decode = [decode_s(place, work) for place, work in parts if work.weight_bytes + work.cache_bytes]
    prefill = [prefill_s(place, work) for place, work in parts if work.prompt_parameters]
    return Limits(_rate(decode, add=True), _rate(prefill, add=False))


def decode_s(place: Place, work: Traffic) -> float | None:
    """Least seconds for one generated token on one place: ``None`` without its bandwidth; FLOPS count where known."""
    if not place.bandwidth_gb_s:
        return None
    reading = (work.weight_bytes + work.cache_bytes) / (place.bandwidth_gb_s * 1e9)
    computing = 2 * work.parameters / (place.tflops * 1e12) if place.tflops else 0.0
    return max(reading, computing)


def prefill_s(place: Place, work: Traffic) -> float | None:
    """Least seconds for one token of a long prompt on one place."""
    return 2 * work.prompt_parameters / (place.tflops * 1e12) if place.tflops else None


def _rate(times: Sequence[float | None], *, add: bool) -> float | None:
    known = [one for one in times if one is not None]
    if not known or len(known) < len(times):
        return None
    whole = sum(known) if add else max(known)
    return 1 / whole if whole else None

"""Durations by name: exact while this process has seen them all, else from a histogram to within 2 %.

A histogram's buckets are twentieths of an octave: of a bucket's two ends the middle between them (their harmonic mean)
is at most 1.8 % away. Sixteenths, which tracing tools like, would be 2.2 %.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PER_OCTAVE = 20
_WIDTH: float = 2 ** (1 / PER_OCTAVE)
_MIDDLE = 2 * _WIDTH / (1 + _WIDTH)
#: A name that differs per request would fill memory and file: those after the first thousand share this one.
MAX_NAMES = 1000
OTHER = "(other names)"


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and 95th percentile of the spans of a name in seconds; ``exact`` is false where they are within 2 %."""

    name: str
    count: int
    p50_s: float
    p95_s: float
    exact: bool


class Durations:
    """The durations of all spans that were added, eight bytes each."""

    def __init__(self) -> None:
        self._by_name: dict[str, array[int]] = {}

    def add(self, name: str, duration_ns: int) -> None:
        """One more span of ``name``."""
        durations = self._by_name.get(name)
        if durations is None:
            called = name if len(self._by_name) < MAX_NAMES else OTHER
            durations = self._by_name.setdefault(called, array("q"))
        durations.append(duration_ns)

    def copy(self) -> dict[str, array[int]]:
        """What is there now, by name."""
        return {name: durations[:] for name, durations in self._by_name.items()}


def exact(by_name: Mapping[str, array[int]]) -> list[Latency]:
    """Percentiles of whole nanoseconds, the nearest of the values that there are."""
    import numpy as np

    found = []
    for name, durations in by_name.items():
        ranks = [rank(len(durations), q) for q in (0.5, 0.95)]
        low, high = np.partition(np.frombuffer(durations, np.int64), ranks)[ranks]
        found.append(Latency(name, len(durations), int(low) / 1e9, int(high) / 1e9, True))
    return found


def bucket(duration_ns: int) -> int:
    """The bucket of a duration; what is shorter than a nanosecond counts as one."""
    return int(math.log2(duration_ns) * PER_OCTAVE) if duration_ns > 1 else 0


def estimated(name: str, counts: Sequence[tuple[int, int]]) -> Latency:
    """Percentiles from ``(bucket, count)`` pairs in order of the buckets."""
    total = sum(count for _, count in counts)
    return Latency(name, total, _at(counts, rank(total, 0.5)), _at(counts, rank(total, 0.95)), False)


def rank(count: int, q: float) -> int:
    """The place of the percentile ``q`` among ``count`` sorted values."""
    return round(q * (count - 1))


def _at(counts: Sequence[tuple[int, int]], place: int) -> float:
    for number, count in counts:
        if place < count:
            return float(2 ** (number / PER_OCTAVE) * _MIDDLE / 1e9)
        place -= count
    raise ValueError("a histogram without counts has no percentiles")

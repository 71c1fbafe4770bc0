"""What a series of readings says about exactly an interval: interpolated, integrated, averaged, or not known.

Two kinds of readings: of a *level* or counter, which is true at its moment; and of a *rate* (utilisation, power), which
is true of the time since the reading before. Where readings are further apart than :data:`GAP_NS` one is missing, and
what happened in between is not known: then there is no figure. A reading without its value is NaN, and so is what it
would be part of.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

#: Three readings at the slowest rate.
GAP_NS = 3_000_000_000

Levels = Sequence[tuple[int, float]]


def integral(rates: Levels, start_ns: int, end_ns: int) -> float | None:
    """∫ rate dt in rate × seconds; ``None`` unless readings cover all of ``start_ns`` … ``end_ns``."""
    inside = _covering(rates, start_ns, end_ns)
    if inside is None:
        return None
    parts = (rate * (min(t1, end_ns) - max(t0, start_ns)) for (t0, _), (t1, rate) in pairwise(inside))
    return _known(math.fsum(parts) / 1e9)


def highest(rates: Levels, start_ns: int, end_ns: int) -> float | None:
    """The highest rate of the interval; ``None`` unless readings cover it."""
    inside = _covering(rates, start_ns, end_ns)
    if inside is None:
        return None
    seen = [rate for _, rate in inside[1:] or inside]  # a moment at a reading has that one
    return None if any(map(math.isnan, seen)) else max(seen)


def at(counter: Levels, rates: Levels, t_ns: int) -> float | None:
    """What a counter stood at: between two readings as far on as ``rates`` say, else as time is."""
    after = bisect_left(counter, (t_ns,))
    if after < len(counter) and counter[after][0] == t_ns:
        return _known(counter[after][1])
    if not 0 < after < len(counter):
        return None
    (t0, before), (t1, behind) = counter[after - 1], counter[after]
    if t1 - t0 > GAP_NS:
        return None
    whole, part = integral(rates, t0, t1), integral(rates, t0, t_ns)
    done = part / whole if whole and part is not None else (t_ns - t0) / (t1 - t0)
    return _known(before + (behind - before) * done)


def increase(counter: Levels, rates: Levels, start_ns: int, end_ns: int) -> float | None:
    """How much a counter grew in the interval; ``None`` where its ends are not covered, or where it began anew."""
    first, last = at(counter, rates, start_ns), at(counter, rates, end_ns)
    if first is None or last is None:
        return None
    around = counter[max(0, bisect_left(counter, (start_ns,)) - 1) : bisect_left(counter, (end_ns,)) + 1]
    values = [value for _, value in around if not math.isnan(value)]
    return None if any(b < a for a, b in pairwise(values)) else last - first


def mean_level(levels: Levels, start_ns: int, end_ns: int) -> float | None:
    """The mean of a level, each reading holding until the next; ``None`` unless readings cover the interval."""
    first = bisect_right(levels, (start_ns, math.inf)) - 1
    inside = levels[max(first, 0) : bisect_right(levels, (end_ns, math.inf))]
    times = [*(t for t, _ in inside), end_ns]
    if first < 0 or any(b - a > GAP_NS for a, b in pairwise(times)):
        return None
    if end_ns <= start_ns:
        return _known(inside[-1][1])
    held = ((value, until - max(t, start_ns)) for (t, value), until in zip(inside, times[1:], strict=True))
    return _known(math.fsum(value * long for value, long in held) / (end_ns - start_ns))


def _covering(rates: Levels, start_ns: int, end_ns: int) -> Levels | None:
    """Readings from the last one at or before the start to the first one at or after the end, if none is missing."""
    first = bisect_right(rates, (start_ns, math.inf)) - 1
    last = bisect_left(rates, (end_ns,))
    if first < 0 or last >= len(rates):
        return None
    inside = rates[first : last + 1]
    return None if any(b[0] - a[0] > GAP_NS for a, b in pairwise(inside)) else inside


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

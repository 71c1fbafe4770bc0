"""Spans joined with samples: memory, utilisation and energy of exactly a span's interval."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..values import JSON, ActivitySeries, DeviceSeries, Samples, SampleSource, SpanRow
from . import semconv
from ._interval import GAP_NS, Levels, highest, increase, integral, mean_level

_ENGINE = frozenset({"weights", "kv", "compute", "output", "context"})
#: Times of readings, and what engines held then.
_Held: TypeAlias = "tuple[Sequence[int], Sequence[int | None]]"
_LATE_NS = 500_000_000
_HERE = ("127.", "localhost:", "::1:", "[::1]:")


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured over an interval; ``None`` is not known, never a guess.

    ``peak_bytes`` and ``mean_bytes``: what engines held, on all devices together; a reading holds until the next one.
    The rest is of whole GPUs, whoever used them: those that hold an engine's memory, or all where none is known to.
    ``util_mean`` (over time and GPUs) and ``util_max`` are 0..1. ``energy_j``: growth of the GPUs' counters, summed,
    interpolated at the ends by the driver's own finer readings of power where it has some, else evenly. Where a GPU has
    no counter (before Volta): the integral of its power, and ``energy_source`` is ``power``, an estimate.
    """

    peak_bytes: int | None = None
    mean_bytes: float | None = None
    util_mean: float | None = None
    util_max: float | None = None
    energy_j: float | None = None
    energy_source: str | None = None


def fill(rows: Sequence[SpanRow], source: SampleSource) -> list[SpanRow]:
    """``rows`` with what was measured while they ran, where samples cover them; other rows are the same objects.

    Filled are spans of a server on this machine and roots of traces that have such a span: ``energy_j``,
    ``peak_bytes`` and the attributes of :mod:`.semconv`. The peak of a root is the most that any of its trace's spans
    saw; energy per token is a call's energy, prefill included, by its output tokens.
    """
    traces = {row.trace_id for row in rows if _is_here(row)}
    wanted = [row for row in rows if _is_here(row) or (row.parent_id is None and row.trace_id in traces)]
    if not wanted:
        return list(rows)
    readings = Readings(source.window(min(r.start_ns for r in wanted) - GAP_NS, max(r.end_ns for r in wanted) + GAP_NS))
    peaks: dict[str, int] = {}
    filled = list(rows)
    for index, row in enumerate(rows):
        if _is_here(row):
            filled[index] = new = _with(row, readings.during(row.start_ns, row.end_ns))
            if new.peak_bytes is not None:
                peaks[row.trace_id] = max(new.peak_bytes, peaks.get(row.trace_id, 0))
    for index, row in enumerate(rows):
        if row.parent_id is None and row.server is None and row.trace_id in traces:
            found = readings.during(row.start_ns, row.end_ns)
            filled[index] = _with(row, dataclasses.replace(found, peak_bytes=peaks.get(row.trace_id)))
    return filled


def complete_ns(latest: Samples) -> int:
    """Until when all readings are there, by the newest of each device; 0 without any.

    What a GPU's driver has measured by itself comes half a second later than its own readings.
    """
    ends = (one.t_ns[-1] - (0 if one.device == "host" else _LATE_NS) for one in latest.devices if one.t_ns)
    return min(ends, default=0)


class Readings:
    """Samples of some time, of which :meth:`during` tells about any interval."""

    def __init__(self, samples: Samples) -> None:
        held = [(one, _held(one)) for one in samples.devices]
        self._held: list[_Held] = [(one.t_ns, sizes) for one, sizes in held]
        activity = {one.device: one for one in samples.activity}
        gpus = [_Gpu(one, activity.get(one.device)) for one in samples.devices if one.device != "host"]
        self._gpus = [gpu for gpu in gpus if gpu.used] or gpus
        # A device on which no engine ever was says nothing about the mean.
        on = [(one, sizes) for one, sizes in held if any(size is not None for size in sizes)]
        self._levels = [_levels_held(one, sizes) for one, sizes in on]

    def during(self, start_ns: int, end_ns: int) -> Measured:
        """What was measured from ``start_ns`` to ``end_ns``."""
        means = [mean_level(levels, start_ns, end_ns) for levels in self._levels]
        utils = [gpu.utilisation(start_ns, end_ns) for gpu in self._gpus]
        known = [one for one in utils if one is not None]
        whole = bool(known) and len(known) == len(utils)
        energy_j, source = self._energy(start_ns, end_ns)
        return Measured(
            peak_bytes=_peak(self._held, start_ns, end_ns),
            mean_bytes=_sum(means),
            util_mean=sum(mean for mean, _ in known) / len(known) if whole else None,
            util_max=max(most for _, most in known) if whole else None,
            energy_j=energy_j,
            energy_source=source,
        )

    def _energy(self, start_ns: int, end_ns: int) -> tuple[float | None, str | None]:
        joules = _sum([gpu.energy(start_ns, end_ns) for gpu in self._gpus])  # a part of the sum would look like the sum
        if joules is None:
            return None, None
        return joules, "counter" if all(gpu.counts for gpu in self._gpus) else "power"


class _Gpu:
    """One GPU's readings as levels and rates."""

    def __init__(self, series: DeviceSeries, activity: ActivitySeries | None) -> None:
        self.used = any(owner.owner in _ENGINE for owners in series.owners for owner in owners)
        self.counts = any(value is not None for value in series.energy_j)
        self._counter = _levels(series.t_ns, series.energy_j)
        # The driver's own readings first: they are finer, and those of a short call lie between two samples.
        self._power, self._util = [_levels(series.t_ns, series.power_w)], [_levels(series.t_ns, series.util)]
        if activity is not None:
            self._power.insert(0, _present(activity.t_ns, activity.power_w))
            self._util.insert(0, _present(activity.t_ns, activity.util))

    def energy(self, start_ns: int, end_ns: int) -> float | None:
        if self.counts:
            return increase(self._counter, self._power[0] if len(self._power) > 1 else (), start_ns, end_ns)
        found = (integral(rates, start_ns, end_ns) for rates in self._power)
        return next((joules for joules in found if joules is not None), None)

    def utilisation(self, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Mean and maximum."""
        for rates in self._util:
            most, area = highest(rates, start_ns, end_ns), integral(rates, start_ns, end_ns)
            if most is not None and area is not None:
                return (area * 1e9 / (end_ns - start_ns) if end_ns > start_ns else most), most
        return None


def _peak(devices: Sequence[_Held], start_ns: int, end_ns: int) -> int | None:
    """The most that was held on all devices together in the interval; ``None`` without a reading of it."""
    current = [0] * len(devices)
    seen = False
    changes: list[tuple[int, int, int]] = []
    for number, (times, sizes) in enumerate(devices):
        first, stop = bisect_left(times, start_ns), bisect_right(times, end_ns)
        if first and times[first - 1] >= start_ns - GAP_NS and (held := sizes[first - 1]) is not None:
            current[number], seen = held, True
        changes += [(times[n], number, held) for n in range(first, stop) if (held := sizes[n]) is not None]
    if not seen and not changes:
        return None
    most, total, before = sum(current), sum(current), None
    for t_ns, number, held in sorted(changes):
        if before is not None and t_ns != before:  # devices read at one moment count together
            most = max(most, total)
        total += held - current[number]
        current[number], before = held, t_ns
    return max(most, total)


def _with(row: SpanRow, found: Measured) -> SpanRow:
    energy_j = row.energy_j if found.energy_j is None else found.energy_j
    peak_bytes = row.peak_bytes if found.peak_bytes is None else found.peak_bytes
    tokens = row.output_tokens
    measured: dict[str, JSON] = {
        semconv.MEMORY_MEAN: None if found.mean_bytes is None else round(found.mean_bytes),
        semconv.UTIL_MEAN: found.util_mean,
        semconv.UTIL_MAX: found.util_max,
        semconv.ENERGY_SOURCE: found.energy_source,
        semconv.ENERGY_PER_TOKEN: energy_j / tokens if energy_j is not None and tokens else None,
    }
    attributes: Mapping[str, JSON] = {**row.attributes, **{k: v for k, v in measured.items() if v is not None}}
    if (energy_j, peak_bytes) == (row.energy_j, row.peak_bytes) and attributes == row.attributes:
        return row
    return dataclasses.replace(row, energy_j=energy_j, peak_bytes=peak_bytes, attributes=attributes)


def _is_here(row: SpanRow) -> bool:
    """Whether the span's server runs on this machine; a name that is no address is one of our own servers."""
    return (
        row.server is not None
        and (row.server.startswith(_HERE) or ":" not in row.server)
        and semconv.RESOURCE not in row.attributes  # it came from elsewhere, and so did what it measured
    )


def _held(device: DeviceSeries) -> list[int | None]:
    """What engines held at each reading, ``None`` where it shows none."""
    found = []
    for owners in device.owners:
        own = [owner.bytes for owner in owners if owner.owner in _ENGINE]
        found.append(sum(own) if own else None)
    return found


def _levels_held(device: DeviceSeries, held: Sequence[int | None]) -> Levels:
    """The same as a level: 0 where a reading shows none, unknown where the device did not answer."""
    lost = (used is None for used in device.used_bytes)
    sizes = (math.nan if gone else float(size or 0) for size, gone in zip(held, lost, strict=True))
    return list(zip(device.t_ns, sizes, strict=True))


def _levels(times: Sequence[int], values: Sequence[float | None]) -> Levels:
    return [(t, math.nan if value is None else value) for t, value in zip(times, values, strict=True)]


def _present(times: Sequence[int], values: Sequence[float | None]) -> Levels:
    return [(t, value) for t, value in zip(times, values, strict=True) if value is not None]


def _sum(values: Sequence[float | None]) -> float | None:
    """Of all of them: ``None`` when there are none or one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None

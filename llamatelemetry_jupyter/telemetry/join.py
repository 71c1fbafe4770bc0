"""Spans joined with samples: the energy and the peak memory of exactly a span's interval."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ..values import DeviceSeries, SampleSource, SpanRow

_MARGIN_NS = 2_000_000_000  # a counter is read on both sides of the interval; samples come at 2 Hz
_ENGINE = ("weights", "kv", "compute", "output", "context")


def fill(rows: Sequence[SpanRow], source: SampleSource) -> list[SpanRow]:
    """``rows`` with ``energy_j`` and ``peak_bytes`` where samples cover them; a row without a server is left as it is.

    ``energy_j``: difference of the devices' cumulative counters between start and end, linearly interpolated, summed
    over devices that have one; it is the whole device's, not the span's alone. ``peak_bytes``: the most that the engine
    held on all devices together at one sample in the interval, else at the last one before it.
    """
    joined = [row for row in rows if row.server is not None]
    if not joined:
        return list(rows)
    window = source.window(min(r.start_ns for r in joined) - _MARGIN_NS, max(r.end_ns for r in joined) + _MARGIN_NS)
    if not window.devices:
        return list(rows)
    return [row if row.server is None else _filled(row, window.devices) for row in rows]


def _filled(row: SpanRow, devices: Sequence[DeviceSeries]) -> SpanRow:
    energies = [e for device in devices if (e := energy(device, row.start_ns, row.end_ns)) is not None]
    peaks = [p for device in devices if (p := peak(device, row.start_ns, row.end_ns)) is not None]
    if not energies and not peaks:
        return row
    return dataclasses.replace(
        row, energy_j=sum(energies) if energies else None, peak_bytes=sum(peaks) if peaks else None
    )


def energy(device: DeviceSeries, start_ns: int, end_ns: int) -> float | None:
    """Joules between two moments, ``None`` when the counter is not there or does not cover them."""
    first, last = _counter(device, start_ns), _counter(device, end_ns)
    return last - first if first is not None and last is not None and last >= first else None


def _counter(device: DeviceSeries, t_ns: int) -> float | None:
    after = bisect_left(device.t_ns, t_ns)
    if after == len(device.t_ns):
        return None
    value = device.energy_j[after]
    if value is None or device.t_ns[after] == t_ns:
        return value
    before = device.energy_j[after - 1] if after else None
    if before is None:
        return None
    t0, t1 = device.t_ns[after - 1], device.t_ns[after]
    return before + (value - before) * (t_ns - t0) / (t1 - t0)


def peak(device: DeviceSeries, start_ns: int, end_ns: int) -> int | None:
    """The most bytes that the engine held on ``device`` in the interval."""
    first, last = bisect_left(device.t_ns, start_ns), bisect_right(device.t_ns, end_ns)
    if first == last:  # shorter than the sampling interval: the sample just before stands for it
        first = max(0, first - 1)
    held = [
        sum(owner.bytes for owner in owners if owner.owner in _ENGINE)
        for owners in device.owners[first:last]
        if any(owner.owner in _ENGINE for owner in owners)
    ]
    return max(held) if held else None

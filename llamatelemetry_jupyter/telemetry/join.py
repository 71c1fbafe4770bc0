"""Spans joined with samples: the energy and the peak memory of exactly a span's interval."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ..values import DeviceSeries, SampleSource, SpanRow

_MARGIN_NS = 2_000_000_000  # a counter is read on both sides of the interval; samples come at 2 Hz
_ENGINE = frozenset({"weights", "kv", "compute", "output", "context"})
_HERE = ("127.", "localhost:", "::1:", "[::1]:")


def fill(rows: Sequence[SpanRow], source: SampleSource) -> list[SpanRow]:
    """``rows`` with ``energy_j`` and ``peak_bytes`` where samples cover them; other rows are the same objects.

    Filled are spans of a server on this machine and roots of traces that have such a span. ``energy_j``: difference of
    the devices' cumulative counters between start and end, linearly interpolated, summed over the GPUs; it is the whole
    device's, not the span's alone, and ``None`` when a GPU's counter does not cover the interval. ``peak_bytes``: the
    most that the engine held at any moment of the interval, summed over devices (a reading holds until the next one);
    of a root the most that any of its trace's spans saw.
    """
    traces = {row.trace_id for row in rows if _is_here(row)}
    wanted = [row for row in rows if _is_here(row) or (row.parent_id is None and row.trace_id in traces)]
    if not wanted:
        return list(rows)
    window = source.window(min(r.start_ns for r in wanted) - _MARGIN_NS, max(r.end_ns for r in wanted) + _MARGIN_NS)
    peaks: dict[str, int] = {}
    filled = list(rows)
    for index, row in enumerate(rows):
        if _is_here(row):
            held = peak(window.devices, row.start_ns, row.end_ns)
            filled[index] = new = _with(row, energy(window.devices, row.start_ns, row.end_ns), held)
            if new.peak_bytes is not None:
                peaks[row.trace_id] = max(new.peak_bytes, peaks.get(row.trace_id, 0))
    for index, row in enumerate(rows):
        if row.parent_id is None and row.server is None and row.trace_id in traces:
            joules = energy(window.devices, row.start_ns, row.end_ns)
            filled[index] = _with(row, joules, peaks.get(row.trace_id))
    return filled


def energy(devices: Sequence[DeviceSeries], start_ns: int, end_ns: int) -> float | None:
    """Joules of all GPUs between two moments; ``None`` when there is no counter or one does not cover the interval."""
    total: float | None = None
    for device in devices:
        if device.device == "host":
            continue
        first, last = _counter(device, start_ns), _counter(device, end_ns)
        if first is None or last is None or last < first:  # a part of the sum would look like the sum
            return None
        total = (total or 0.0) + last - first
    return total


def peak(devices: Sequence[DeviceSeries], start_ns: int, end_ns: int) -> int | None:
    """The most bytes that the engine held on all devices together in the interval; ``None`` without a sample of it."""
    current: dict[str, int] = {}
    changes: list[tuple[int, str, int]] = []
    for device in devices:
        first, stop = bisect_left(device.t_ns, start_ns), bisect_right(device.t_ns, end_ns)
        if first and (held := _held(device, first - 1)) is not None and device.t_ns[first - 1] >= start_ns - _MARGIN_NS:
            current[device.device] = held
        for index in range(first, stop):
            if (held := _held(device, index)) is not None:
                changes.append((device.t_ns[index], device.device, held))
    if not current and not changes:
        return None
    most, before = sum(current.values()), None
    for t_ns, name, held in sorted(changes):
        if before is not None and t_ns != before:  # devices read at one moment count together
            most = max(most, sum(current.values()))
        current[name], before = held, t_ns
    return max(most, sum(current.values()))


def _with(row: SpanRow, energy_j: float | None, peak_bytes: int | None) -> SpanRow:
    energy_j = row.energy_j if energy_j is None else energy_j
    peak_bytes = row.peak_bytes if peak_bytes is None else peak_bytes
    if energy_j == row.energy_j and peak_bytes == row.peak_bytes:
        return row
    return dataclasses.replace(row, energy_j=energy_j, peak_bytes=peak_bytes)


def _is_here(row: SpanRow) -> bool:
    """Whether the span's server runs on this machine; a name that is no address is one of our own servers."""
    return row.server is not None and (row.server.startswith(_HERE) or ":" not in row.server)


def _held(device: DeviceSeries, index: int) -> int | None:
    own = [owner.bytes for owner in device.owners[index] if owner.owner in _ENGINE]
    return sum(own) if own else None


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

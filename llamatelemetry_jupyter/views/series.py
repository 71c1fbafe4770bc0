"""Samples of devices and servers, which come at times of their own, as columns on one time axis.

The snapshot's history and the live frames of the dashboard are made here, so that both mean the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TypedDict

from ..values import DeviceSeries, Samples, ServerSeries
from . import theme

Value = float | int | None

#: A value is carried on over this many of its own intervals; a longer silence is a gap.
CARRY_INTERVALS = 2.5
#: Devices and servers beyond these are left out of the picture (they stay in the store).
MAX_DEVICES = 32
MAX_SERVERS = 8


class Series(TypedDict, total=False):
    """What a column holds; ``device`` is not on a server's, ``owner`` only on memory, ``server`` only on a server's."""

    id: str
    group: str
    label: str
    unit: str
    device: str
    owner: str
    server: str


def series_list(samples: Samples) -> list[Series]:
    """The columns that ``samples`` can fill, in the order of the snapshot."""
    made: list[Series] = []
    for device in samples.devices[:MAX_DEVICES]:
        made += [
            {
                "id": f"mem/{device.device}/{owner}",
                "group": "memory",
                "device": device.device,
                "owner": owner,
                "label": theme.OWNERS[owner]["label"],
                "unit": "B",
            }
            for owner in _owner_columns(device)
        ]
    for server in samples.servers[:MAX_SERVERS]:
        for suffix, group, label, unit in (
            ("decode", "tokens", "output tokens/s", "tok/s"),
            ("input", "tokens", "input tokens/s", "tok/s"),
            ("busy", "slots", "busy slots", "slots"),
            ("queued", "slots", "queued", "slots"),
            ("", "kv", "tokens in KV cache", "tokens"),
        ):
            head = {"tokens": "tok", "slots": "slots", "kv": "kv"}[group]
            made.append(
                {
                    "id": f"{head}/{server.server}/{suffix}".rstrip("/"),
                    "group": group,
                    "server": server.server,
                    "label": label,
                    "unit": unit,
                }
            )
    for device in samples.devices[:MAX_DEVICES]:
        for group, label, unit, values in (
            ("filled", "KV cache, filled", "B", device.filled()),
            ("util", "GPU busy", "1", device.util),
            ("power", "power", "W", device.power_w),
        ):
            if any(v is not None for v in values):
                name = f"{group}/{device.device}"
                made.append({"id": name, "group": group, "device": device.device, "label": label, "unit": unit})
    return made


def columns(samples: Samples, series: Sequence[Series]) -> tuple[list[float], list[list[Value]]]:
    """``(t_ms, values)``: one column per series, all as long as ``t_ms``; ``None`` where there is no reading.

    Samples that were taken in the same round share one time. Token rates are differences of cumulative counts over the
    time between two samples of that server; a counter that fell was restarted and has counted from 0.
    """
    ticks, at = _ticks(samples)
    t_ms = [round(t / 1e6, 1) for t in ticks]
    filled: dict[str, list[Value]] = {}
    for device in samples.devices:
        places, spread = [at[t] for t in device.t_ns], _spread(device.t_ns, ticks)
        for owner, values in _owner_columns(device).items():
            filled[f"mem/{device.device}/{owner}"] = spread(places, values)
        filled[f"filled/{device.device}"] = spread(places, device.filled())
        filled[f"util/{device.device}"] = spread(places, _rounded(device.util, 4))
        filled[f"power/{device.device}"] = spread(places, _rounded(device.power_w, 1))
    for server in samples.servers:
        places, spread = [at[t] for t in server.t_ns], _spread(server.t_ns, ticks)
        filled[f"tok/{server.server}/decode"] = spread(places, rates(server.t_ns, server.output_tokens_total))
        filled[f"tok/{server.server}/input"] = spread(places, rates(server.t_ns, server.input_tokens_total))
        filled[f"slots/{server.server}/busy"] = spread(places, server.slots_busy)
        filled[f"slots/{server.server}/queued"] = spread(places, server.queued)
        filled[f"kv/{server.server}"] = spread(places, server.kv_tokens)
    nothing: list[Value] = [None] * len(ticks)
    return t_ms, [filled.get(one["id"], nothing) for one in series]


def rates(t_ns: Sequence[int], totals: Sequence[int | None]) -> list[Value]:
    """Tokens/s at each sample, over the time since the sample before; ``None`` at the first."""
    out: list[Value] = [None] * len(t_ns)
    before: tuple[int, int] | None = None
    for index, (t, total) in enumerate(zip(t_ns, totals, strict=True)):
        if total is None:
            continue
        if before is not None and t > before[0]:
            gained = total - before[1] if total >= before[1] else total
            out[index] = round(gained / ((t - before[0]) / 1e9), 2)
        before = (t, total)
    return out


def reduce(t_ms: list[float], values: list[list[Value]], max_points: int) -> tuple[list[float], list[list[Value]]]:
    """At most ``max_points`` points in which each column's minima and maxima are kept, in the order they came."""
    count = len(t_ms)
    if count <= max_points:
        return t_ms, values
    buckets = max(1, max_points // 2)
    bounds = [count * i // buckets for i in range(buckets + 1)]
    times = [t for a, b in pairwise(bounds) for t in (t_ms[a], t_ms[b - 1])]
    reduced = []
    for column in values:
        kept: list[Value] = []
        for a, b in pairwise(bounds):
            present = [(v, i) for i, v in enumerate(column[a:b]) if v is not None]
            if not present:
                kept += (None, None)
                continue
            low, high = min(present), max(present, key=lambda p: (p[0], -p[1]))
            kept += (low[0], high[0]) if low[1] <= high[1] else (high[0], low[0])
        reduced.append(kept)
    return times, reduced


def _owner_columns(device: DeviceSeries) -> Mapping[str, Sequence[Value]]:
    if summed := device.by_owner():
        return {str(owner): values for owner, values in summed.items()}
    return {"unknown": device.used_bytes} if any(v is not None for v in device.used_bytes) else {}


def _rounded(values: Iterable[float | None], digits: int) -> list[Value]:
    return [round(v, digits) if v is not None and math.isfinite(v) else None for v in values]


def _interval(t_ns: Sequence[int]) -> float:
    return median(b - a for a, b in pairwise(t_ns)) if len(t_ns) > 1 else 1e9


def _ticks(samples: Samples) -> tuple[list[int], dict[int, int]]:
    """The common times, and for each sample's time the index of its tick."""
    every: list[DeviceSeries | ServerSeries] = [*samples.devices, *samples.servers]
    times = sorted({t for one in every for t in one.t_ns})
    tolerance = 0.4 * min((_interval(one.t_ns) for one in every if one.t_ns), default=1e9)
    ticks: list[int] = []
    at: dict[int, int] = {}
    for t in times:
        if not ticks or t - ticks[-1] > tolerance:
            ticks.append(t)
        at[t] = len(ticks) - 1
    return ticks, at


def _spread(t_ns: Sequence[int], ticks: list[int]) -> Callable[[list[int], Sequence[Value]], list[Value]]:
    """A function that lays values of one sampler onto the ticks and carries each on until the next, or to a gap."""
    # While nobody wants more, there is one sample a second: a shorter silence is none.
    carry_ns = CARRY_INTERVALS * max(_interval(t_ns), 1e9)
    count = len(ticks)

    def spread(places: list[int], values: Sequence[Value]) -> list[Value]:
        if len(places) == count and places[-1] == count - 1:
            return list(values)
        out: list[Value] = [None] * count
        for n, place in enumerate(places):
            last = places[n + 1] if n + 1 < len(places) else count
            until = bisect_right(ticks, ticks[place] + carry_ns, place, last)
            out[place:until] = [values[n]] * (until - place)
            if until == place:  # two samples in one tick: the later one counts
                out[place] = values[n]
        return out

    return spread

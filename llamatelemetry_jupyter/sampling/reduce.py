"""Fewer points of a series that still show every peak.

Time is cut into buckets; of each bucket the rows stay where a column has its minimum or maximum. Rows stay whole, so
that the owners of a peak belong to that peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from ..values import DeviceSeries, ServerSeries

Column = Sequence["float | None"]


def reduce_devices(series: DeviceSeries, max_points: int) -> DeviceSeries:
    """At most ``max_points`` rows (but at least 2 per column and the ends); extremes of every column kept."""
    columns = (series.used_bytes, series.util, series.mem_util, series.power_w, series.temp_c)
    keep = kept(len(series.t_ns), columns, max_points)
    return DeviceSeries(series.device, *([getattr(series, f.name)[i] for i in keep] for f in fields(DeviceSeries)[1:]))


def reduce_servers(series: ServerSeries, max_points: int) -> ServerSeries:
    """At most ``max_points`` rows (but at least 2 per column and the ends); extremes of the gauges kept."""
    columns = (series.slots_busy, series.queued, series.kv_tokens, series.output_tokens_total)
    keep = kept(len(series.t_ns), columns, max_points)
    return ServerSeries(series.server, *([getattr(series, f.name)[i] for i in keep] for f in fields(ServerSeries)[1:]))


def kept(length: int, columns: Sequence[Column], max_points: int) -> list[int]:
    """Sorted indices of the rows to keep."""
    if length <= max_points:
        return list(range(length))
    live = [c for c in columns if any(v is not None for v in c)] or [list(range(length))]
    buckets = max(1, (max_points - 2) // (2 * len(live)))
    keep = {0, length - 1}
    for bucket in range(buckets):
        rows = range(bucket * length // buckets, (bucket + 1) * length // buckets)
        for column in live:
            present = [(value, i) for i in rows if (value := column[i]) is not None]
            if present:
                keep.add(min(present)[1])
                keep.add(max(present)[1])
    return sorted(keep)

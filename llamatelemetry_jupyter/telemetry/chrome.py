"""Spans and samples as a Chrome trace: slices in lanes, memory and power of each device as counters beneath them.

The JSON form of the Trace Event format, which Perfetto (ui.perfetto.dev), chrome://tracing and Speedscope open. There
slices of one thread nest by their times alone, so overlapping spans have lanes of their own; and times are µs in a
double, so they count from the first span: ``otherData.t0_unix_ns`` says when that was.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..values import JSON, OWNERS, DeviceSeries, Samples, SampleSource, ServerSeries, SpanRow
from . import semconv
from .wire import plain, text

_COUNTERS = 1  # process ids of the picture
_FIRST = 2
_MARGIN_NS = 2_000_000_000
_MOST_POINTS = 20_000
_MIB = 2**20


def write(path: Path, rows: Sequence[SpanRow], samples: SampleSource | None = None) -> int:
    """Write ``rows`` with the samples of their time; returns the number of events. Raises ``OSError``."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        t0_ns = min((row.start_ns for row in rows), default=0)
        head = {"displayTimeUnit": "ms", "otherData": {"t0_unix_ns": str(t0_ns), "producer": "llamatelemetry-jupyter"}}
        file.write(json.dumps(head)[:-1] + ',"traceEvents":[\n')
        for event in events(rows, samples):
            file.write((",\n" if count else "") + json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            count += 1
        file.write("\n]}\n")
    return count


def events(rows: Sequence[SpanRow], samples: SampleSource | None = None) -> Iterator[dict[str, Any]]:
    """The events of a trace: names first, then slices in order of their start, then counters in order of time."""
    t0_ns = min((row.start_ns for row in rows), default=0)
    processes: dict[str, list[SpanRow]] = {}
    for row in rows:
        processes.setdefault(_process(row), []).append(row)
    for pid, (name, members) in enumerate(processes.items(), _FIRST):
        yield _named("process_name", pid, 0, {"name": name})
        yield _named("process_sort_index", pid, 0, {"sort_index": pid})
        placed = lanes(members)
        for lane in sorted(set(placed.values())):
            yield _named("thread_name", pid, lane + 1, {"name": f"lane {lane + 1}"})
        for row in sorted(members, key=_order):
            yield _slice(row, pid, placed[id(row)] + 1, t0_ns)
    if samples is None or not rows:
        return
    window = samples.window(t0_ns - _MARGIN_NS, max(row.end_ns for row in rows) + _MARGIN_NS, _MOST_POINTS)
    yield _named("process_name", _COUNTERS, 0, {"name": "devices and servers"})
    yield _named("process_sort_index", _COUNTERS, 0, {"sort_index": _COUNTERS})
    yield from heapq.merge(*_counters(window, t0_ns), key=lambda event: event["ts"])


def lanes(rows: Sequence[SpanRow]) -> dict[int, int]:
    """A lane for each row (by ``id(row)``), so that in one lane any two are apart or one inside the other.

    A span is drawn inside its parent where it can be: in the parent's lane, when nothing else there is in the way.
    """
    open_in: list[list[SpanRow]] = []  # what is open in each lane, the innermost last
    lane_of: dict[str, int] = {}
    placed: dict[int, int] = {}
    for row in sorted(rows, key=_order):
        for stack in open_in:
            while stack and stack[-1].end_ns <= row.start_ns and not _same_start(stack[-1], row):
                stack.pop()
        lane = lane_of.get(row.parent_id or "", -1)
        if (
            lane < 0
            or not open_in[lane]
            or open_in[lane][-1].span_id != row.parent_id
            or not _inside(row, open_in[lane][-1])
        ):
            lane = next((i for i, stack in enumerate(open_in) if not stack), len(open_in))
            if lane == len(open_in):
                open_in.append([])
        open_in[lane].append(row)
        lane_of[row.span_id] = placed[id(row)] = lane
    return placed


def _order(row: SpanRow) -> tuple[int, int, bool]:
    """By start, the longer one first; of two that cover each other the root."""
    return row.start_ns, -row.end_ns, row.parent_id is not None


def _inside(inner: SpanRow, outer: SpanRow) -> bool:
    return outer.start_ns <= inner.start_ns and inner.end_ns <= outer.end_ns


def _same_start(outer: SpanRow, inner: SpanRow) -> bool:
    """A span without duration is open for a child that has none either."""
    return outer.start_ns == outer.end_ns == inner.start_ns == inner.end_ns and inner.parent_id == outer.span_id


def _process(row: SpanRow) -> str:
    resource = row.attributes.get(semconv.RESOURCE)
    name = resource.get("service.name") if isinstance(resource, dict) else None
    return text(name) if isinstance(name, str) and name else "notebook"


def _named(what: str, pid: int, tid: int, args: Mapping[str, JSON]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _slice(row: SpanRow, pid: int, tid: int, t0_ns: int) -> dict[str, Any]:
    given = {
        "trace_id": row.trace_id, "span_id": row.span_id, "parent_id": row.parent_id, "status": row.status,
        "error_type": row.error_type, "server": row.server, "model": row.model, "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens, "cached_tokens": row.cached_tokens, "ttft_s": row.ttft_s,
        "decode_tokens_per_s": row.decode_tokens_per_s, "energy_j": row.energy_j, "peak_bytes": row.peak_bytes,
    }  # fmt: skip
    args = {name: plain(value) for name, value in given.items() if value is not None}
    rest = {f"attributes.{text(name)}": plain(value) for name, value in row.attributes.items() if value is not None}
    made = {
        "ph": "X",
        "name": text(row.name) or "span",
        "cat": text(row.scope or row.kind),
        "pid": pid,
        "tid": tid,
        "ts": (row.start_ns - t0_ns) / 1000,
        "dur": (row.end_ns - row.start_ns) / 1000,
        "args": args | rest,
    }
    return made | ({"cname": "terrible"} if row.status == "error" else {})


def _counters(window: Samples, t0_ns: int) -> list[list[dict[str, Any]]]:
    found = []
    for device in window.devices:
        found += [_memory(device, t0_ns), _one(device, "power", "W", device.power_w, 1.0, t0_ns)]
        found.append(_one(device, "utilisation", "%", device.util, 100.0, t0_ns))
    return [one for one in [*found, *(_tokens(server, t0_ns) for server in window.servers)] if one]


def _memory(device: DeviceSeries, t0_ns: int) -> list[dict[str, Any]]:
    """Bytes by owner, in MiB: series of one counter are stacked."""
    made = []
    for t_ns, owners, used in zip(device.t_ns, device.owners, device.used_bytes, strict=True):
        held: dict[str, float] = {}
        for owner in OWNERS:
            if owner != "free" and (size := sum(one.bytes for one in owners if one.owner == owner)):
                held[owner] = round(size / _MIB, 2)
        if not held and used is not None:
            held = {"used": round(used / _MIB, 2)}
        if held:
            made.append(_counter(f"{device.device} memory (MiB)", t_ns, t0_ns, held))
    return made


def _one(
    device: DeviceSeries, what: str, unit: str, values: Sequence[float | None], times: float, t0_ns: int
) -> list[dict[str, Any]]:
    return [
        _counter(f"{device.device} {what} ({unit})", t_ns, t0_ns, {unit: round(value * times, 3)})
        for t_ns, value in zip(device.t_ns, values, strict=True)
        if value is not None
    ]


def _tokens(server: ServerSeries, t0_ns: int) -> list[dict[str, Any]]:
    return [
        _counter(f"{text(server.server)} tokens in the KV cache", t_ns, t0_ns, {"tokens": tokens})
        for t_ns, tokens in zip(server.t_ns, server.kv_tokens, strict=True)
        if tokens is not None
    ]


def _counter(name: str, t_ns: int, t0_ns: int, args: Mapping[str, float]) -> dict[str, Any]:
    return {"ph": "C", "name": name, "pid": _COUNTERS, "tid": 0, "ts": (t_ns - t0_ns) / 1000, "args": args}

"""The snapshot: the one dict that widget, static picture, figures and report are drawn from.

A pure function of spans and samples: it reads the two sources and asks nobody else. The dict is JSON as it stands (no
NaN, strings capped) and stays under 200 kB whatever the sources hold, because it is synced to the browser and saved.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..gpu.owners import Engine, announced, visible
from ..telemetry import figures, semconv
from ..values import (
    DeviceSample,
    EngineBuffer,
    OwnerBytes,
    Samples,
    SampleSource,
    ServerHandle,
    ServerSample,
    ServerSeries,
    ServerStatus,
    SpanRow,
    SpanSource,
)
from . import theme
from .series import MAX_DEVICES, Series, columns, reduce, series_list

VERSION = 1
MAX_BYTES = 200_000
MAX_SPANS = 200
_SPAN_BYTES = 110_000
_SPAN_BYTES_BESIDE_MANY_SERIES = 50_000
#: No span is larger as JSON: its texts are cut.
_LARGEST_SPAN = 2000
_MAX_OWNERS = 12
#: A reading that is older is not shown as the present one: the sampler reads once a second or more often.
STALE_S = 3.0
#: Figures of the widget's header by its own names (``js/src/views/now.js``), for their tooltips.
_HEADER = {
    "tokens_per_s": "decode_tokens_per_s",
    "prefill": "prefill_tokens_per_s",
    "ttft": "ttft_s",
    "slots": "slots_busy",
    "kv": "kv_tokens",
    "power": "power_w",
    "calls": "calls",
    "input_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
    "spans": "spans",
}


def snapshot(
    spans: SpanSource,
    samples: SampleSource,
    now_ns: int,
    width_px: int,
    *,
    handle: ServerHandle | None = None,
    status: ServerStatus | None = None,
    window_s: float = 120.0,
    names: Mapping[str, str] | None = None,
    planned: Sequence[EngineBuffer] = (),
) -> dict[str, Any]:
    """Everything that a picture of the last ``window_s`` seconds needs, ``width_px`` wide, as a JSON-safe dict.

    Where there is no reading of the last three seconds, figures are ``None`` and ``since_ms`` is when the last one was:
    of a device, of the server, and of everything when the sampler itself is silent.
    ``handle`` and ``status`` are the server's as its manager knows them; without them the newest sample tells. Totals
    are over all spans of the store; ``server.ttft_s`` and its rates are the newest call's. ``names`` are devices'
    product names (``Tesla T4``); without them the source is asked, if it knows any. ``planned`` is what the plans of
    the servers that run say, by the engine's names of devices.
    """
    window = samples.window(now_ns - int(window_s * 1e9), now_ns, max(64, width_px))
    series = series_list(window)
    now = state(
        spans,
        samples,
        now_ns,
        handle=handle,
        status=status,
        names=names,
        planned=planned,
        span_bytes=_SPAN_BYTES if len(series) <= 40 else _SPAN_BYTES_BESIDE_MANY_SERIES,
    )
    made: dict[str, Any] = {
        "version": VERSION,
        "window_s": float(window_s),
        **now,
        "series": [{k: text(v, 80) for k, v in one.items()} for one in series],
        "points": {"t_ms": [], "values": [[] for _ in series]},
        "titles": figures.titles(_HEADER),
    }
    room = MAX_BYTES - 2_000 - len(json.dumps(made))
    made["points"] = _points(window, series, max(16, width_px // 2), room)
    return made


def state(
    spans: SpanSource,
    samples: SampleSource,
    now_ns: int,
    *,
    handle: ServerHandle | None = None,
    status: ServerStatus | None = None,
    names: Mapping[str, str] | None = None,
    planned: Sequence[EngineBuffer] = (),
    most_spans: int = MAX_SPANS,
    span_bytes: int = _SPAN_BYTES,
) -> dict[str, Any]:
    """What a snapshot says of now: ``now_ms since_ms server totals devices spans``, the newest ``most_spans`` of these.

    A live dashboard needs it several times a second, and a snapshot's points only once.
    """
    fresh_ns = now_ns - int(STALE_S * 1e9)
    latest = samples.latest()
    chosen = newest_traces(spans, most_spans)
    return {
        "now_ms": now_ns / 1e6,
        "since_ms": _silent_ms(latest, fresh_ns),
        "server": _server(handle, status, latest, chosen, fresh_ns),
        "totals": totals(spans),
        "devices": _devices(latest, names if names is not None else _names(samples), fresh_ns, planned),
        "spans": span_dicts(chosen, span_bytes),
    }


def totals(spans: SpanSource) -> dict[str, int]:
    """Counts over all spans of the store: spans, traces, calls, errors, input and output tokens.

    A call is a span of a GenAI operation; tokens are summed over calls alone, so that none is counted twice.
    """
    if (count := getattr(spans, "totals", None)) is not None:
        return dict(count())
    rows = spans.rows()
    calls = [row for row in rows if theme.span_kind(row.name) == "chat"]
    return {
        "spans": len(rows),
        "traces": len({row.trace_id for row in rows}),
        "calls": len(calls),
        "errors": sum(row.status == "error" for row in rows),
        "input_tokens": sum(row.input_tokens or 0 for row in calls),
        "output_tokens": sum(row.output_tokens or 0 for row in calls),
    }


def newest_traces(spans: SpanSource, limit: int = MAX_SPANS) -> list[SpanRow]:
    """The newest whole traces with at most ``limit`` rows together, in order of their start.

    A single trace that is larger gives its newest rows and all that they hang from.
    """
    rows = spans.rows(last=2 * limit)
    traces: dict[str, list[SpanRow]] = {}
    for row in reversed(rows):
        traces.setdefault(row.trace_id, []).append(row)
    kept: list[SpanRow] = []
    for trace_id, found in traces.items():
        # Rows come in order of their end: only a trace that began before the oldest row ended can lack rows here.
        whole = len(rows) < 2 * limit or (
            any(r.parent_id is None for r in found) and min(r.start_ns for r in found) > rows[0].end_ns
        )
        trace = found if whole else list(spans.rows(trace_id=trace_id))
        if len(kept) + len(trace) > limit:
            if not kept:
                kept = _newest_rows(trace, limit)
            break
        kept += trace
    return sorted(kept, key=lambda r: (r.start_ns, -r.end_ns))


def depths(rows: Iterable[SpanRow]) -> dict[tuple[str, str], int]:
    """``(trace_id, span_id)`` → how deep below its root; a span whose parent isn't among ``rows`` is a root."""
    parent = {(r.trace_id, r.span_id): (r.trace_id, r.parent_id or "") for r in rows}
    out: dict[tuple[str, str], int] = {}
    for key in parent:
        path: list[tuple[str, str]] = []
        node = key
        while node in parent and node not in out and len(path) <= len(parent):
            path.append(node)
            out[node] = 0  # ends a cycle of parents, which a broken exporter can bring
            node = parent[node]
        base = out[node] + 1 if node in parent and node not in path else 0
        for depth, one in enumerate(reversed(path), start=base):
            out[one] = depth
    return out


def span_dicts(rows: Sequence[SpanRow], max_bytes: int = _SPAN_BYTES) -> list[dict[str, Any]]:
    """``rows`` in the snapshot's form; from the oldest on, traces are dropped until their JSON fits ``max_bytes``."""
    depth = depths(rows)
    made = [span_dict(row, depth[row.trace_id, row.span_id]) for row in rows]
    if len(made) * _LARGEST_SPAN <= max_bytes:
        return made
    sizes = [len(json.dumps(one)) + 2 for one in made]
    total = sum(sizes)
    while total > max_bytes and made:
        oldest = made[0]["trace_id"]
        if made[-1]["trace_id"] == oldest and all(one["trace_id"] == oldest for one in made):
            gone = {len(made) - 1}
        else:
            gone = {i for i, one in enumerate(made) if one["trace_id"] == oldest}
        total -= sum(sizes[i] for i in gone)
        made = [one for i, one in enumerate(made) if i not in gone]
        sizes = [one for i, one in enumerate(sizes) if i not in gone]
    return made


def text(value: object, limit: int) -> str | None:
    """``value`` with at most ``limit`` characters and, as JSON, about 2 × ``limit`` bytes; ``None`` stays."""
    if value is None:
        return None
    shown = str(value)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    while len(json.dumps(shown)) > 2 * limit + 8:
        shown = shown[: (len(shown) - 1) * 3 // 4] + "…"
    return shown


def number(value: float | None) -> float | int | None:
    """``value``, or ``None`` where JSON has no such number."""
    return value if value is not None and math.isfinite(value) else None


def prefill_rate(row: SpanRow) -> float | None:
    """Tokens/s of a call's prefill by the server's own timings; ``None`` where it told none, or all was cached."""
    tokens, took_ms = (row.attributes.get(semconv.TIMINGS + name) for name in ("prompt_n", "prompt_ms"))
    if not isinstance(tokens, (int, float)) or not isinstance(took_ms, (int, float)) or not tokens or not took_ms > 0:
        return None
    return number(round(tokens / (took_ms / 1e3), 1))


def _newest_rows(trace: Sequence[SpanRow], limit: int) -> list[SpanRow]:
    by_id = {row.span_id: row for row in trace}
    kept: dict[str, SpanRow] = {}
    for row in sorted(trace, key=lambda r: -r.start_ns):
        path: dict[str, SpanRow] = {}
        node: SpanRow | None = row
        while node is not None and node.span_id not in kept and node.span_id not in path:
            path[node.span_id] = node
            node = by_id.get(node.parent_id or "")
        if len(kept) + len(path) <= limit:
            kept |= path
        if len(kept) == limit:
            break
    return list(kept.values())


def span_dict(row: SpanRow, depth: int) -> dict[str, Any]:
    """One span in the snapshot's form."""
    return {
        "trace_id": text(row.trace_id, 32),
        "span_id": text(row.span_id, 16),
        "parent_id": text(row.parent_id, 16),
        "name": text(row.name, 80),
        "kind": text(row.kind, 16),
        "start_ms": row.start_ns / 1e6,
        "end_ms": row.end_ns / 1e6,
        "status": text(row.status, 8),
        "error_type": text(row.error_type, 60),
        "model": text(row.model, 60),
        "server": text(row.server, 40),
        "cell_id": text(row.cell_id, 40),
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cached_tokens": row.cached_tokens,
        "ttft_s": number(row.ttft_s),
        "decode_tokens_per_s": number(row.decode_tokens_per_s),
        "prefill_tokens_per_s": prefill_rate(row),
        "energy_j": number(row.energy_j),
        "peak_bytes": row.peak_bytes,
        "depth": depth,
    }


def _silent_ms(latest: Samples, fresh_ns: int) -> float | None:
    """When the last reading of anything was, if that is not now."""
    times = [one.t_ns[-1] for one in latest.devices if one.t_ns] + [one.t_ns[-1] for one in latest.servers if one.t_ns]
    newest = max(times, default=None)
    return newest / 1e6 if newest is not None and newest < fresh_ns else None


def _server(
    handle: ServerHandle | None, status: ServerStatus | None, latest: Samples, rows: Sequence[SpanRow], fresh_ns: int
) -> dict[str, Any] | None:
    named = handle.name if handle else status.name if status else None
    sampled: ServerSeries | None = None
    for one in latest.servers:
        if len(one.t_ns) and named in (None, one.server):
            sampled = one
            break
    if handle is None and sampled is None and (status is None or status.state == "stopped"):
        return None
    sample = sampled.row(-1) if sampled else None
    stale_ms = sample.t_ns / 1e6 if sample is not None and sample.t_ns < fresh_ns else None
    if sample is not None and stale_ms is not None:
        # Totals only grow: the last that was read is still true, as "at least".
        totals = {name: getattr(sample, name) for name in ("slots", "input_tokens_total", "output_tokens_total")}
        sample = ServerSample(sample.t_ns, sample.server, "unreachable", **totals)
    name = named or (sample.server if sample else "")
    state = status.state if status else sample.state if sample else "ready"
    if state == "ready" and sample is not None and sample.state == "sleeping":
        state = "sleeping"
    model = handle.model.id if handle and handle.model else status.model if status else None
    # Spans know a server by host:port, which is gone with the handle: a stopped server then keeps the newest call.
    known = {None, name, handle.url.partition("://")[2]} if handle else None
    calls = (r for r in reversed(rows) if r.ttft_s is not None and (known is None or r.server in known))
    call = next(calls, None)
    return {
        "name": text(name, 60),
        "state": state,
        "owned": handle.owned if handle else True,
        "stage": text(status.stage, 80) if status else None,
        "fraction": number(status.fraction) if status else None,
        "reason": text(status.reason, 240) if status else None,
        "remedy": text(status.remedy, 120) if status else None,
        "model": text(model or (call.model if call else None), 120),
        "engine": text((handle.engine or handle.backend) if handle else None, 80),
        "url": text(handle.url if handle else None, 120),
        "since_ms": stale_ms,
        "slots": (sample.slots if sample else None) or (handle.slots if handle else None),
        "slots_busy": sample.slots_busy if sample else None,
        "queued": sample.queued if sample else None,
        "ctx_per_slot": handle.ctx_per_slot if handle else None,
        "kv_tokens": sample.kv_tokens if sample else None,
        "kv_capacity": sample.kv_capacity if sample else None,
        "decode_tokens_per_s": number(call.decode_tokens_per_s) if call else None,
        "prefill_tokens_per_s": prefill_rate(call) if call else None,
        "ttft_s": number(call.ttft_s) if call else None,
        "input_tokens_total": sample.input_tokens_total if sample else None,
        "output_tokens_total": sample.output_tokens_total if sample else None,
    }


def _names(samples: SampleSource) -> dict[str, str]:
    described = getattr(samples, "devices", None)  # the ring has a table of devices; a recording may have none
    return {one.device: one.name for one in described()} if callable(described) else {}


def _devices(
    latest: Samples, names: Mapping[str, str], fresh_ns: int, planned: Sequence[EngineBuffer]
) -> list[dict[str, Any]]:
    made = []
    gpus = 0
    # An engine counts the GPUs that it sees, those that are lost by now included; it has this process' environment.
    listed = [device for device in names or [one.device for one in latest.devices] if device != "host"]
    seen = visible(listed, os.environ.get("CUDA_VISIBLE_DEVICES"))
    engine = Engine("", None, tuple(planned), gpus=seen)
    for one in latest.devices[:MAX_DEVICES]:
        if not len(one.t_ns):
            continue
        label = "host memory" if one.device == "host" else f"GPU {gpus}"
        gpus += one.device != "host"
        name = f"{label} · {names[one.device]}" if one.device in names and one.device != "host" else label
        plan = announced(engine, one.device)
        made.append(_device(_current(one.row(-1), fresh_ns), name) | {"plan": plan or None})
    return made


def _current(sample: DeviceSample, fresh_ns: int) -> DeviceSample:
    """``sample``, or n/a since it was taken."""
    if sample.t_ns >= fresh_ns:
        return sample
    since_ns = sample.t_ns if sample.used_bytes is not None else sample.since_ns
    return DeviceSample(sample.t_ns, sample.device, None, sample.total_bytes, since_ns=since_ns)


def _device(sample: DeviceSample, name: str) -> dict[str, Any]:
    order = list(theme.OWNERS)
    owners = sorted(sample.owners, key=lambda o: (order.index(o.owner), -o.bytes))
    return {
        "id": text(sample.device, 60),
        "name": text(name, 60),
        "total_bytes": sample.total_bytes,
        "used_bytes": sample.used_bytes,
        "since_ms": sample.since_ns / 1e6 if sample.since_ns is not None else None,
        "util": number(sample.util),
        "power_w": number(sample.power_w),
        "owners": [_owner(one) for one in _merged(owners)],
    }


def _merged(owners: Sequence[OwnerBytes]) -> list[OwnerBytes]:
    """At most ``_MAX_OWNERS`` rows: where there are more, one per owner without naming processes."""
    if len(owners) <= _MAX_OWNERS:
        return list(owners)
    sums: dict[str, OwnerBytes] = {}
    for one in owners:
        known = sums.get(one.owner)
        filled = [x.filled_bytes for x in (known, one) if x and x.filled_bytes is not None]
        total = one.bytes + (known.bytes if known else 0)
        sums[one.owner] = OwnerBytes(
            one.device, one.owner, total, sum(filled) if filled else None, source=known.source if known else one.source
        )
    return list(sums.values())


def owner_label(one: OwnerBytes) -> str:
    """An owner by name: with its library or process where one is known, and a model's file apart from its copies."""
    label = theme.OWNERS[one.owner]["label"]
    if one.owner in ("kernel", "other") and one.process:
        return f"{label.removesuffix(' processes')}: {one.process}"
    pages = one.device == "host" and one.owner == "weights" and one.source == "measured"
    return f"{label}, mapped file" if pages else label


def _owner(one: OwnerBytes) -> dict[str, Any]:
    return {
        "owner": one.owner,
        "label": text(owner_label(one), 60),
        "bytes": one.bytes,
        "filled_bytes": one.filled_bytes,
        "pid": one.pid,
        "process": text(one.process, 40),
        "source": one.source,
    }


def _points(window: Samples, series: Sequence[Series], wanted: int, room: int) -> Mapping[str, Any]:
    t_ms, values = columns(window, series)
    cell = 2 + sum(14 if one["unit"] == "B" else 8 for one in series) / max(1, len(series))
    most = max(2, min(wanted, int(room / (18 + cell * len(series)))))
    while True:
        times, kept = reduce(t_ms, values, most)
        points = {"t_ms": times, "values": kept}
        if most <= 2 or len(json.dumps(points)) <= room:
            return points
        most = most * 3 // 4

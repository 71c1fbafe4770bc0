"""The dashboard as one SVG: memory by owner, tokens/s, slots and the newest spans over one time axis.

Three columns hold throughout: names and scales on the left, the plot, figures on the right. The axis runs over what
happened: from just before the first span that is drawn to just after the last.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import theme
from .format import NA, clock, count, rate, seconds, short, size, state, used, watts
from .series import reduce
from .svg import CARD, GRID, INK, SOFT, document, label, line, rect, stroke, text_px

WIDTH = 840
_EDGE, _LEFT, _RIGHT = 20, 168, 622
_GAP = 18
_HEAD = 22.0
#: Stacked from the bottom; on a host other processes would dwarf the engine, so they are a figure there.
_ON_GPU = ("weights", "kv", "compute", "output", "context", "kernel", "other", "unknown")
_ON_HOST = _ON_GPU[:6]
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, slots=True)
class Axis:
    """Unix milliseconds → pixels."""

    t0: float
    t1: float

    def x(self, t_ms: float) -> float:
        """Where ``t_ms`` is; outside of the plot its nearer edge."""
        share = (t_ms - self.t0) / (self.t1 - self.t0)
        return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)

    def ticks(self) -> list[float]:
        """Round local times, as many as have room for their labels."""
        span = (self.t1 - self.t0) / 1e3
        step = next((s for s in _STEPS_S if s >= 1 and span / s <= 6.5), _STEPS_S[-1]) * 1e3
        first = math.ceil(self.t0 / step) * step
        return [first + n * step for n in range(int((self.t1 - first) // step) + 1)] if first <= self.t1 else []


def picture(snapshot: Mapping[str, Any], *, max_points: int = 240, max_rows: int = 18) -> str:
    """The whole picture as an SVG document of :data:`WIDTH` pixels."""
    spans, hidden = _shown_spans(snapshot, max_rows)
    axis = _axis(snapshot, spans)
    t_ms, values = _cut(snapshot, axis, max_points)
    parts = [_header(snapshot)]
    y = top = 116.0
    drawn: list[tuple[str, float]] = []
    for device, ids in _devices(snapshot):
        drawn.append(_memory(snapshot, device, ids, axis, t_ms, values, y))
        y += drawn[-1][1] + _GAP
    for panel in (_tokens, _slots):
        drawn.append(panel(snapshot, axis, t_ms, values, y))
        y += drawn[-1][1] + _GAP
    drawn.append(_waterfall(spans, hidden, axis, y))
    y += drawn[-1][1]
    for t in axis.ticks():
        x = axis.x(t)
        parts.append(stroke(f"M{x:.1f} {top:.1f}V{y + 6:.1f}", GRID))
        if _LEFT + 20 <= x <= _RIGHT - 20:
            parts.append(label(x, y + 20, clock(t), 11, SOFT, anchor="middle"))
    parts += [part for part, _ in drawn]
    return document("".join(parts), WIDTH, y + 34, _ON_GPU)


def waterfall(spans: Sequence[Mapping[str, Any]], *, max_rows: int = 60) -> str:
    """Spans of the snapshot's form as an SVG document of their own, on an axis of seconds since the first start."""
    shown = sorted(spans, key=lambda s: s["start_ms"])[:max_rows]
    begin, end = min(s["start_ms"] for s in shown), max(s["end_ms"] for s in shown)
    axis = Axis(begin, end + max(1.0, (end - begin) * 0.02))
    body, height = _waterfall(shown, len(spans) - len(shown), axis, 16)
    step = _nice((axis.t1 - axis.t0) / 6)
    ticks = [begin + n * step for n in range(int((axis.t1 - begin) / step) + 1)]
    y = 16 + height
    grid = "".join(stroke(f"M{axis.x(t):.1f} 36V{y + 4:.1f}", GRID) for t in ticks)
    scale = "".join(label(axis.x(t), y + 18, seconds((t - begin) / 1e3), 11, SOFT, anchor="middle") for t in ticks[1:])
    return document(grid + label(_LEFT, y + 18, "0", 11, SOFT, anchor="middle") + scale + body, WIDTH, y + 30)


def _shown_spans(snapshot: Mapping[str, Any], limit: int) -> tuple[list[Mapping[str, Any]], int]:
    """The newest whole traces of the window that fit into ``limit`` rows, and how many spans are not drawn."""
    spans = snapshot["spans"]
    traces: dict[str, list[Mapping[str, Any]]] = {}
    for span in spans:
        traces.setdefault(span["trace_id"], []).append(span)
    newest = sorted(traces.values(), key=lambda t: max(s["end_ms"] for s in t), reverse=True)
    kept: list[Mapping[str, Any]] = []
    for trace in newest:
        too_old = kept and trace[0]["start_ms"] < newest[0][-1]["end_ms"] - snapshot["window_s"] * 1e3
        if too_old or (kept and len(kept) + len(trace) > limit):
            break
        kept += trace[:limit]
    return sorted(kept, key=lambda s: s["start_ms"]), len(spans) - len(kept)


def _axis(snapshot: Mapping[str, Any], spans: Sequence[Mapping[str, Any]]) -> Axis:
    times = snapshot["points"]["t_ms"]
    if spans:
        first, last = min(s["start_ms"] for s in spans), max(s["end_ms"] for s in spans)
        pad = max(500.0, 0.06 * (last - first))
        if not times or (last > times[0] and first < times[-1]):
            return Axis(first - pad, last + pad)
    if times:
        return Axis(times[0], max(times[-1], times[0] + 2000))
    return Axis(snapshot["now_ms"] - snapshot["window_s"] * 1e3, snapshot["now_ms"])


def _cut(snapshot: Mapping[str, Any], axis: Axis, most: int) -> tuple[list[float], list[list[Any]]]:
    t_ms, values = snapshot["points"]["t_ms"], snapshot["points"]["values"]
    a, b = max(0, bisect_left(t_ms, axis.t0) - 1), bisect_right(t_ms, axis.t1) + 1
    return reduce(list(t_ms[a:b]), [list(column[a:b]) for column in values], most)


def _header(snapshot: Mapping[str, Any]) -> str:
    server, totals = snapshot["server"], snapshot["totals"]
    if server is None:
        out = [label(_EDGE, 34, "No server is running", 17, weight=600), label(_EDGE, 54, "%llama start", 12, SOFT)]
        server = {}
    else:
        word = str(server["state"])
        said = f"{theme.STATES.get(word, '·')} {word}"
        under = (
            state(server).removeprefix(f"{short(word, 78)}: ") if server.get("reason") or server.get("stage") else ""
        )
        room = WIDTH - 2 * _EDGE
        out = [
            label(_EDGE, 34, server["model"] or "model n/a", 17, weight=600, width=room - text_px(said, 13) - 20),
            label(WIDTH - _EDGE, 34, said, 13, anchor="end", width=160),
            label(_EDGE, 54, under or server["engine"] or "", 12, SOFT, width=room),
        ]
    figures = (
        ("output tokens", count(totals["output_tokens"]), ""),
        ("last call", rate(server.get("decode_tokens_per_s")), "tok/s"),
        ("prefill", rate(server.get("prefill_tokens_per_s")), "tok/s"),
        ("first token", seconds(server.get("ttft_s")), ""),
        ("calls", count(totals["calls"]), f"✕ {count(totals['errors'])} errors" if totals["errors"] else ""),
        ("spans", count(totals["spans"]), f"in {count(totals['traces'])} traces"),
        ("KV cache", count(server.get("kv_tokens")), _of_tokens(server)),
        ("power", *watts(snapshot["devices"]).partition(", ")[::2]),
    )
    step = (WIDTH - 2 * _EDGE) / len(figures)
    for number, (name, value, unit) in enumerate(figures):
        x = _EDGE + number * step
        out.append(label(x, 78, name, 11, SOFT))
        out.append(label(x, 97, value, 16, width=step - 8))
        out.append(label(x + text_px(value, 16) + 4, 97, unit, 11, SOFT, width=step - text_px(value, 16) - 10))
    return "".join(out)


def _of_tokens(server: Mapping[str, Any]) -> str:
    if server.get("since_ms") is not None:
        return f"since {clock(server['since_ms'])}"
    known = server.get("kv_capacity") and server.get("kv_tokens") is not None
    return f"of {count(server['kv_capacity'])}" if known else ""


def _title(y: float, name: str, under: str = "") -> str:
    x = _EDGE + 64
    return label(_EDGE, y + 10, name, 12, weight=600) + label(x, y + 10, under, 11, SOFT, width=_RIGHT - x)


def _scale(y: float, text: str) -> str:
    return stroke(f"M{_LEFT} {y:.1f}H{_RIGHT}", GRID) + label(_LEFT - 8, y + 4, text, 11, SOFT, anchor="end", width=60)


def _figure(y: float, name: str, value: str, fill: str = "") -> str:
    x, out = _RIGHT + 16, ""
    if fill:
        out, x = rect(x, y - 9, 10, 10, fill, f" stroke='{CARD}'"), x + 16
    room = WIDTH - _EDGE - x
    shown = label(WIDTH - _EDGE, y, value, 11, INK, anchor="end", width=room)
    return out + label(x, y, name, 11, INK if fill else SOFT, width=max(20, room - text_px(value, 11) - 4)) + shown


def _devices(snapshot: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[str]]]:
    """What is drawn: the GPUs, as one sum where there are more than two, or the host where there are none."""
    gpus = [one for one in snapshot["devices"] if one["id"] != "host"]
    if len(gpus) <= 2:
        return [(one, [one["id"]]) for one in gpus or snapshot["devices"][:1]]
    sums: dict[str, dict[str, Any]] = {}
    for owner in (owner for one in gpus for owner in one["owners"]):
        known = sums.setdefault(owner["owner"], {**owner, "bytes": 0, "filled_bytes": None})
        known["bytes"] += owner["bytes"]
        if owner["filled_bytes"] is not None:
            known["filled_bytes"] = (known["filled_bytes"] or 0) + owner["filled_bytes"]

    def total(name: str) -> int | None:
        known = [one[name] for one in gpus if one[name] is not None]
        return sum(known) if known else None

    whole: dict[str, Any] = {"id": "all", "name": f"{len(gpus)} GPUs together", "owners": list(sums.values())}
    whole |= {name: total(name) for name in ("used_bytes", "total_bytes")}
    whole["since_ms"] = max((one["since_ms"] for one in gpus if one.get("since_ms") is not None), default=None)
    return [(whole, [one["id"] for one in gpus])]


def _memory(
    snapshot: Mapping[str, Any],
    device: Mapping[str, Any],
    ids: list[str],
    axis: Axis,
    t_ms: list[float],
    values: list[list[Any]],
    y: float,
) -> tuple[str, float]:
    owners = _ON_HOST if device["id"] == "host" else _ON_GPU
    columns: dict[str, list[float | None]] = {}
    for one, column in zip(snapshot["series"], values, strict=True):
        if one["group"] == "memory" and one["device"] in ids and one["owner"] in owners:
            known = columns.get(one["owner"])
            columns[one["owner"]] = (
                column if known is None else [_plus(a, b) for a, b in zip(known, column, strict=True)]
            )
    now = _by_owner(device)
    legend = [o for o in owners if o in now or o in columns]
    height = max(96.0, 15.0 * len(legend))
    under = f"{device['name']}, {used(device)}"
    out = [_title(y, "Memory", under)]
    y += _HEAD
    stack = [columns[o] for o in owners if o in columns]
    tops = [[sum(v or 0 for v in column) for column in zip(*stack[: n + 1], strict=True)] for n in range(len(stack))]
    peak = max((max(top, default=0.0) for top in tops), default=0.0)
    step = _byte_step(peak)
    ceiling = max(step, math.ceil(peak / step) * step)
    base = y + height
    for level in range(round(ceiling / step) + 1):
        out.append(_scale(base - level * step / ceiling * height, size(level * step) if level else "0"))
    present = [any(v is not None for v in column) for column in zip(*stack, strict=True)]
    named = [o for o in owners if o in columns]
    for owner, top in reversed(list(zip(named, tops, strict=True))):
        for a, b in _runs(present):
            ridge = line((axis.x(t_ms[i]), base - top[i] / ceiling * height) for i in range(a, b))
            right, left = axis.x(t_ms[b - 1]), axis.x(t_ms[a])
            out.append(
                f"<path d='{ridge}L{right:.1f} {base:.1f}L{left:.1f} {base:.1f}Z' fill='url(#{owner})'/>"
                + stroke(ridge, CARD, 0.8)
            )
    if not any(present):
        out.append(label(_LEFT + 10, y + height / 2 + 4, "no samples", 11, SOFT))
    for number, owner in enumerate(reversed(legend)):
        out.append(_figure(y + 9 + number * 15, theme.OWNERS[owner]["label"], now.get(owner, "–"), f"url(#{owner})"))
    rest = [f"{theme.OWNERS[o]['label']} {now[o]}" for o in ("other", "free") if o in now and o not in owners]
    for number, said in enumerate(rest):
        out.append(label(_RIGHT + 16, y + 9 + (len(legend) + number) * 15, said, 11, SOFT, width=WIDTH - _RIGHT - 36))
    return "".join(out), _HEAD + max(height, 15.0 * (len(legend) + len(rest)))


def _by_owner(device: Mapping[str, Any]) -> dict[str, str]:
    """Owner → its bytes in words: ``≈`` is an estimate, ``59.0 of 90.0 MiB`` a cache that is partly filled."""
    said: dict[str, str] = {}
    for owner in {one["owner"] for one in device["owners"]}:
        parts = [one for one in device["owners"] if one["owner"] == owner]
        filled = [one["filled_bytes"] for one in parts if one["filled_bytes"] is not None]
        guess = "≈ " if any(one["source"] == "estimate" for one in parts) else ""
        whole = size(sum(one["bytes"] for one in parts))
        used = size(sum(filled))
        used = used.removesuffix(whole[-4:]) if whole.endswith(used[-4:]) else f"{used} "
        said[owner] = f"{guess}{used.strip()} of {whole}" if filled else f"{guess}{whole}"
    return said


def _tokens(
    snapshot: Mapping[str, Any], axis: Axis, t_ms: list[float], values: list[list[Any]], y: float
) -> tuple[str, float]:
    height, top = 54.0, y
    y += _HEAD
    base = y + height
    column = _column(snapshot, values, "tokens", "/decode")
    known = [v for v in column if v is not None]
    peak = max(known, default=0.0)
    ceiling = _nice(peak or 1.0)
    colour = theme.SPANS["decode"]["light"]
    out = [_title(top, "Output", "tokens per second"), _scale(base, "0"), _scale(y, count(ceiling))]
    for a, b in _runs([v is not None for v in column]):
        ridge = line((axis.x(t_ms[i]), base - column[i] / ceiling * height) for i in range(a, b))
        out.append(
            f"<path d='{ridge}L{axis.x(t_ms[b - 1]):.1f} {base:.1f}L{axis.x(t_ms[a]):.1f} {base:.1f}Z' "
            f"fill='{colour}' fill-opacity='.12'/>" + stroke(ridge, colour, 1.6, " stroke-linejoin='round'")
        )
    if known:
        out.append(_figure(y + 9, "now", rate(known[-1])) + _figure(y + 24, "peak", rate(peak)))
    else:
        out.append(label(_LEFT + 10, y + height / 2 + 4, "no samples", 11, SOFT))
    return "".join(out), _HEAD + height


def _slots(
    snapshot: Mapping[str, Any], axis: Axis, t_ms: list[float], values: list[list[Any]], y: float
) -> tuple[str, float]:
    height, top = 30.0, y
    y += _HEAD
    base = y + height
    busy = _column(snapshot, values, "slots", "/busy")
    queued = _column(snapshot, values, "slots", "/queued")
    server = snapshot["server"] or {}
    most = max([1, server.get("slots") or 0, *(v for v in [*busy, *queued] if v is not None)])
    out = [_title(top, "Slots", "busy; dashed: waiting"), _scale(base, "0"), _scale(y, count(most))]
    for column, colour, extra in (
        (busy, theme.SPANS["chat"]["light"], ""),
        (queued, theme.SPANS["queue"]["light"], " stroke-dasharray='3 3'"),
    ):
        for a, b in _runs([v is not None for v in column]):
            steps: list[tuple[float, float]] = []
            for i in range(a, b):
                x, at = axis.x(t_ms[i]), base - column[i] / most * height
                steps += ([(x, steps[-1][1])] if steps else []) + [(x, at)]
            if not extra or any(column[a:b]):
                out.append(stroke(line(steps), colour, 1.6, extra))
    busy_now, slots = server.get("slots_busy"), server.get("slots")
    said = f"{count(busy_now)} of {count(slots)}" if slots else NA
    out.append(_figure(y + 9, "busy", said) + _figure(y + 24, "waiting", count(server.get("queued"))))
    return "".join(out), _HEAD + height


def _waterfall(spans: Sequence[Mapping[str, Any]], hidden: int, axis: Axis, y: float) -> tuple[str, float]:
    row = 17.0
    out = [_title(y, "Spans")]
    if not spans:
        out.append(label(_LEFT + 10, y + 11, "no calls yet – try: %llama chat Hello", 12, SOFT))
        return "".join(out), row
    if hidden > 0:
        out.append(label(WIDTH - _EDGE, y + 11, f"{count(hidden)} more not drawn", 11, SOFT, anchor="end"))
    top = y + 24
    if spans[-1]["end_ms"] < axis.t0 or spans[0]["start_ms"] > axis.t1:
        ended = clock(max(s["end_ms"] for s in spans))
        out.append(label(_LEFT + 10, y + 11, f"the last call ended at {ended}, before this window", 11, SOFT))
    trace = None
    for number, span in enumerate(spans):
        at = top + number * row
        if trace is not None and span["trace_id"] != trace:
            out.append(stroke(f"M{_EDGE} {at - 2.5:.1f}H{WIDTH - _EDGE}", GRID))
        trace = span["trace_id"]
        failed = span["status"] == "error"
        style = theme.SPANS["error" if failed else theme.span_kind(span["name"])]
        left, right = axis.x(span["start_ms"]), axis.x(span["end_ms"])
        indent = _EDGE + 10 * min(6, span["depth"])
        name = f"✕ {span['name']}" if failed else span["name"]
        out.append(label(indent, at + 9, name, 11, INK if span["depth"] < 2 else SOFT, width=_LEFT - 8 - indent))
        out.append(rect(left, at, max(2.0, right - left), 10, style["light"], " rx='2'"))
        took = seconds((span["end_ms"] - span["start_ms"]) / 1e3)
        tokens = f"{count(span['output_tokens'])} tok" if span["output_tokens"] is not None else ""
        out.append(label(_RIGHT + 92, at + 9, took, 11, INK, anchor="end", width=76))
        out.append(label(WIDTH - _EDGE, at + 9, tokens, 11, SOFT, anchor="end", width=64))
    return "".join(out), 24 + len(spans) * row


def _plus(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else a + b


def _column(snapshot: Mapping[str, Any], values: list[list[Any]], group: str, end: str) -> list[Any]:
    """The column of the server in the picture."""
    name = (snapshot["server"] or {}).get("name")
    for one, column in zip(snapshot["series"], values, strict=True):
        if one["group"] == group and one["id"].endswith(end) and name in (None, one["server"]):
            return column
    return []


def _runs(present: Sequence[bool]) -> list[tuple[int, int]]:
    """Stretches without a gap as ``(first, end)``, of two points or more."""
    out, start = [], None
    for index, here in enumerate([*present, False]):
        if here and start is None:
            start = index
        elif not here and start is not None:
            if index - start > 1:
                out.append((start, index))
            start = None
    return out


def _nice(value: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in (1, 2, 5, 10) if m * power >= value), 10 * power)


def _byte_step(peak: float) -> float:
    """A round number of bytes of which two to four make ``peak``."""
    unit = 1024.0 ** max(0, math.floor(math.log(max(peak, 1), 1024)))
    target = max(peak, 1.0) / unit / 3
    steps = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
    return unit * next((s for s in steps if s >= target), 500)

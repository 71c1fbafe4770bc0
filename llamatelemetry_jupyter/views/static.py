"""The dashboard as a picture that needs nobody: no kernel, no network, no script.

An ``<img>`` with an SVG data URI and a plain HTML table are the two forms that survive everywhere: JupyterLab strips
inline SVG from a notebook that is not trusted, and exported HTML blanks widgets.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .. import escape
from . import theme
from .text import Table, seconds, size

_WIDTH, _LEFT, _RIGHT = 900, 92, 16
_FONT = "font-family='system-ui,sans-serif'"
_INK, _SOFT, _GRID, _CARD = "#1f2328", "#59636e", "#e3e6ea", "#ffffff"
_ENGINE_ORDER = ("weights", "kv", "compute", "output", "context", "kernel", "other", "unknown")
_MAX_SPANS = 36


def static_html(snapshot: Mapping[str, Any]) -> str:
    """The picture and the same numbers as a table, in under 150 kB of HTML without script."""
    encoded = base64.b64encode(svg(snapshot).encode()).decode()
    alt = escape.html(" ".join(static_text(snapshot).split())[:300])
    return (
        f'<img alt="{alt}" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'
        f"{status_table(snapshot)._repr_html_()}"
    )


def static_text(snapshot: Mapping[str, Any]) -> str:
    """The same numbers as aligned text."""
    return str(status_table(snapshot))


def status_table(snapshot: Mapping[str, Any], crash: str | None = None) -> Table:
    """Server, memory by owner and totals, one figure a row."""
    server, totals = snapshot["server"], snapshot["totals"]
    rows: list[tuple[str, str]] = []
    if server is None:
        rows.append(("server", f"crashed: {crash}" if crash else "none; try: %llama start"))
    else:
        rows += [
            ("server", f"{_na(server['model'])}, {_na(server['state'])}"),
            ("engine", _na(server["engine"])),
            ("address", _na(server["url"])),
            ("slots", f"{_na(server['slots_busy'])} of {_na(server['slots'])} busy, {_na(server['queued'])} waiting"),
            ("context", f"{_na(server['ctx_per_slot'])} tokens per slot, KV cache holds {_na(server['kv_tokens'])}"),
            ("last call", f"{_rate(server['decode_tokens_per_s'])}, first token {seconds(server['ttft_s'])}"),
        ]
    rows.append(
        (
            "calls",
            f"{totals['calls']} ({totals['input_tokens']} → {totals['output_tokens']} tokens), {totals['errors']} errors",
        )
    )
    rows.append(("spans", f"{totals['spans']} in {totals['traces']} traces"))
    for device in snapshot["devices"]:
        rows.append((f"{device['name']}", f"{size(device['used_bytes'])} of {size(device['total_bytes'])} used"))
        for owner in device["owners"]:
            if owner["owner"] != "free" and owner["bytes"]:
                filled = f", {size(owner['filled_bytes'])} filled" if owner.get("filled_bytes") is not None else ""
                guess = " (estimate)" if owner["source"] == "estimate" else ""
                rows.append((f"  {owner['label']}", f"{size(owner['bytes'])}{filled}{guess}"))
    return Table(("what", "now"), tuple(rows))


def svg(snapshot: Mapping[str, Any], width: int = _WIDTH) -> str:
    """Memory by owner, tokens/s and the newest spans over one time axis, as an SVG document."""
    t1 = snapshot["now_ms"]
    t0 = t1 - snapshot["window_s"] * 1e3
    times = [s["start_ms"] for s in snapshot["spans"]] + list(snapshot["points"]["t_ms"])
    if times:  # a young session fills the picture
        t0 = max(t0, min(times) - 500)
    axis = _Axis(t0, t1, _LEFT, width - _RIGHT)
    parts = [_header(snapshot, width)]
    y = 64.0
    for draw in (_memory, _tokens, _waterfall):
        part, height = draw(snapshot, axis, y)
        parts.append(part)
        y += height
    parts.append(_ticks(axis, y))
    height = y + 26
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' {_FONT}>"
        f"<defs>{''.join(_pattern(name) for name in _ENGINE_ORDER)}</defs>"
        f"<rect width='{width}' height='{height}' rx='8' fill='{_CARD}' stroke='{_GRID}'/>{''.join(parts)}</svg>"
    )


class _Axis:
    def __init__(self, t0: float, t1: float, left: float, right: float) -> None:
        self.t0, self.t1, self.left, self.right = t0, max(t1, t0 + 1000), left, right

    def x(self, t_ms: float) -> float:
        share = (t_ms - self.t0) / (self.t1 - self.t0)
        return round(self.left + min(1.0, max(0.0, share)) * (self.right - self.left), 1)


def _header(snapshot: Mapping[str, Any], width: int) -> str:
    server, totals = snapshot["server"], snapshot["totals"]
    title = "no server; try: %llama start" if server is None else f"{_na(server['model'])} · {_na(server['state'])}"
    facts = [f"{totals['calls']} calls", f"{totals['output_tokens']} tokens out", f"{totals['spans']} spans"]
    if server is not None and server["decode_tokens_per_s"] is not None:
        facts = [_rate(server["decode_tokens_per_s"]), f"first token {seconds(server['ttft_s'])}", *facts]
    return (
        _text(16, 28, _short(title, 48), 16, _INK, weight=600)
        + _text(16, 48, _short(_na(server["engine"]) if server else "", 60), 11, _SOFT)
        + _text(width - 16, 28, " · ".join(facts), 12, _INK, anchor="end")
    )


def _memory(snapshot: Mapping[str, Any], axis: _Axis, y: float) -> tuple[str, float]:
    out, total = [], 0.0
    for device in snapshot["devices"][:4]:
        part, height = _device(snapshot, device, axis, y + total)
        out.append(part)
        total += height
    return "".join(out), total


def _device(snapshot: Mapping[str, Any], device: Mapping[str, Any], axis: _Axis, y: float) -> tuple[str, float]:
    height, top = 120, y + 34
    t_ms = snapshot["points"]["t_ms"]
    columns = {
        one["owner"]: values
        for one, values in zip(snapshot["series"], snapshot["points"]["values"], strict=True)
        if one["group"] == "memory" and one["device"] == device["id"] and one["owner"] in _ENGINE_ORDER
    }
    stacked = [0.0] * len(t_ms)
    layers = []
    for owner in _ENGINE_ORDER:
        if owner in columns:
            below = stacked
            stacked = [b + (v or 0.0) for b, v in zip(below, columns[owner], strict=True)]
            layers.append((owner, below, stacked))
    peak = max([*stacked, 1.0])
    scale = height / (peak * 1.08)
    out = [_text(16, y + 14, _short(str(device["name"]), 36), 12, _INK, weight=600)]
    for share in (0.0, 0.5, 1.0):
        line = top + height - share * peak * scale
        out.append(_line(axis, line) + _text(_LEFT - 8, line + 4, size(share * peak), 10, _SOFT, anchor="end"))
    for owner, low, high in layers:
        points = [f"{axis.x(t)},{top + height - v * scale:.1f}" for t, v in zip(t_ms, high, strict=True)]
        points += [
            f"{axis.x(t)},{top + height - v * scale:.1f}" for t, v in reversed(list(zip(t_ms, low, strict=True)))
        ]
        out.append(f"<polygon points='{' '.join(points)}' fill='url(#{owner})'/>")
    return "".join(out) + _legend(device, y + 14), height + 50


def _legend(device: Mapping[str, Any], y: float) -> str:
    out, x = [], 250.0
    for owner in device["owners"]:
        if owner["owner"] not in _ENGINE_ORDER or not owner["bytes"]:
            continue
        label = f"{owner['label']} {size(owner['bytes'])}{'~' if owner['source'] == 'estimate' else ''}"
        needed = 20 + 5.4 * len(label)
        if x + needed > _WIDTH - _RIGHT:
            x, y = 250.0, y + 14
        out.append(
            f"<rect x='{x:.0f}' y='{y - 9}' width='10' height='10' fill='url(#{owner['owner']})' stroke='{_SOFT}' stroke-width='.5'/>"
        )
        out.append(_text(x + 14, y, label, 10, _INK))
        x += needed
    return "".join(out)


def _tokens(snapshot: Mapping[str, Any], axis: _Axis, y: float) -> tuple[str, float]:
    height, top = 56, y + 24
    values: Sequence[float | None] = []
    for one, column in zip(snapshot["series"], snapshot["points"]["values"], strict=True):
        if one["group"] == "tokens" and one["id"].endswith("/decode"):
            values = column
    peak = max([v for v in values if v is not None], default=0.0) or 1.0
    out = [_text(16, y + 14, "output tokens/s", 12, _INK, weight=600)]
    for share in (0.0, 1.0):
        line = top + height * (1 - share)
        out.append(_line(axis, line) + _text(_LEFT - 8, line + 4, f"{share * peak:.0f}", 10, _SOFT, anchor="end"))
    points = [
        f"{axis.x(t)},{top + height * (1 - v / peak):.1f}"
        for t, v in zip(snapshot["points"]["t_ms"], values, strict=False)
        if v is not None
    ]
    if points:
        out.append(
            f"<polyline points='{' '.join(points)}' fill='none' stroke='{theme.OWNERS['weights']['light']}' stroke-width='1.6'/>"
        )
    return "".join(out), height + 42


def _waterfall(snapshot: Mapping[str, Any], axis: _Axis, y: float) -> tuple[str, float]:
    shown = [s for s in snapshot["spans"] if s["end_ms"] >= axis.t0][-_MAX_SPANS:]
    out = [_text(16, y + 14, "spans", 12, _INK, weight=600)]
    if not shown:
        return "".join(out) + _text(_LEFT, y + 34, "no calls yet; try: %llama chat Hello", 11, _SOFT), 46
    top = y + 24
    for number, span in enumerate(shown):
        line = top + number * 14
        kind = theme.span_kind(span["name"])
        left, right = axis.x(span["start_ms"]), axis.x(span["end_ms"])
        error = span["status"] == "error"
        colour = theme.SPANS["error" if error else kind]["light"]
        out.append(
            f"<rect x='{left}' y='{line}' width='{max(1.5, right - left):.1f}' height='10' rx='1.5' fill='{colour}'/>"
        )
        label = f"{'✕ ' if error else ''}{'· ' * span['depth']}{_short(str(span['name']), 34)} {seconds((span['end_ms'] - span['start_ms']) / 1e3)}"
        if right + 6 + 5.6 * len(label) < axis.right:
            out.append(_text(max(right, left + 2) + 5, line + 9, label, 10, _INK))
        else:
            out.append(_text(left - 5, line + 9, label, 10, _INK, anchor="end"))
    return "".join(out), len(shown) * 14 + 30


def _ticks(axis: _Axis, bottom: float) -> str:
    out = []
    for number in range(5):
        t = axis.t0 + (axis.t1 - axis.t0) * number / 4
        anchor = "start" if number == 0 else "end" if number == 4 else "middle"
        label = datetime.fromtimestamp(t / 1e3).astimezone().strftime("%H:%M:%S")
        out.append(
            f"<path d='M{axis.x(t)} {bottom}v4' stroke='{_SOFT}'/>"
            + _text(axis.x(t), bottom + 16, label, 10, _SOFT, anchor=anchor)
        )
    return "".join(out) + f"<path d='M{axis.left} {bottom}H{axis.right}' stroke='{_GRID}'/>"


def _pattern(owner: str) -> str:
    style = theme.OWNERS[owner]
    marks = theme.PATTERNS[style["pattern"]]
    return (
        f"<pattern id='{owner}' width='8' height='8' patternUnits='userSpaceOnUse'>"
        f"<rect width='8' height='8' fill='{style['light']}'/>"
        f"<path d='{marks}' stroke='#fff' stroke-opacity='.55' stroke-width='1.2' fill='none'/></pattern>"
    )


def _text(x: float, y: float, text: str, px: int, colour: str, *, anchor: str = "start", weight: int = 400) -> str:
    return (
        f"<text x='{x:.0f}' y='{y:.0f}' font-size='{px}' font-weight='{weight}' fill='{colour}' text-anchor='{anchor}'>"
        f"{escape.html(text)}</text>"
    )


def _line(axis: _Axis, y: float) -> str:
    return f"<path d='M{axis.left} {y:.1f}H{axis.right}' stroke='{_GRID}'/>"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _na(value: object) -> str:
    return "n/a" if value is None else _short(str(value), 80)


def _rate(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f} tokens/s"

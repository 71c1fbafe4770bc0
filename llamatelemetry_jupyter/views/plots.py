"""Snapshot and spans as plotly figures, for people who want to restyle or embed them.

Colours are the theme's for light pages; text is escaped, because plotly reads HTML in it. What is not available is not
drawn, and a figure without data says so.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import theme
from .format import NA, count, rate, seconds, short, size

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..telemetry.sessions import Run
    from ..values import SpanRow

_FONT = "system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif"
_ON_GPU = tuple(owner for owner in theme.OWNERS if owner != "free")
_ON_HOST = _ON_GPU[:6]  # other processes would dwarf the engine
_MOST_GROUPS, _MOST_ROWS = 12, 200
_NAMES_PX = 220
#: The shapes of plotly's fills that come nearest to the theme's patterns.
_FILLS = {
    "solid": "", "diagonal": "/", "antidiagonal": "\\", "horizontal": "-", "vertical": "|", "grid": "+", "cross": "x",
    "dots": ".", "sparse": ".",
}  # fmt: skip


def memory(snapshot: Mapping[str, Any]) -> Figure:
    """Memory by owner over time, one panel per device, in GiB; of a GPU free memory lies below the dashed line."""
    from plotly.subplots import make_subplots

    devices = [one for one in snapshot["devices"] if _columns(snapshot, "memory", one["id"])]
    if not devices:
        return _empty("no readings of memory yet; try: %llama start")
    titles = [_said(one["name"]) for one in devices]
    figure = make_subplots(
        len(devices), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.3 / len(devices)
    )
    times = _times(snapshot["points"]["t_ms"])
    named: set[str] = set()
    for number, device in enumerate(devices, 1):
        columns = {series["owner"]: values for series, values in _columns(snapshot, "memory", device["id"])}
        for owner in _ON_HOST if device["id"] == "host" else _ON_GPU:
            if owner not in columns:
                continue
            look = theme.OWNERS[owner]
            figure.add_scatter(
                x=times, y=[None if v is None else v / 2**30 for v in columns[owner]], row=number, col=1,
                name=look["label"], legendgroup=owner, showlegend=owner not in named, stackgroup=device["id"],
                line={"width": 0.5, "color": look["light"]}, fillcolor=look["light"],
                fillpattern={
                    "shape": _FILLS[look["pattern"]], "fgopacity": 0.5, "fgcolor": "#fff", "bgcolor": look["light"],
                },
                customdata=[size(v) for v in columns[owner]], hovertemplate="%{customdata}",
            )  # fmt: skip
            named.add(owner)
        if device["total_bytes"] and device["id"] != "host":
            figure.add_hline(
                device["total_bytes"] / 2**30, row=number, col=1, line={"dash": "dash", "color": "#59636e"}
            )
        figure.update_yaxes(title_text="GiB", rangemode="tozero", row=number, col=1)
    return _laid_out(figure, "Memory by owner", 140 + 220 * len(devices), hovermode="x unified")


def throughput(snapshot: Mapping[str, Any]) -> Figure:
    """Tokens per second over time as the servers counted them, and each call's own decode rate as a dot."""
    import plotly.graph_objects as go

    figure = go.Figure()
    times = _times(snapshot["points"]["t_ms"])
    look = {"decode": ("decode", "solid"), "input": ("prefill", "dot")}
    for series, values in _columns(snapshot, "tokens"):
        kind, dash = look.get(str(series["id"]).rpartition("/")[2], ("other", "dash"))
        name = f"{_said(series['label'])}, {_said(series['server'])}"
        line = {"color": theme.SPANS[kind]["light"], "dash": dash, "width": 1.5}
        figure.add_scatter(x=times, y=values, name=name, mode="lines", line=line, connectgaps=False)
    calls = [one for one in snapshot["spans"] if _is_call(one["name"]) and one["decode_tokens_per_s"] is not None]
    if calls:
        figure.add_scatter(
            x=_times([one["end_ms"] for one in calls]), y=[one["decode_tokens_per_s"] for one in calls], mode="markers",
            name="decode rate of a call",
            marker={"color": theme.SPANS["chat"]["light"], "symbol": "circle-open", "size": 8},
            text=[_said(f"{one['name']}: {count(one['output_tokens'])} tokens") for one in calls],
            hovertemplate="%{text}<br>%{y:.1f} tokens/s<extra></extra>",
        )  # fmt: skip
    if not figure.data:
        return _empty("no tokens yet; try: %llama chat Hello")
    figure.update_yaxes(title_text="tokens/s", rangemode="tozero")
    return _laid_out(figure, "Tokens per second", 360)


def latency(rows: Sequence[SpanRow]) -> Figure:
    """How long calls took and how soon the first token came: each call a dot, quartiles as a box, by model."""
    from plotly.subplots import make_subplots

    calls = [row for row in rows if _is_call(row.name)]
    if not calls:
        return _empty("no calls yet; try: %llama chat Hello")
    figure = make_subplots(1, 2, subplot_titles=("first token", "whole call"), horizontal_spacing=0.12)
    groups: dict[str, list[SpanRow]] = {}
    for row in calls:
        groups.setdefault(row.model or NA, []).append(row)
    most = sorted(groups, key=lambda name: -len(groups[name]))[:_MOST_GROUPS]
    for number, name in enumerate(most):
        color = list(theme.OWNERS.values())[number % 7]["light"]
        for column, values in (
            (1, [row.ttft_s for row in groups[name] if row.ttft_s is not None]),
            (2, [row.duration_s for row in groups[name]]),
        ):
            figure.add_box(
                y=values, name=_said(name), legendgroup=str(number), showlegend=column == 2, row=1, col=column,
                boxpoints="all", jitter=0.4, pointpos=-1.6, marker={"color": color, "size": 5, "opacity": 0.7},
                line={"width": 1.2}, width=0.3,
            )  # fmt: skip
    figure.update_yaxes(title_text="seconds", rangemode="tozero")
    left_out = f" (the {_MOST_GROUPS} models with most calls)" if len(groups) > _MOST_GROUPS else ""
    return _laid_out(figure, f"Latency of {count(len(calls))} calls{left_out}", 400)


def waterfall(rows: Sequence[SpanRow]) -> Figure:
    """One trace: a bar per span over the seconds since it began, children below their parents."""
    import plotly.graph_objects as go

    from .text import walk

    if not rows:
        return _empty("no trace yet; try: %llama chat Hello")
    tree = walk(rows)[:_MOST_ROWS]
    ordered, begin = [row for row, _ in tree], min(row.start_ns for row in rows)
    figure = go.Figure()
    for kind, look in theme.SPANS.items():
        of = [
            i for i, row in enumerate(ordered)
            if ("error" if row.status == "error" else theme.span_kind(row.name)) == kind
        ]  # fmt: skip
        if of:
            figure.add_bar(
                y=of, x=[ordered[i].duration_s for i in of], base=[(ordered[i].start_ns - begin) / 1e9 for i in of],
                orientation="h", name=look["label"], marker={"color": look["light"]}, width=0.7,
                customdata=[_facts(ordered[i]) for i in of], hovertemplate="%{customdata}<extra></extra>",
                text=["✕" if kind == "error" else "" for _ in of], textposition="outside",
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, showticklabels=False)
    for place, (row, indent) in enumerate(tree):
        figure.add_annotation(
            x=0, y=place, xref="x domain", xshift=-_NAMES_PX, xanchor="left", showarrow=False, align="left",
            text=f"{indent.replace(' ', '&nbsp;')}{_said(row.name, 30)}", font={"size": 11},
        )  # fmt: skip
    figure.update_xaxes(title_text="seconds since the first span began", rangemode="tozero", type="linear")
    left_out = f", {len(rows) - len(ordered)} spans are not drawn" if len(rows) > len(ordered) else ""
    title = f"Trace {_said(rows[0].trace_id[:8])}{left_out}"
    _laid_out(figure, title, 150 + 22 * len(ordered), barmode="overlay")
    return figure.update_layout(margin_l=_NAMES_PX + 10, title_x=0, title_xref="container", title_pad_l=10)


def compare(runs: Sequence[Run]) -> Figure:
    """Runs side by side, a panel per figure: rate, first token, whole call, peak memory, energy per token."""
    from plotly.subplots import make_subplots

    panels: tuple[tuple[str, str, Any], ...] = (
        ("tokens/s", "decode_tokens_per_s", rate),
        ("first token", "ttft_s", seconds),
        ("whole call", "duration_s", seconds),
        ("peak memory", "peak_bytes", size),
        ("J per token", "energy_per_token_j", rate),
    )
    shown = [one for one in panels if any(getattr(run, one[1]) is not None for run in runs)]
    if not shown:
        return _empty("these sessions have no calls")
    figure = make_subplots(1, len(shown), subplot_titles=[name for name, *_ in shown])
    for column, (_, field, words) in enumerate(shown, 1):
        values = [getattr(run, field) for run in runs]
        for number, (run, value) in enumerate(zip(runs, values, strict=True)):
            figure.add_bar(
                x=[_said(run.id, 24)], y=[value], text=[words(value)], row=1, col=column, showlegend=False,
                marker={"color": list(theme.OWNERS.values())[number % 7]["light"]}, name=_said(run.id, 24),
                hovertemplate=f"{_said(run.id)}: %{{text}}<extra></extra>",
            )  # fmt: skip
    figure.update_yaxes(rangemode="tozero", showticklabels=False)
    return _laid_out(figure, "Runs compared: medians over calls", 360)


def _columns(
    snapshot: Mapping[str, Any], group: str, device: str | None = None
) -> list[tuple[Mapping[str, Any], list[Any]]]:
    pairs: Iterable[tuple[Mapping[str, Any], list[Any]]] = zip(
        snapshot["series"], snapshot["points"]["values"], strict=True
    )
    return [(one, values) for one, values in pairs if one["group"] == group and device in (None, one.get("device"))]


def _times(t_ms: Iterable[float]) -> list[datetime]:
    """Local times without a zone: plotly shows them as they stand."""
    return [datetime.fromtimestamp(t / 1e3) for t in t_ms]  # noqa: DTZ006


def _facts(row: SpanRow) -> str:
    facts = [
        f"<b>{_said(row.name)}</b>",
        seconds(row.duration_s),
        f"{count(row.input_tokens)} → {count(row.output_tokens)} tokens" if row.output_tokens is not None else "",
        f"{rate(row.decode_tokens_per_s)} tokens/s" if row.decode_tokens_per_s is not None else "",
        f"first token {seconds(row.ttft_s)}" if row.ttft_s is not None else "",
        f"peak {size(row.peak_bytes)}" if row.peak_bytes is not None else "",
        f"{rate(row.energy_j)} J" if row.energy_j is not None else "",
        f"error: {_said(row.error_type or 'unknown')}" if row.status == "error" else "",
    ]
    return "<br>".join(fact for fact in facts if fact)


def _is_call(name: str) -> bool:
    return theme.span_kind(name) == "chat"


def _said(value: object, most: int = 80) -> str:
    """Other people's text on one line, without markup; ``$`` begins TeX in plotly."""
    text = short(value, most).encode("utf-8", "replace").decode()
    return html.escape(text).replace("$", "&#36;").replace("%{", "%&#123;")


def _laid_out(figure: Figure, title: str, height: int, **more: Any) -> Figure:
    figure.update_layout(
        template="plotly_white", title={"text": title, "x": 0, "xanchor": "left", "xref": "paper"}, height=height,
        font={"family": _FONT, "size": 12}, margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": -0.15, "yanchor": "top", "x": 0}, **more,
    )  # fmt: skip
    return figure


def _empty(why: str) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_annotation(text=why, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return _laid_out(figure, "", 200)

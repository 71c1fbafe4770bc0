"""A graph drawn here: the picture that needs no account, and the files that any graph tool reads."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .. import escape
from ..values import GraphFrames
from . import theme

if TYPE_CHECKING:
    from pandas import DataFrame

_WIDTH, _MARGIN, _ROW = 900, 24, 34
_MAX_DRAWN = 2000
_MAX_LABELS = 120
_SHAPES = {
    "square": "M-6 -6h12v12h-12z",
    "circle": "M0 -7a7 7 0 1 0 .01 0z",
    "triangle": "M0 -7L7 6H-7z",
    "diamond": "M0 -8L8 0L0 8L-8 0z",
    "hexagon": "M-4 -7h8l4 7l-4 7h-8l-4 -7z",
    "cross": "M-6 -6L6 6M6 -6L-6 6",
}


class Drawing:
    """A graph that shows itself as a picture; ``nodes`` and ``edges`` are DataFrames."""

    def __init__(self, frames: GraphFrames, url: str | None = None) -> None:
        self.frames = frames
        self.url = url

    @property
    def nodes(self) -> DataFrame:
        """One row per node: id kind label trace_id start_ns duration_s tokens status x y."""
        return self.frames.nodes

    @property
    def edges(self) -> DataFrame:
        """One row per edge: source target kind count p50_s p95_s."""
        return self.frames.edges

    def __repr__(self) -> str:
        traces = self.nodes["trace_id"].nunique()
        where = f", {self.url}" if self.url else ""
        return f"graph of {len(self.nodes)} nodes and {len(self.edges)} edges from {traces} trace(s){where}"

    def _repr_html_(self) -> str:
        return graph_html(self.frames, self.url)


def graph_html(frames: GraphFrames, url: str | None = None) -> str:
    """The picture as an ``<img>`` and a line of counts; with a link when the graph is on a server."""
    encoded = base64.b64encode(graph_svg(frames).encode()).decode()
    said = escape.html(repr(Drawing(frames)))
    link = f' · <a href="{escape.html(url)}">{escape.html(url)}</a>' if url and url.startswith("https://") else ""
    return f'<img alt="{said}" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}"><div>{said}{link}</div>'


def graph_svg(frames: GraphFrames, width: int = _WIDTH) -> str:
    """Nodes by time and depth, edges from parent to child; the first 2,000 nodes of a larger graph, which it says."""
    nodes = frames.nodes.head(_MAX_DRAWN)
    span = max([float(str(x)) for x in nodes["x"]], default=0.0) or 1e-9
    levels = {y: i for i, y in enumerate(sorted(set(nodes["y"]), reverse=True))}
    # Children of one parent may start within a pixel of each other: each gets at least a node's width.
    place: dict[str, tuple[float, float]] = {}
    free = dict.fromkeys(levels, float(_MARGIN))
    gap = 26.0 if len(nodes) <= _MAX_LABELS else 3.0
    for node in nodes.sort_values(["x", "y"]).itertuples():
        x = max(_MARGIN + cast("float", node.x) / span * (width - 2 * _MARGIN - 150), free[node.y])
        free[node.y] = x + gap
        place[str(node.id)] = (x, 70 + levels[node.y] * _ROW)
    right = max([x for x, _ in place.values()], default=0.0) + 150
    shown_width, height = max(width, round(right)), 70 + max(len(levels), 1) * _ROW
    out = [_legend(set(nodes["kind"]) | ({"error"} if (nodes["status"] == "error").any() else set()))]
    for edge in frames.edges.itertuples():
        if str(edge.source) in place and str(edge.target) in place:
            (x0, y0), (x1, y1) = place[str(edge.source)], place[str(edge.target)]
            out.append(
                f"<path d='M{x0:.0f} {y0}C{x0:.0f} {y0 + 17} {x1:.0f} {y1 - 17} {x1:.0f} {y1}' fill='none' stroke='#c3c9d0'/>"
            )
    labelled: dict[float, float] = {}
    for node in nodes.sort_values(["y", "x"], ascending=[False, False]).itertuples():
        x, y = place[str(node.id)]
        out.append(_mark(str(node.kind) if node.status != "error" else "error", x, y))
        label = f"{str(node.label)[:28]} {node.duration_s:.2f} s"
        if len(nodes) <= _MAX_LABELS and x + 10 + 5.6 * len(label) < labelled.get(y, shown_width):
            out.append(f"<text x='{x + 11:.0f}' y='{y + 4}' font-size='10' fill='#1f2328'>{escape.html(label)}</text>")
        labelled[y] = x - 8
    if len(frames.nodes) > _MAX_DRAWN:
        out.append(
            f"<text x='{width - 16}' y='24' font-size='11' text-anchor='end' fill='#59636e'>the first {_MAX_DRAWN:,} of {len(frames.nodes):,} nodes</text>"
        )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{shown_width}' height='{height}' viewBox='0 0 {shown_width} {height}' "
        f"font-family='system-ui,sans-serif'><rect width='{shown_width}' height='{height}' rx='8' fill='#fff' stroke='#e3e6ea'/>"
        f"{''.join(out)}</svg>"
    )


def write_files(frames: GraphFrames, folder: Path) -> list[Path]:
    """``nodes`` and ``edges`` as CSV and Parquet, and ``graph.html``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in (("nodes", frames.nodes), ("edges", frames.edges)):
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
    page = folder / "graph.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>trace graph</title>{graph_html(frames)}", encoding="utf-8"
    )
    return [*written, page]


def _mark(kind: str, x: float, y: float) -> str:
    style = theme.SPANS[kind if kind in theme.SPANS else "other"]
    stroke = f" stroke='{style['light']}' stroke-width='3'" if style["shape"] == "cross" else " stroke='#fff'"
    return f"<path d='{_SHAPES[style['shape']]}' transform='translate({x:.0f} {y})' fill='{style['light']}'{stroke}/>"


def _legend(kinds: set[str]) -> str:
    out, x = [], 24.0
    for kind, style in theme.SPANS.items():
        if kind in kinds:
            out.append(
                _mark(kind, x, 24)
                + f"<text x='{x + 12:.0f}' y='28' font-size='11' fill='#1f2328'>{style['label']}</text>"
            )
            x += 34 + 6.4 * len(style["label"])
    return "".join(out)

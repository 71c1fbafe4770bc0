"""A graph drawn here: the picture that needs no account, and the files that any graph tool reads.

A session is drawn in columns (:mod:`.layers`). Of traces up to :data:`MAX_NODES` nodes are drawn one by one, trace
beside trace, time to the right and depth downwards. A larger graph is drawn as what it repeats: one mark for all spans
of one name under one parent, with count and latencies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

from .. import escape
from ..values import GraphFrames
from . import theme
from .format import clock, count, seconds
from .layers import LOOKS, Box, mark, session_boxes, session_svg, session_table
from .svg import GRID, INK, SOFT, document, image, label, stroke

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..graphistry.parts import Summary

WIDTH = 840
MAX_NODES = 400
_MAX_LABELLED = 60
_MAX_GROUPS = 40
_EDGE = 24


@dataclass(slots=True)
class _Node:
    id: str
    kind: str
    label: str
    trace_id: str
    start_s: float
    duration_s: float
    tokens: int | None
    y: float
    children: list[_Node] = field(default_factory=list)


class Drawing:
    """A graph that shows itself as a picture; ``nodes`` and ``edges`` are DataFrames, ``url`` where it was sent."""

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
        where = f", {escape.plain(self.url)}" if self.url else ""
        size = f"graph of {_many(len(self.nodes), 'node')} and {_many(len(self.edges), 'edge')}"
        if _is_session(self.frames):
            return f"session {size}{where}"
        return f"{size}, {_many(int(self.nodes['trace_id'].nunique()), 'trace')}{where}"

    def _repr_html_(self) -> str:
        return graph_html(self.frames, self.url)


def graph_html(frames: GraphFrames, url: str | None = None) -> str:
    """The picture as an ``<img>``, a table of what it holds, and a link when the graph is on a server."""
    said = repr(Drawing(frames))
    link = f'<div><a href="{escape.html(url)}">{escape.html(url)}</a></div>' if url and _is_web(url) else ""
    table = session_table(_boxes(frames))._repr_html_() if _is_session(frames) else _kinds_table(frames)
    return f"{image(graph_svg(frames), said)}<div>{escape.html(said)}</div>{link}{table}"


def graph_svg(frames: GraphFrames, width: int = WIDTH) -> str:
    """The graph as an SVG document of ``width`` pixels, or more where a session has many columns."""
    nodes = _nodes(frames)
    if not nodes:
        return document(label(_EDGE, 34, "no spans yet – try: %llama chat Hello", 12, SOFT), width, 56)
    if _is_session(frames):
        links = zip(*(frames.edges[name].tolist() for name in ("source", "target", "count")), strict=True)
        return _session_svg(_boxes(frames), links, width)
    kinds = sorted({node.kind for node in nodes}, key=list(LOOKS).index)
    if len(nodes) <= MAX_NODES:
        body, height = _traces(nodes, frames, width)
    else:
        body, height = _groups(_forest(nodes, frames), len(nodes), width)
    return document(_legend(kinds) + body, width, height + 16)


def session_html(summary: Summary, max_bytes: int) -> str:
    """The picture of a session and a table of what it holds; without the picture where that is more than ``max_bytes``."""
    boxes = session_boxes(summary)
    links = [(source, target, len(took)) for (source, target, _), took in summary.links.items()]
    said = f"graph of the session: {_many(len(boxes), 'node')} and {_many(len(links), 'edge')}"
    table = session_table(boxes)._repr_html_()
    made = image(_session_svg(boxes, links, WIDTH), said) + table
    return made if len(made.encode("utf-8", "replace")) <= max_bytes else f"<div>{said}, too large to draw</div>{table}"


def _session_svg(boxes: Sequence[Box], links: Iterable[tuple[str, str, int]], width: int) -> str:
    body, right, height = session_svg(boxes, links, _EDGE, 58)
    return document(_legend(dict.fromkeys(one.kind for one in boxes)) + body, max(width, right + _EDGE), height + 16)


def write_files(frames: GraphFrames, folder: Path) -> list[Path]:
    """``nodes`` and ``edges`` as CSV and Parquet, and ``graph.html``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in (("nodes", frames.nodes), ("edges", frames.edges)):
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
    page = folder / "graph.html"
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>trace graph</title>"
    style = "margin:24px;font:14px system-ui,sans-serif"
    page.write_text(f'{head}<body style="{style}">{graph_html(frames)}</body></html>', encoding="utf-8")
    return [*written, page]


def _nodes(frames: GraphFrames) -> list[_Node]:
    columns = [frames.nodes[name].tolist() for name in ("id", "kind", "label", "trace_id", "x", "duration_s", "y")]
    status, tokens = frames.nodes["status"].tolist(), frames.nodes["tokens"].tolist()
    starts = [ns / 1e9 for ns in frames.nodes["start_ns"].tolist()]
    made = []
    for (one, kind, name, trace, _, took, y), said, many, start in zip(
        zip(*columns, strict=True), status, tokens, starts, strict=True
    ):
        made.append(_Node(one, "error" if said == "error" else kind, name, trace, start, took, _known(many), y))
    return made


def _boxes(frames: GraphFrames) -> list[Box]:
    """Of :func:`..graphistry.builders.session_graph`."""
    counted: dict[str, int] = defaultdict(int)
    for target, many in zip(frames.edges["target"].tolist(), frames.edges["count"].tolist(), strict=True):
        counted[target] += many
    read = (frames.nodes[name].tolist() for name in ("id", "kind", "label", "x", "y", "duration_s", "tokens", "status"))
    return [
        Box(one, kind, text, int(x), -int(y), took, _known(many), counted[one] > 1, status == "error")
        for one, kind, text, x, y, took, many, status in zip(*read, strict=True)
    ]


def _known(tokens: object) -> int | None:
    return int(tokens) if isinstance(tokens, int | float) and math.isfinite(tokens) else None


def _forest(nodes: Sequence[_Node], frames: GraphFrames) -> list[_Node]:
    """The roots, with their children in order of time."""
    by_id = {node.id: node for node in nodes}
    below = set()
    for source, target in zip(frames.edges["source"].tolist(), frames.edges["target"].tolist(), strict=True):
        if source in by_id and target in by_id and target not in below:
            by_id[source].children.append(by_id[target])
            below.add(target)
    for node in nodes:
        node.children.sort(key=lambda n: n.start_s)
    return [node for node in nodes if node.id not in below]


def _traces(nodes: Sequence[_Node], frames: GraphFrames, width: int) -> tuple[str, float]:
    labelled = len(nodes) <= _MAX_LABELLED
    step, room, column = (30, 132, 136) if labelled else (18, 12, 16)
    traces: dict[str, list[_Node]] = {}
    for node in sorted(nodes, key=lambda n: n.start_s):
        traces.setdefault(node.trace_id, []).append(node)
    place: dict[str, tuple[float, float]] = {}
    out: list[str] = []
    x, top, tallest = float(_EDGE), 58.0, 0.0
    for members in traces.values():
        levels = {y: i for i, y in enumerate(sorted({n.y for n in members}, reverse=True))}
        across = max(sum(n.y == y for n in members) for y in levels)
        block = min(width - 2 * _EDGE, room + column * max(1, across) if labelled else room + column * across)
        if x > _EDGE and x + block > width - _EDGE:
            x, top, tallest = float(_EDGE), top + tallest + 18, 0.0
        head = 22 if labelled else 8
        if labelled:
            out.append(
                label(x - 6, top + 8, f"{clock(members[0].start_s * 1e3)} · {members[0].trace_id[:8]}", 10, SOFT)
            )
        _place(members, levels, (x, top + head + 10, block - room, step), place)
        if labelled:
            out += _labels(members, place, x + block - 8)
        tallest = max(tallest, head + 22 + step * (len(levels) - 1))
        x += block + 12
    edges = zip(frames.edges["source"].tolist(), frames.edges["target"].tolist(), strict=True)
    turn = step * 0.45  # between two levels, where no label is
    lines = "".join(
        f"M{a[0]:.0f} {a[1]:.0f}V{b[1] - turn:.0f}H{b[0]:.0f}V{b[1]:.0f}"
        for a, b in ((place[s], place[t]) for s, t in edges if s in place and t in place)
    )
    marks = "".join(mark(n.kind, *place[n.id], 1.0 if labelled else 0.6) for n in nodes)
    return stroke(lines, "#c3c9d0", 1) + marks + "".join(out), top + tallest


def _place(
    members: Sequence[_Node],
    levels: Mapping[float, int],
    box: tuple[float, float, float, float],
    place: dict[str, tuple[float, float]],
) -> None:
    """Positions in a block: time to the right, but never nearer to the left neighbour than marks need."""
    left, top, across, step = box
    first = members[0].start_s
    span = max(n.start_s for n in members) - first or 1.0
    nearest = min(22.0, across / max(1, len(members)))
    free = dict.fromkeys(levels, left)
    for node in members:
        x = max(left + (node.start_s - first) / span * across, free[node.y])
        free[node.y] = x + nearest
        place[node.id] = (x, top + levels[node.y] * step)


def _labels(members: Sequence[_Node], place: Mapping[str, tuple[float, float]], right: float) -> list[str]:
    out = []
    next_x: dict[float, float] = {}
    for node in sorted(members, key=lambda n: -place[n.id][0]):
        x, y = place[node.id]
        width = next_x.get(y, right) - x - 20
        next_x[y] = x
        if width > 24:
            tokens = f", {count(node.tokens)} tok" if node.tokens is not None else ""
            out.append(label(x + 11, y + 0.5, node.label, 10.5, INK, width=width))
            out.append(label(x + 11, y + 11, f"{seconds(node.duration_s)}{tokens}", 9, SOFT, width=width))
    return out


@dataclass(slots=True)
class _Group:
    kind: str
    label: str
    depth: int
    durations: list[float]
    tokens: int
    row: int = 0
    parent: _Group | None = None


def _groups(roots: Sequence[_Node], total: int, width: int) -> tuple[str, float]:
    """Spans of one name under one parent group as one mark, in an indented list."""
    groups: list[_Group] = []
    stack: list[tuple[list[_Node], _Group | None]] = [(list(roots), None)]
    while stack:
        nodes, parent = stack.pop()
        if parent is not None:
            groups.append(parent)
        alike: dict[tuple[str, str], list[_Node]] = {}
        for node in nodes:
            alike.setdefault((node.kind, node.label), []).append(node)
        for (kind, name), members in reversed(alike.items()):
            depth = parent.depth + 1 if parent else 0
            tokens = sum(n.tokens or 0 for n in members)
            made = _Group(kind, name, depth, [n.duration_s for n in members], tokens, parent=parent)
            stack.append(([child for n in members for child in n.children], made))
    kept = set(map(id, sorted(groups, key=lambda g: (g.depth, -len(g.durations)))[:_MAX_GROUPS]))
    shown = [g for g in groups if id(g) in kept]
    top, step = 80.0, 26
    out = [
        label(_EDGE - 6, 58, f"{count(total)} spans: one mark per name under one parent", 11, SOFT),
        *(label(x, 58, name, 11, SOFT, anchor="end") for x, name in _columns(width)),
    ]
    lines = ""
    for row, group in enumerate(shown):
        group.row = row
        x, y = _EDGE + 24 * min(group.depth, 8), top + row * step
        if group.parent is not None:
            px, py = _EDGE + 24 * min(group.parent.depth, 8), top + group.parent.row * step
            lines += f"M{px} {py:.0f}V{y:.0f}H{x}"
        out.append(mark(group.kind, x, y))
        out.append(label(x + 14, y + 4, group.label, 12, INK, width=width - 340 - x))
        values = (count(len(group.durations)), *map(seconds, _middle(group.durations)), count(group.tokens or None))
        for (at, _), value in zip(_columns(width), values, strict=True):
            out.append(label(at, y + 4, "" if value == "n/a" else value, 12, INK, anchor="end"))
    height = top + step * len(shown)
    if len(groups) > len(shown):
        more = f"{count(len(groups) - len(shown))} rarer names not drawn"
        out.append(label(_EDGE - 6, height + 2, more, 11, SOFT))
        height += 16
    return stroke(lines, "#c3c9d0", 1) + "".join(out), height


def _columns(width: int) -> list[tuple[float, str]]:
    return [(width - 246, "spans"), (width - 172, "p50"), (width - 98, "p95"), (width - _EDGE, "tokens")]


def _middle(durations: Sequence[float]) -> tuple[float, float]:
    if len(durations) == 1:
        return durations[0], durations[0]
    cuts = quantiles(durations, n=20, method="inclusive")
    return cuts[9], cuts[18]


def _legend(kinds: Iterable[str]) -> str:
    out, x = [], float(_EDGE)
    for kind in kinds:
        said = LOOKS[kind]["label"]
        out.append(mark(kind, x, 26) + label(x + 12, 30, said, 11, INK))
        x += 38 + 6.8 * len(said)
    return "".join(out) + stroke(f"M{_EDGE - 6} 42H{WIDTH - _EDGE + 6}", GRID)


def _kinds_table(frames: GraphFrames) -> str:
    from .text import Table

    if not len(frames.nodes):
        return ""
    rows = []
    for kind, style in theme.SPANS.items():
        chosen = frames.nodes[frames.nodes["kind"] == kind]
        if len(chosen):
            failed = int((chosen["status"] == "error").sum())
            tokens = int(chosen["tokens"].fillna(0).sum())
            took = _middle(chosen["duration_s"].tolist())
            rows.append(
                (
                    style["label"],
                    count(len(chosen)),
                    *map(seconds, took),
                    count(tokens) if tokens else "",
                    count(failed),
                )
            )
    headers = ("kind", "spans", "p50", "p95", "tokens", "errors")
    return Table(headers, tuple(rows), frozenset(headers[1:]))._repr_html_()


def _is_session(frames: GraphFrames) -> bool:
    return bool((frames.nodes["kind"] == "notebook").any())


def _is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def _many(number: int, word: str) -> str:
    return f"{count(number)} {word}{'' if number == 1 else 's'}"

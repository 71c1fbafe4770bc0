"""Span rows as the nodes and edges of a graph, laid out by us.

Columns are flat and of one type each, because a graph server refuses nested, mixed and untyped ones; labels are span
names, so that no prompt, answer, path or host is in a graph. The layout is x = time, y = depth: a trace needs no
force-directed layout, and those take minutes where this takes milliseconds.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from .. import escape
from ..values import GraphFrames, SpanRow

if TYPE_CHECKING:
    from pandas import DataFrame

_PHASES = frozenset({"queue", "prefill", "decode"})
_OPERATIONS = frozenset({"chat", "text_completion", "generate_content", "embeddings", "rerank"})
_PATH = re.compile(r"(?:[A-Za-z]:)?[^\s/\\]*[/\\](?:[^\s/\\]*[/\\])*(?=[^\s/\\]*)")
_MAX_LABEL = 200


def trace_tree(rows: Sequence[SpanRow]) -> GraphFrames:
    """One node per span and one edge from each span to its children, for one trace or many.

    nodes: id kind label trace_id (text), start_ns (int64), duration_s (float64), tokens (Int64, <NA> where a span has
    none), status (text), x (float64, seconds since the earliest start), y (float64, minus the level). edges: source
    target kind (text), count (int64), p50_s p95_s (float64). No two nodes are in one place: what overlaps in time gets
    a lane of its own. A single span gives an edge frame without rows whose columns have these types all the same.
    """
    import pandas as pd

    rows = _unique(rows)
    labels = {name: label(name) for name in {row.name for row in rows}}
    first = min((row.start_ns for row in rows), default=0)
    nodes = pd.DataFrame(
        {
            "id": pd.Series([row.span_id for row in rows], dtype="string"),
            "kind": pd.Series([kind(row) for row in rows], dtype="string"),
            "label": pd.Series([labels[row.name] for row in rows], dtype="string"),
            "trace_id": pd.Series([row.trace_id for row in rows], dtype="string"),
            "start_ns": pd.Series([row.start_ns for row in rows], dtype="int64"),
            "duration_s": pd.Series([row.duration_s for row in rows], dtype="float64"),
            "tokens": pd.Series([row.output_tokens for row in rows], dtype="Int64"),
            "status": pd.Series([row.status for row in rows], dtype="string"),
            "x": pd.Series([(row.start_ns - first) / 1e9 for row in rows], dtype="float64"),
            "y": -pd.Series(_levels(rows), dtype="float64"),
        }
    )
    return GraphFrames(nodes, _edges(rows))


def kind(row: SpanRow) -> str:
    """``cell``, ``chat``, ``queue``, ``prefill``, ``decode`` or ``other``."""
    first = row.name.partition(" ")[0]
    if first in _OPERATIONS or "gen_ai.operation.name" in row.attributes:
        return "chat"
    if row.name in ("notebook cell", "cell"):
        return "cell"
    return row.name if row.name in _PHASES else "other"


def label(name: str) -> str:
    """A span's name, harmless and not too long, without the folders of a path (a model may be named by its file)."""
    shown = escape.plain(name[:2000])
    shown = _PATH.sub("", shown) if "/" in shown or "\\" in shown else shown
    return shown if len(shown) <= _MAX_LABEL else shown[: _MAX_LABEL - 1] + "…"


def _unique(rows: Sequence[SpanRow]) -> list[SpanRow]:
    # A node's id must be unique in a graph; a span that came twice (two exporters, a replay) counts once.
    return list({row.span_id: row for row in rows}.values())


def _edges(rows: Sequence[SpanRow]) -> DataFrame:
    import pandas as pd

    known = {row.span_id for row in rows}
    children = [row for row in rows if row.parent_id in known]
    durations = [row.duration_s for row in children]
    return pd.DataFrame(
        {
            "source": pd.Series([row.parent_id for row in children], dtype="string"),
            "target": pd.Series([row.span_id for row in children], dtype="string"),
            "kind": pd.Series(["parent"] * len(children), dtype="string"),
            "count": pd.Series([1] * len(children), dtype="int64"),
            "p50_s": pd.Series(durations, dtype="float64"),
            "p95_s": pd.Series(durations, dtype="float64"),
        }
    )


def _levels(rows: Sequence[SpanRow]) -> list[int]:
    """The level of each row: its trace's band, then its depth, then a lane beside siblings that overlap it in time."""
    if not rows:
        return []
    depth = _depths(rows)
    start_ns, end_ns = [row.start_ns for row in rows], [row.end_ns for row in rows]
    begin, end = min(start_ns), max(end_ns)
    # Points that are nearer than this would cover each other in a picture of the whole.
    gap = max(1, (end - begin) // max(60, len(rows)))
    traces: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        traces.setdefault(row.trace_id, []).append(index)
    level = [0] * len(rows)
    extents = []
    for members in traces.values():
        by_depth: dict[int, list[int]] = {}
        for index in members:
            by_depth.setdefault(depth[rows[index].span_id], []).append(index)
        height = 0
        for _, siblings in sorted(by_depth.items()):
            if len(siblings) == 1:
                level[siblings[0]] = height
                height += 1
                continue
            lanes = _lanes((start_ns[i], max(end_ns[i], start_ns[i] + gap)) for i in siblings)
            for index, lane in zip(siblings, lanes, strict=True):
                level[index] = height + lane
            height += max(lanes) + 1
        starts = [start_ns[i] for i in members]
        extents.append((min(starts), max(*(end_ns[i] for i in members), max(starts) + gap), height))
    bands = _lanes((start, end) for start, end, _ in extents)
    heights = [0] * (max(bands) + 1)
    for band, (_, _, height) in zip(bands, extents, strict=True):
        heights[band] = max(heights[band], height)
    tops = list(accumulate(heights, initial=0))
    for band, members in zip(bands, traces.values(), strict=True):
        for index in members:
            level[index] += tops[band]
    return level


def _lanes(intervals: Iterable[tuple[int, int]]) -> list[int]:
    """The lowest lane for each interval in which it overlaps none before it."""
    known = list(intervals)
    out = [0] * len(known)
    if all(a[1] <= b[0] for a, b in pairwise(known)):  # one after another, as calls mostly are
        return out
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    used = 0
    for start, end, index in sorted((start, end, index) for index, (start, end) in enumerate(known)):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, used = used, used + 1
        heapq.heappush(busy, (end, lane))
        out[index] = lane
    return out


def _depths(rows: Sequence[SpanRow]) -> dict[str, int]:
    parent = {row.span_id: row.parent_id for row in rows}
    depth: dict[str, int] = {}
    for row in rows:
        chain: dict[str, None] = {}
        at: str | None = row.span_id
        while at is not None and at in parent and at not in depth and at not in chain:
            chain[at] = None
            at = parent[at]
        level = depth.get(at, -1) if at is not None else -1
        for span_id in reversed(chain):
            level += 1
            depth[span_id] = level
    return depth

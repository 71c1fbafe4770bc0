"""Span rows as the nodes and edges of a graph, laid out by us: a span a node, or a session by what it repeats.

Columns are flat and of one type each, because a graph server refuses nested, mixed and untyped ones; labels are span
names, so that no prompt, answer, path or host is in a graph. The layout is x = time, y = depth: a trace needs no
force-directed layout, and those take minutes where this takes milliseconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ..values import GraphFrames, SpanRow
from .parts import depths, kind, label, quantile, unique
from .summary import session

if TYPE_CHECKING:
    from pandas import DataFrame


def trace_tree(rows: Sequence[SpanRow]) -> GraphFrames:
    """One node per span and one edge from each span to its children, for one trace or many.

    nodes: id kind label trace_id (text), start_ns (int64), duration_s (float64), tokens (Int64, <NA> where a span has
    none), status (text), x (float64, seconds since the earliest start), y (float64, minus the level). edges: source
    target kind (text), count (int64), p50_s p95_s (float64). No two nodes are in one place: what overlaps in time gets
    a lane of its own. A single span gives an edge frame without rows whose columns have these types all the same.
    """
    import pandas as pd

    rows = unique(rows)
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


def session_graph(rows: Sequence[SpanRow]) -> GraphFrames:
    """Notebook → cell → trace → span → model → device of one session, with kinds of errors, in the tree's columns.

    There is one node per cell, trace, name of spans, model, device and kind of error, whatever the number of spans:
    labels of nodes that stand for several end with ``× 25``, ``duration_s`` is then the median, ``tokens`` the sum,
    ``start_ns`` the first one's, ``trace_id`` the newest one's, ``status`` is ``error`` when any of them failed. Edges
    have the count and the latencies of the spans behind them; kinds: contains, parent, model, device, error. ``x`` is
    the column, ``y`` minus the row.
    """
    import pandas as pd

    made = session(rows)
    parts, links = made.parts, {link: sorted(took) for link, took in made.links.items()}
    nodes = pd.DataFrame(
        {
            "id": pd.Series([part.id for part in parts], dtype="string"),
            "kind": pd.Series([part.kind for part in parts], dtype="string"),
            "label": pd.Series([part.title for part in parts], dtype="string"),
            "trace_id": pd.Series([part.newest.trace_id for part in parts], dtype="string"),
            "start_ns": pd.Series([part.start_ns for part in parts], dtype="int64"),
            "duration_s": pd.Series([part.duration_s for part in parts], dtype="float64"),
            "tokens": pd.Series([part.tokens for part in parts], dtype="Int64"),
            "status": pd.Series(["error" if part.errors else part.newest.status for part in parts], dtype="string"),
            "x": pd.Series([part.level for part in parts], dtype="float64"),
            "y": 0.0 - pd.Series([part.row for part in parts], dtype="float64"),
        }
    )
    edges = pd.DataFrame(
        {
            "source": pd.Series([source for source, _, _ in links], dtype="string"),
            "target": pd.Series([target for _, target, _ in links], dtype="string"),
            "kind": pd.Series([one for _, _, one in links], dtype="string"),
            "count": pd.Series([len(took) for took in links.values()], dtype="int64"),
            "p50_s": pd.Series([quantile(took, 0.5) for took in links.values()], dtype="float64"),
            "p95_s": pd.Series([quantile(took, 0.95) for took in links.values()], dtype="float64"),
        }
    )
    return GraphFrames(nodes, edges)


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
    depth = depths(rows)
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

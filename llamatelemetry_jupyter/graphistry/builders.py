"""Span rows as the nodes and edges of a graph, laid out by us.

Columns are typed and flat, because a graph server refuses nested or mixed values; labels are span names, so that no
text, path or host is in a graph unless somebody puts it there. The layout is x = time, y = depth: a trace needs no
force-directed layout, and those take minutes where this takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..values import GraphFrames, SpanRow

if TYPE_CHECKING:
    from pandas import DataFrame

_KINDS = ("queue", "prefill", "decode")


def trace_tree(rows: Sequence[SpanRow]) -> GraphFrames:
    """One node per span and one edge from each span to its children.

    ``x`` is seconds since the earliest start, ``y`` minus the depth below the root; traces that overlap in time get
    lanes of their own. A single span gives an empty, typed edge frame.
    """
    import pandas as pd

    nodes = pd.DataFrame(
        {
            "id": pd.Series([row.span_id for row in rows], dtype="str"),
            "kind": pd.Series([kind(row) for row in rows], dtype="str"),
            "label": pd.Series([row.name for row in rows], dtype="str"),
            "trace_id": pd.Series([row.trace_id for row in rows], dtype="str"),
            "start_ns": pd.Series([row.start_ns for row in rows], dtype="int64"),
            "duration_s": pd.Series([row.duration_s for row in rows], dtype="float64"),
            "tokens": pd.Series([row.output_tokens or 0 for row in rows], dtype="int64"),
            "status": pd.Series([row.status for row in rows], dtype="str"),
        }
    )
    first = nodes["start_ns"].min() if rows else 0
    nodes["x"] = (nodes["start_ns"] - first) / 1e9
    nodes["y"] = -pd.Series(_levels(rows), dtype="float64")
    return GraphFrames(nodes, _edges(rows))


def kind(row: SpanRow) -> str:
    """``cell``, ``chat``, ``queue``, ``prefill``, ``decode`` or ``other``."""
    if row.name == "notebook cell":
        return "cell"
    if "gen_ai.operation.name" in row.attributes:
        return "chat"
    return row.name if row.name in _KINDS else "other"


def _edges(rows: Sequence[SpanRow]) -> DataFrame:
    import pandas as pd

    known = {row.span_id for row in rows}
    children = [row for row in rows if row.parent_id in known]
    durations = [row.duration_s for row in children]
    return pd.DataFrame(
        {
            "source": pd.Series([row.parent_id for row in children], dtype="str"),
            "target": pd.Series([row.span_id for row in children], dtype="str"),
            "kind": pd.Series(["parent"] * len(children), dtype="str"),
            "count": pd.Series([1] * len(children), dtype="int64"),
            "p50_s": pd.Series(durations, dtype="float64"),
            "p95_s": pd.Series(durations, dtype="float64"),
        }
    )


def _levels(rows: Sequence[SpanRow]) -> list[int]:
    """Depth of each row, plus the lane of its trace: traces that overlap in time do not share one."""
    parent = {row.span_id: row.parent_id for row in rows}
    depth: dict[str, int] = {}
    for row in rows:
        chain = []
        at: str | None = row.span_id
        while at in parent and at not in depth and at not in chain:
            chain.append(at)
            at = parent[at]
        level = depth.get(at, -1) if at is not None else -1
        for span_id in reversed(chain):
            level += 1
            depth[span_id] = level
    extent: dict[str, list[int]] = {}
    for row in rows:
        known = extent.setdefault(row.trace_id, [row.start_ns, row.end_ns, 0])
        known[0], known[1] = min(known[0], row.start_ns), max(known[1], row.end_ns)
        known[2] = max(known[2], depth[row.span_id])
    lane: dict[str, int] = {}
    ends: list[int] = []
    height = max((known[2] for known in extent.values()), default=0) + 1
    for trace_id, (start, end, _) in sorted(extent.items(), key=lambda item: item[1][0]):
        free = next((number for number, busy in enumerate(ends) if busy <= start), len(ends))
        ends[free : free + 1] = [end]
        lane[trace_id] = free
    return [depth[row.span_id] + lane[row.trace_id] * height for row in rows]

"""A summary of spans as the nodes and edges that the widget draws: JSON as it stands, and never too large to send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2s
from typing import Any

from ..graphistry.parts import Part, Summary, quantile
from .layers import BOX_HEIGHT, ROW, columns, titled
from .model import number, text

MAX_BYTES = 190_000
_MAX_LABEL = 60


def diagram(made: Summary, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """``nodes`` with place, words and figures, ``edges`` between their positions in that list, and what is left out.

    An edge is ``[from, to, kind, spans, p50_s, p95_s]``; a node's ``span_id``, ``start_ms`` and ``end_ms`` are those
    of its newest span. Of too many edges the rarest are left out.
    """
    places = columns((part.level, titled(part.label[:_MAX_LABEL], part.errors > 0)) for part in made.parts)
    nodes = [_node(part, places[part.level]) for part in made.parts]
    index = {part.id: position for position, part in enumerate(made.parts)}
    edges: list[list[Any]] = []
    for (source, target, kind), took in sorted(made.links.items(), key=lambda link: -len(link[1])):
        ordered = sorted(took)
        p50, p95 = (round(quantile(ordered, q), 6) for q in (0.5, 0.95))
        edges.append([index[source], index[target], kind, len(ordered), p50, p95])
    told = [*left_out, *made.left_out]
    shown, room = 0, MAX_BYTES - 1000 - len(json.dumps(nodes)) - len(json.dumps(told))
    while shown < len(edges) and (room := room - len(json.dumps(edges[shown])) - 2) > 0:
        shown += 1
    if shown < len(edges):
        told.append(f"{len(edges) - shown:,} rarer edges")
    return {
        "nodes": nodes,
        "edges": edges[:shown],
        "width": max((left + width for left, width in places.values()), default=0),
        "height": max((part.row * ROW + BOX_HEIGHT for part in made.parts), default=0),
        "left_out": [text(one, 120) for one in told],
    }


def _node(part: Part, place: tuple[float, float]) -> dict[str, Any]:
    newest, ordered = part.newest, sorted(part.durations_s)
    return {
        # A digest: it stays the same from one picture to the next, and is short whatever a span is called.
        "id": blake2s(part.id.encode("utf-8", "replace"), digest_size=8).hexdigest(),
        "kind": part.kind,
        "label": text(part.label, _MAX_LABEL),
        "x": place[0],
        "y": part.row * ROW,
        "width": place[1],
        "height": BOX_HEIGHT,
        "trace_id": text(newest.trace_id, 32),
        "span_id": text(newest.span_id, 16),
        "start_ms": newest.start_ns / 1e6,
        "end_ms": newest.end_ns / 1e6,
        "spans": len(ordered),
        "p50_s": number(quantile(ordered, 0.5)) if ordered else None,
        "p95_s": number(quantile(ordered, 0.95)) if ordered else None,
        "tokens": part.tokens,
        "errors": part.errors,
    }

"""A graph in columns from left to right: where each box is, for the widget, and the picture of a session.

Columns are as wide as their labels need, in steps, so that a new label seldom moves what is on the page already.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import theme
from .format import NA, count, seconds
from .svg import CARD, INK, SOFT, label, stroke, text_px

if TYPE_CHECKING:
    from ..values import GraphFrames
    from .text import Table

BOX_HEIGHT = 38
ROW = 48
GAP = 40
_NARROWEST, _WIDEST, _STEP = 120, 192, 24
#: Beside the label: the mark, and the padding.
_BESIDE = 40
_EDGE = "#c3c9d0"
LOOKS = theme.NODES | theme.SPANS


def columns(labels: Iterable[tuple[int, str]]) -> dict[int, tuple[float, float]]:
    """For each column of ``(column, label)`` its left edge and its width in pixels; the first begins at 0."""
    widest: dict[int, float] = defaultdict(float)
    for column, text in labels:
        widest[column] = max(widest[column], text_px(text[:80], 12) + _BESIDE)
    found, left = {}, 0.0
    for column in sorted(widest):
        width = min(_WIDEST, max(_NARROWEST, math.ceil(widest[column] / _STEP) * _STEP))
        found[column] = (left, float(width))
        left += width + GAP
    return found


def titled(text: str, failed: bool) -> str:
    """A node's label; a cross before it says what the colour of its edge says."""
    return f"✕ {text}" if failed else text


def mark(kind: str, x: float, y: float, scale: float = 1.0) -> str:
    """The shape of a kind around a point."""
    look = LOOKS[kind if kind in LOOKS else "other"]
    edge = f"stroke='{look['light']}' stroke-width='3'" if look["shape"] == "cross" else "stroke='#fff'"
    where = f"transform='translate({x:.0f} {y:.0f}){f' scale({scale:g})' if scale != 1 else ''}'"
    fill = f"fill='{look['light']}' fill-rule='evenodd'"
    return f"<path d='{theme.SHAPES[look['shape']]}' {where} {fill} {edge}/>"


def session_svg(frames: GraphFrames, left: float, top: float) -> tuple[str, float, float]:
    """The body of a picture of :func:`~..graphistry.builders.session_graph`, with its right and its lower end."""
    read = [frames.nodes[name].tolist() for name in ("id", "kind", "label", "x", "y", "duration_s", "status")]
    nodes = list(zip(*read, frames.nodes["tokens"].tolist(), strict=True))
    places = columns((int(x), titled(text, status == "error")) for _, _, text, x, _, _, status, _ in nodes)
    boxes: dict[str, tuple[float, float, float]] = {}
    out = []
    several = _several(frames)
    for one, kind, text, x, y, took, status, tokens in nodes:
        at, width = places[int(x)]
        boxes[one] = box = (at + left, top - y * ROW, width)
        out.append(_box(box, kind, text, _note(took, tokens, one in several), status == "error"))
    sources, targets, counts = (frames.edges[name].tolist() for name in ("source", "target", "count"))
    lines = "".join(
        stroke(_curve(boxes[s], boxes[t]), _EDGE, min(2.5, 1 + math.log10(max(1, many)) / 2))
        for s, t, many in zip(sources, targets, counts, strict=True)
        if s in boxes and t in boxes
    )
    right = max((at + width for at, _, width in boxes.values()), default=left)
    return lines + "".join(out), right, max((down for _, down, _ in boxes.values()), default=top) + BOX_HEIGHT


def session_table(frames: GraphFrames) -> Table:
    """What the session did by name: cells and traces, of which there may be many, are left to the picture."""
    from .text import Table

    shown = frames.nodes[~frames.nodes["kind"].isin(["notebook", "cell", "trace"])]
    rows = [
        (
            LOOKS[kind if kind in LOOKS else "other"]["label"],
            text,
            seconds(took),
            _number(tokens),
            "error" if status == "error" else "",
        )
        for kind, text, took, tokens, status in zip(
            *(shown[name].tolist() for name in ("kind", "label", "duration_s", "tokens", "status")), strict=True
        )
    ]
    headers = ("kind", "name", "p50", "tokens", "status")
    return Table(headers, tuple(rows), frozenset({"p50", "tokens"}))


def _several(frames: GraphFrames) -> set[str]:
    counted: dict[str, int] = defaultdict(int)
    for target, many in zip(frames.edges["target"].tolist(), frames.edges["count"].tolist(), strict=True):
        counted[target] += many
    return {one for one, many in counted.items() if many > 1}


def _box(box: tuple[float, float, float], kind: str, text: str, note: str, failed: bool) -> str:
    x, y, width = box
    middle, edge = y + BOX_HEIGHT / 2, theme.SPANS["error"]["light"] if failed else _EDGE
    size = f"width='{width:.0f}' height='{BOX_HEIGHT}' rx='5'"
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' {size} fill='{CARD}' stroke='{edge}'/>"
        + mark(kind, x + 15, middle)
        + label(x + 29, middle - 2, titled(text, failed), 12, INK, width=width - 35)
        + label(x + 29, middle + 12, note, 10, SOFT, width=width - 35)
    )


def _note(took: float | None, tokens: object, several: bool) -> str:
    many = _number(tokens)
    return f"{'p50 ' if several else ''}{seconds(took)}{f', {many} tok' if many else ''}"


def _number(tokens: object) -> str:
    shown = count(tokens) if isinstance(tokens, int | float) else NA
    return "" if shown == NA else shown


def _curve(source: Sequence[float], target: Sequence[float]) -> str:
    x0, y0 = source[0] + source[2], source[1] + BOX_HEIGHT / 2
    x1, y1 = target[0], target[1] + BOX_HEIGHT / 2
    bend = max(GAP / 2, abs(x1 - x0) / 2)
    return f"M{x0:.0f} {y0:.0f}C{x0 + bend:.0f} {y0:.0f} {x1 - bend:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"

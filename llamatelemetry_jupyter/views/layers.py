"""A graph in columns from left to right: where each box is, for the widget, and the picture of a session.

Columns are as wide as their labels need, in steps, so that a new label seldom moves what is on the page already.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import theme
from .format import count, seconds
from .svg import CARD, INK, SOFT, label, stroke, text_px

if TYPE_CHECKING:
    from ..graphistry.parts import Summary
    from .text import Table

BOX_HEIGHT = 38
ROW = 48
GAP = 40
_NARROWEST, _WIDEST, _STEP = 120, 192, 24
#: Beside the label: the mark, and the padding.
_BESIDE = 40
_EDGE = "#c3c9d0"
LOOKS = theme.NODES | theme.SPANS


@dataclass(frozen=True, slots=True)
class Box:
    """A node of the picture; ``took_s`` is the median where ``several`` spans are behind it."""

    id: str
    kind: str
    text: str
    column: int
    row: int
    took_s: float
    tokens: int | None
    several: bool
    failed: bool


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


def session_boxes(summary: Summary) -> list[Box]:
    """The boxes of :func:`..graphistry.summary.session`."""
    several = {target for (_, target, _), took in summary.links.items() if len(took) > 1}
    several |= {part.id for part in summary.parts if len(part.durations_s) > 1}
    return [
        Box(p.id, p.kind, p.title, p.level, p.row, p.duration_s, p.tokens, p.id in several, p.errors > 0)
        for p in summary.parts
    ]


def session_svg(
    boxes: Iterable[Box], links: Iterable[tuple[str, str, int]], left: float, top: float
) -> tuple[str, float, float]:
    """The body of a session's picture, with its right and its lower end; ``links`` are source, target and count."""
    boxes = list(boxes)
    places = columns((one.column, titled(one.text, one.failed)) for one in boxes)
    where: dict[str, tuple[float, float, float]] = {}
    out = []
    for one in boxes:
        at, width = places[one.column]
        where[one.id] = (at + left, top + one.row * ROW, width)
        out.append(_drawn(one, where[one.id]))
    lines = "".join(
        stroke(_curve(where[source], where[target]), _EDGE, min(2.5, 1 + math.log10(max(1, many)) / 2))
        for source, target, many in links
        if source in where and target in where
    )
    right = max((at + width for at, _, width in where.values()), default=left)
    return lines + "".join(out), right, max((down for _, down, _ in where.values()), default=top) + BOX_HEIGHT


def session_table(boxes: Iterable[Box]) -> Table:
    """What the session did by name: cells and traces, of which there may be many, are left to the picture."""
    from .text import Table

    rows = [
        (
            LOOKS[one.kind if one.kind in LOOKS else "other"]["label"],
            one.text,
            seconds(one.took_s),
            _number(one.tokens),
            "error" if one.failed else "",
        )
        for one in boxes
        if one.kind not in ("notebook", "cell", "trace")
    ]
    headers = ("kind", "name", "p50", "tokens", "status")
    return Table(headers, tuple(rows), frozenset({"p50", "tokens"}))


def _drawn(one: Box, box: tuple[float, float, float]) -> str:
    x, y, width = box
    middle, edge = y + BOX_HEIGHT / 2, theme.SPANS["error"]["light"] if one.failed else _EDGE
    size = f"width='{width:.0f}' height='{BOX_HEIGHT}' rx='5'"
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' {size} fill='{CARD}' stroke='{edge}'/>"
        + mark(one.kind, x + 15, middle)
        + label(x + 29, middle - 2, titled(one.text, one.failed), 12, INK, width=width - 35)
        + label(x + 29, middle + 12, _note(one), 10, SOFT, width=width - 35)
    )


def _note(one: Box) -> str:
    many = _number(one.tokens)
    return f"{'p50 ' if one.several else ''}{seconds(one.took_s)}{f', {many} tok' if many else ''}"


def _number(tokens: int | None) -> str:
    return "" if tokens is None else count(tokens)


def _curve(source: Sequence[float], target: Sequence[float]) -> str:
    x0, y0 = source[0] + source[2], source[1] + BOX_HEIGHT / 2
    x1, y1 = target[0], target[1] + BOX_HEIGHT / 2
    bend = max(GAP / 2, abs(x1 - x0) / 2)
    return f"M{x0:.0f} {y0:.0f}C{x0 + bend:.0f} {y0:.0f} {x1 - bend:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"

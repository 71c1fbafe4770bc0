"""Static pictures of a model's bytes: layer by layer, and device by device. Shown through ``<img>`` like all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import theme
from .format import size
from .svg import GRID, INK, SOFT, document, label, rect, stroke, text_px

WIDTH = 840
_EDGE = 20
_LEFT = 84
_STRIDE = 34


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a name and bytes by owner, in the order in which they are stacked."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


def columns(title: str, bars: Sequence[Bar], note: str = "") -> str:
    """Upright bars side by side, one per layer, as an SVG document; names are shown where they have room."""
    owners = _owners(bars)
    legend, more = _legend(owners, 50)
    top, height = 66.0 + more, 180.0
    most = max((bar.total for bar in bars), default=0) or 1
    room = (WIDTH - _EDGE - _LEFT) / max(len(bars), 1)
    out = [label(_EDGE, 28, title, 14, weight=600, width=WIDTH - 2 * _EDGE), legend]
    for share in (0.0, 0.5, 1.0):
        y = top + height * (1 - share)
        out.append(stroke(f"M{_LEFT} {y:.1f}H{WIDTH - _EDGE}", GRID))
        out.append(label(_LEFT - 8, y + 4, size(most * share), 11, SOFT, anchor="end"))
    wide = max((text_px(bar.name, 11) for bar in bars), default=0) + 8
    step = max(1, int(wide / room) + 1)
    for number, bar in enumerate(bars):
        x, y = _LEFT + number * room, top + height
        for owner, value in bar.parts.items():
            tall = height * value / most
            y -= tall
            if tall > 0:
                out.append(rect(x + room * 0.1, y, room * 0.8, tall, f"url(#{owner})"))
        if number % step == 0:
            out.append(label(x + room / 2, top + height + 16, bar.name, 11, SOFT, anchor="middle"))
    if note:
        out.append(label(_EDGE, top + height + 40, note, 12, SOFT, width=WIDTH - 2 * _EDGE))
    return document("".join(out), WIDTH, top + height + (54 if note else 30), owners)


def lanes(title: str, bars: Sequence[Bar], limits: Sequence[int], notes: Sequence[str]) -> str:
    """Lying bars one below the other, one per device, each with its limit as a line and a note at its right end."""
    owners = _owners(bars)
    left, right = 150.0, WIDTH - 250.0
    most = max([*limits, *(bar.total for bar in bars)], default=0) or 1
    legend, more = _legend(owners, 50)
    out = [label(_EDGE, 28, title, 14, weight=600, width=WIDTH - 2 * _EDGE), legend]
    y = 72.0 + more
    for bar, limit, note in zip(bars, limits, notes, strict=True):
        out.append(label(_EDGE, y + 14, bar.name, 12, INK, width=left - _EDGE - 8))
        x = left
        for owner, value in bar.parts.items():
            wide = (right - left) * value / most
            if wide > 0:
                out.append(rect(x, y, wide, 20, f"url(#{owner})"))
            x += wide
        end = left + (right - left) * limit / most
        out.append(stroke(f"M{end:.1f} {y - 4:.1f}V{y + 24:.1f}", INK, 2))
        out.append(label(right + 14, y + 14, note, 12, SOFT, width=WIDTH - right - 14 - _EDGE))
        y += _STRIDE
    return document("".join(out), WIDTH, y + 6, owners)


def _owners(bars: Sequence[Bar]) -> list[str]:
    there = {owner for bar in bars for owner, value in bar.parts.items() if value}
    return [owner for owner in theme.OWNERS if owner in there]


def _legend(owners: Sequence[str], y: float) -> tuple[str, float]:
    """The owners' names from ``y`` on, in as many lines as they take, and the height of the lines behind the first."""
    out, x, top = [], float(_EDGE), y
    for owner in owners:
        name = theme.OWNERS[owner]["label"]
        wide = 17 + text_px(name, 12)
        if x > _EDGE and x + wide > WIDTH - _EDGE:
            x, y = float(_EDGE), y + 18
        out += [rect(x, y - 9, 12, 10, f"url(#{owner})"), label(x + 17, y, name, 12, SOFT)]
        x += wide + 18
    return "".join(out), y - top

"""The few SVG elements that our pictures are made of, with text that is harmless and stays in its place.

A picture is shown through ``<img>``: no style sheet, font or script reaches it, so each element carries its own looks.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Sequence

from .. import escape
from . import theme

INK, SOFT, GRID, CARD = "#1f2328", "#59636e", "#e4e7eb", "#ffffff"
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
# Characters that XML cannot hold even as entities.
_INVALID = re.compile("[\ud800-\udfff\ufffe\uffff]")
_NARROW = frozenset("iIjl.,:;'|!()[]ft ")
_WIDE = frozenset("mwMW@%—…")


def text_px(text: str, px: float) -> float:
    """About how wide ``text`` is in a proportional font of ``px`` pixels; rather too wide than too narrow."""
    total = 0.0
    for char in text:
        if char in _NARROW:
            total += 0.36
        elif char in _WIDE or unicodedata.east_asian_width(char) in "WF":
            total += 1.0
        elif ord(char) > 0x2FFF:
            total += 1.3
        else:
            total += 0.68 if char.isupper() else 0.6
    return total * px


def fit(text: object, px: float, width: float) -> str:
    """``text`` on one line, ending in an ellipsis where it would be wider than ``width`` pixels."""
    shown = _INVALID.sub("\ufffd", " ".join(escape.plain(str(text)[:400]).split()))
    if text_px(shown, px) <= width:
        return shown
    while shown and text_px(shown + "…", px) > width:
        shown = shown[:-1]
    return shown.rstrip() + "…"


def label(
    x: float,
    y: float,
    text: object,
    px: float = 12,
    colour: str = INK,
    *,
    anchor: str = "start",
    weight: int = 400,
    width: float = 10_000,
) -> str:
    """Text on its base line at ``y``, cut to ``width`` pixels."""
    bold = f" font-weight='{weight}'" if weight != 400 else ""
    where = f" text-anchor='{anchor}'" if anchor != "start" else ""
    shown = escape.html(fit(text, px * (1.06 if weight > 500 else 1), width))
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{px:g}' fill='{colour}'{bold}{where}>{shown}</text>"


def rect(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    """A filled rectangle."""
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' fill='{fill}'{extra}/>"


def line(points: Iterable[tuple[float, float]]) -> str:
    """Path data through ``points``; points on a level stretch are left out."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if len(kept) > 1 and round(kept[-1][1], 1) == round(kept[-2][1], 1) == round(y, 1):
            kept.pop()
        kept.append((x, y))
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in kept) if kept else ""


def stroke(data: str, colour: str, width: float = 1, extra: str = "") -> str:
    """A path drawn as a line."""
    return f"<path d='{data}' fill='none' stroke='{colour}' stroke-width='{width:g}'{extra}/>"


def patterns(owners: Sequence[str]) -> str:
    """Definitions of the owners' fills; use as ``url(#owner)``."""
    return "".join(
        f"<pattern id='{owner}' width='8' height='8' patternUnits='userSpaceOnUse'>"
        f"<rect width='8' height='8' fill='{theme.OWNERS[owner]['light']}'/>"
        + (
            f"<path d='{theme.PATTERNS[theme.OWNERS[owner]['pattern']]}' stroke='#fff' stroke-opacity='.4' "
            "stroke-width='1.1' fill='none'/>"
            if theme.OWNERS[owner]["pattern"] != "solid"
            else ""
        )
        + "</pattern>"
        for owner in owners
    )


def document(body: str, width: float, height: float, owners: Sequence[str] = ()) -> str:
    """A whole SVG document on a card of its own, which reads the same on a white and on a dark page."""
    defs = f"<defs>{patterns(owners)}</defs>" if owners else ""
    size = f"width='{width:g}' height='{height:g}' viewBox='0 0 {width:g} {height:g}'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} "
        f"font-family=\"{FONT}\" style='font-variant-numeric:tabular-nums'>{defs}"
        f"<rect x='.5' y='.5' width='{width - 1:g}' height='{height - 1:g}' rx='8' fill='{CARD}' stroke='#d0d7de'/>"
        f"{body}</svg>"
    )


def image(svg: str, alt: str) -> str:
    """``svg`` as an ``<img>``: the one form of a picture that a saved, untrusted notebook shows."""
    encoded = base64.b64encode(svg.encode("utf-8", "replace")).decode()
    said = escape.html(_INVALID.sub("\ufffd", alt))
    return f'<img alt="{said}" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'

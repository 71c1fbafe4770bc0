"""How one token looks, whoever draws it: characters that nobody sees are written out, and logprobs have a tint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .format import NA

if TYPE_CHECKING:
    from ..inference.tokens import Token

#: Probabilities at which the tint changes: none from the first up, the strongest below the last.
LIKELY = (0.5, 0.2, 0.05, 0.01)
#: Kind of a token → what is said about it.
KINDS = {
    "text": "text",
    "control": "control token",
    "bytes": "bytes that are no whole character",
    "several": "a character of several tokens; id and figures are the last one's",
}
_LONGEST = 96  # characters shown of a piece; real vocabularies end at about 130
_VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
_LEAST = -999.0


def kind(token: Token) -> str:
    """A key of :data:`KINDS`."""
    if token.special or not token.bytes:
        return "control"
    if token.text is None:
        return "bytes"
    return "text" if token.whole else "several"


def runs(token: Token) -> list[str]:
    """What is shown of a token: text, a mark, text, a mark and so on.

    Marks stand for what cannot be seen: ``·⏎⇥␍``, code points, stray bytes in hexadecimal.
    """
    if not token.bytes:
        return ["", "no text"]
    if token.text is None:
        shown = token.bytes[: _LONGEST // 3].hex(" ").upper()
        return ["", shown + ("…" if len(token.bytes) > _LONGEST // 3 else "")]
    found, marked = [""], False
    for char in token.text[:_LONGEST]:
        mark = _VISIBLE.get(char) or (None if char.isprintable() else f"U+{ord(char):04X}")
        if (mark is not None) != marked:
            found.append("")
            marked = not marked
        found[-1] += mark or char
    if len(token.text) > _LONGEST:
        found += ["…"] if not marked else ["", "…"]
    return found


def shown(token: Token) -> str:
    """The same in one piece."""
    return "".join(runs(token))


def logprob(value: float | None) -> str:
    """``−0.32``; ``−∞`` where a token could not have come."""
    if value is None:
        return NA
    return "−∞" if value <= _LEAST else f"{min(value, 0.0):.2f}".replace("-", "−").replace("−0.00", "0.00")


def chance(value: float | None) -> str:
    """The probability of a logprob: ``73 %``, ``0.4 %``, ``< 0.1 %``."""
    if value is None:
        return NA
    percent = 100 * math.exp(min(value, 0.0))
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %" if percent >= 0.1 else "< 0.1 %"


def known(value: float | None) -> float | None:
    """A logprob that JSON can carry: three digits, never above 0; ``None`` for what is no number."""
    if value is None or math.isnan(value):
        return None
    return round(max(min(value, 0.0), _LEAST), 3)


def level(value: float | None) -> int:
    """Which tint: 0 for a likely token, and for one of which nothing is known."""
    probability = 1.0 if value is None else math.exp(min(value, 0.0))
    return sum(probability < edge for edge in LIKELY)

"""A tokenized text: a strip of pieces for pages, a table for terminals; whitespace and stray bytes are visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import escape
from .format import count
from .text import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas import DataFrame

    from ..inference.tokens import Token

_MAX_STRIP = 2000  # pieces on a page: about 300 kB of HTML
_MAX_ROWS = 200
_VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
# Dashed and dotted: what a token is must not depend on seeing colours.
_KINDS = {
    "text": "border:1px solid rgba(128,128,128,.45)",
    "control": "border:1px dashed;font-weight:bold",
    "bytes": "border:1px dotted;font-style:italic",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that show themselves; ``len()``, iteration and ``[i]`` are those of the tokens."""

    tokens: tuple[Token, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self.tokens)

    def __getitem__(self, index: int) -> Token:
        return self.tokens[index]

    @property
    def ids(self) -> list[int]:
        """The ids."""
        return [token.id for token in self.tokens]

    def frame(self) -> DataFrame:
        """One row a token: id, text (``None`` for stray bytes), bytes, special."""
        import pandas as pd

        names = ("id", "text", "bytes", "special")
        return pd.DataFrame([{name: getattr(one, name) for name in names} for one in self.tokens], columns=list(names))

    def summary(self) -> str:
        """One line: tokens, bytes, and how many of them a token stands for."""
        size = sum(len(token.bytes) for token in self.tokens)
        control = sum(token.special for token in self.tokens)
        parts = [f"{count(len(self))} token{'s' if len(self) != 1 else ''}", f"{count(size)} bytes"]
        if control:
            parts.append(f"{count(control)} of them control tokens" if len(self) > 1 else "a control token")
        elif self.tokens:
            parts.append(f"{size / len(self):.1f} bytes a token")
        return ", ".join(parts)

    def __str__(self) -> str:
        rows = [(str(i), str(one.id), _shown(one), _kind(one)) for i, one in enumerate(self.tokens[:_MAX_ROWS])]
        table = Table(("#", "id", "piece", "kind"), tuple(rows), frozenset({"#", "id"}))
        more = len(self) - len(rows)
        return "\n".join([self.summary(), *([str(table)] if rows else []), *([f"… and {more:,} more"] if more else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = []
        for number, one in enumerate(self.tokens[:_MAX_STRIP]):
            style = (
                f"display:inline-block;white-space:pre;margin:1px;padding:0 3px;border-radius:3px;{_KINDS[_kind(one)]}"
            )
            parts.append(
                f'<span title="token {number}, {_kind(one)}" style="{style}">{escape.html(_shown(one))}'
                f'<sub style="opacity:.65"> {one.id}</sub></span>'
            )
            if one.text is not None and "\n" in one.text:
                parts.append("<br>")
        if (more := len(self) - _MAX_STRIP) > 0:
            parts.append(f"<em> … and {more:,} more</em>")
        strip = f'<div style="font-family:monospace;line-height:2">{"".join(parts)}</div>' if parts else ""
        legend = " · dashed: control token · dotted: bytes that are no whole character" if parts else ""
        return f"{strip}<small>{escape.html(self.summary())}{legend}</small>"


def _kind(token: Token) -> str:
    return "control" if token.special else "bytes" if token.text is None else "text"


def _shown(token: Token) -> str:
    if token.text is None:
        return token.bytes.hex(" ").upper()
    return "".join(_VISIBLE.get(c) or (c if c.isprintable() else f"U+{ord(c):04X}") for c in token.text)

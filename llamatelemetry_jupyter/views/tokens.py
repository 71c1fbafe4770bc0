"""The tokens of a text or an answer as a value that shows itself: a strip and tables, and data for the widget."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .. import escape
from ..telemetry import figures
from . import pieces
from .format import NA, count, short
from .text import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pandas import DataFrame

    from ..inference.tokens import Token

#: The widget holds so many tokens and about so many bytes: 2,000 of an answer with five alternatives each.
MAX_TOKENS, MAX_BYTES = 10_000, 400_000
_STRIP_BYTES, _TABLE_BYTES = 90_000, 45_000  # of the static twin
_MAX_ROWS = 200
_INSTEAD = 3  # alternatives in a row of a table
_NUMBERS = frozenset({"#", "id", "logprob", "probability"})
_SURE = ("logprob", "probability", "instead")  # columns that only an answer has
# Dashed, dotted and double: what a token is must not depend on seeing colours.
_BORDERS = {
    "text": "1px solid #8887",
    "control": "1px dashed;font-weight:bold",
    "bytes": "1px dotted;font-style:italic",
    "several": "3px double #8887",
}
# Over a white and over a dark page text keeps 4.5:1.
_TINTS = ("", *(f";background:rgba(224,110,20,{alpha})" for alpha in (0.12, 0.24, 0.38, 0.55)))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that show themselves; ``len()``, iteration and ``[i]`` are those of the tokens."""

    tokens: tuple[Token, ...]
    source: Literal["prompt", "answer"] = "prompt"
    model: str | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self.tokens)

    def __getitem__(self, index: int) -> Token:
        return self.tokens[index]

    @property
    def ids(self) -> list[int | None]:
        """The ids; ``None`` where the server did not tell one."""
        return [token.id for token in self.tokens]

    @property
    def perplexity(self) -> float | None:
        """e to the mean of −logprob over the tokens that have one; ``None`` when none has."""
        known = [one.logprob for one in self.tokens if one.logprob is not None]
        return math.exp(-sum(known) / len(known)) if known else None

    def frame(self) -> DataFrame:
        """One row a token: id, text (``None`` for stray bytes), bytes, special; of an answer logprob, alternatives."""
        import pandas as pd

        names = ["id", "text", "bytes", "special"]
        rows: list[dict[str, Any]] = [{name: getattr(one, name) for name in names} for one in self.tokens]
        if self.source == "answer":
            names += ["logprob", "alternatives"]
            for row, one in zip(rows, self.tokens, strict=True):
                row["logprob"] = one.logprob
                row["alternatives"] = [(other.text, other.logprob) for other in one.alternatives]
        return pd.DataFrame(rows, columns=names)

    def summary(self) -> str:
        """One line: tokens, bytes, how many of them a token stands for, and how sure the model was."""
        size = sum(len(token.bytes) for token in self.tokens)
        control = sum(token.special for token in self.tokens)
        several = sum(not token.whole for token in self.tokens)
        parts = [f"{count(len(self))} token{'s' if len(self) != 1 else ''}", f"{count(size)} bytes"]
        if control:
            parts.append(f"{count(control)} of them control tokens" if len(self) > 1 else "a control token")
        elif self.tokens:
            parts.append(f"{size / len(self):.1f} bytes a token")
        if several:
            what = "a character" if several == 1 else "characters"
            parts.append(f"{count(several)} of them {what} of several tokens")
        if (perplexity := self.perplexity) is not None:
            parts.append(f"perplexity {perplexity:.2f}")
        return ", ".join(parts)

    def snapshot(self) -> dict[str, Any]:
        """JSON-safe columns for the widget: the first :data:`MAX_TOKENS`, as far as they fit into :data:`MAX_BYTES`.

        ``pieces`` are ``[id, runs, kind]``, each once; ``tokens`` are places among them, ``alternatives`` place and
        logprob in turn.
        """
        known: dict[tuple[Any, ...], int] = {}
        found: list[list[Any]] = []
        columns: dict[str, list[Any]] = {"tokens": [], "logprobs": [], "alternatives": []}
        size = 0

        def place(one: Token) -> int:
            nonlocal size
            key = (one.id, one.bytes, one.special, one.whole)
            if key not in known:
                known[key] = len(found)
                found.append([one.id, pieces.runs(one), pieces.kind(one)])
                size += len(json.dumps(found[-1])) + 2
            return known[key]

        for one in self.tokens[:MAX_TOKENS]:
            others = [part for o in one.alternatives for part in (place(o), pieces.known(o.logprob))]
            row = (place(one), pieces.known(one.logprob), others)
            size += len(json.dumps(row))
            if size > MAX_BYTES:
                break
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        return {
            "version": 1,
            "source": self.source,
            "model": None if self.model is None else escape.plain(short(self.model, 120)),
            "summary": self.summary(),
            "total": len(self),
            "likely": list(pieces.LIKELY),
            "kinds": pieces.KINDS,
            "titles": figures.titles({"logprob": "logprob", "perplexity": "perplexity"}),
            "pieces": found,
            **columns,
        }

    # ------------------------------------------------------------------------------------------ without a kernel

    def __str__(self) -> str:
        rows = self._table(self.tokens[:_MAX_ROWS])
        more = len(self) - len(rows.rows)
        return "\n".join(
            [self.summary(), *([str(rows)] if rows.rows else []), *([f"… and {more:,} more"] if more else [])]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The static twin: no script, no style sheet, under 150 kB."""
        strip, size = list[str](), 0
        for number, one in enumerate(self.tokens):
            made = self._chip(number, one)
            size += len(made.encode("utf-8", "replace"))
            if size > _STRIP_BYTES:
                strip.append(f"<em> … and {len(self) - number:,} more</em>")
                break
            strip.append(made)
        legend = _LEGEND + (_TINT_LEGEND if self.perplexity is not None else "") if strip else ""
        shown = f'<div style="font-family:monospace;line-height:2">{"".join(strip)}</div>' if strip else ""
        return f"{shown}<small>{escape.html(self.summary())}{legend}</small>{self._details()}"

    def _chip(self, number: int, one: Token) -> str:
        kind = pieces.kind(one)
        style = f"display:inline-block;white-space:pre;margin:1px;padding:0 3px;border:{_BORDERS[kind]}"
        shown = "".join(
            f'<i style="opacity:.7">{escape.html(run)}</i>' if i % 2 else escape.html(run)
            for i, run in enumerate(pieces.runs(one))
        )
        sure = f" {pieces.logprob(one.logprob)}" if one.logprob is not None else ""
        return (
            f'<span title="token {number}, {pieces.KINDS[kind]}" style="{style}{_TINTS[pieces.level(one.logprob)]}">'
            f'{shown}<sub style="opacity:.8"> {_id(one)}{sure}</sub></span>'
        ) + ("<br>" if one.text is not None and "\n" in one.text else "")

    def _details(self) -> str:
        rows = min(len(self), _MAX_ROWS)
        while rows:
            table = self._table(self.tokens[:rows])._repr_html_()
            if len(table.encode("utf-8", "replace")) <= _TABLE_BYTES:
                first = f", the first {rows:,}" if rows < len(self) else ""
                return f"<details><summary>As a table{first}</summary>{table}</details>"
            rows //= 2
        return ""

    def _table(self, tokens: Sequence[Token]) -> Table:
        headers = ("#", "id", "piece", "kind", *(_SURE if self.source == "answer" else ()))
        rows = tuple(tuple(_cells(number, one)[: len(headers)]) for number, one in enumerate(tokens))
        return Table(headers, rows, _NUMBERS, titles=figures.titles({"logprob": "logprob"}))


_LEGEND = " · dashed: control token · dotted: bytes that are no whole character"
_TINT_LEGEND = " · double: character of several tokens · tint and number: logprob"


def instead(token: Token) -> str:
    """What the likeliest other tokens at its place were, and how likely."""
    others = [one for one in token.alternatives if one.id != token.id or (one.id is None and one.text != token.text)]
    return ", ".join(f"{pieces.shown(one)} {pieces.chance(one.logprob)}" for one in others[:_INSTEAD])


def _cells(number: int, token: Token) -> list[str]:
    own = [str(number), _id(token), pieces.shown(token), pieces.kind(token)]
    return [*own, pieces.logprob(token.logprob), pieces.chance(token.logprob), instead(token)]


def _id(token: Token) -> str:
    return NA if token.id is None else str(token.id)

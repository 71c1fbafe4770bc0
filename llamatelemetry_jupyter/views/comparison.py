"""Answers to one prompt beside each other: a table for pages, columns of text for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import escape
from .format import NA, count, rate, seconds, short

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..values import Answer

_WIDTH = 100
_MAX_BESIDE = 4
_TH = 'style="text-align:left;padding:2px 12px 2px 0;vertical-align:top"'
_TD = 'style="text-align:left;padding:2px 12px 2px 0;vertical-align:top;white-space:pre-wrap;min-width:12em"'


@dataclass(frozen=True, slots=True)
class Column:
    """What was asked with what, and what came; ``answer`` and ``error`` are ``None`` as long as nothing has."""

    label: str
    model: str | None = None
    temperature: float | None = None
    seed: int | None = None
    answer: Answer | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        """The answer, or why there is none."""
        if self.answer is not None:
            return self.answer.text
        return f"failed: {self.error}" if self.error else "…"


_FIGURES: tuple[tuple[str, Callable[[Answer], str]], ...] = (
    ("tokens", lambda a: f"{count(a.input_tokens)} → {count(a.output_tokens)}"),
    ("tokens/s", lambda a: rate(a.timings.decode_tokens_per_s)),
    ("first token", lambda a: seconds(a.timings.ttft_s)),
    ("ended", lambda a: a.finish_reason),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers to ``prompt``; ``len()``, iteration and ``[i]`` are those of the columns. Shows itself."""

    prompt: str
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, index: int) -> Column:
        return self.columns[index]

    def frame(self) -> DataFrame:
        """One row a column: what was asked with, text, finish_reason, tokens, rate (tokens/s), ttft_s, error, ids."""
        import pandas as pd

        rows = []
        for one in self.columns:
            a = one.answer
            rows.append(
                {
                    "label": one.label,
                    "model": one.model,
                    "temperature": one.temperature,
                    "seed": one.seed,
                    "text": a and a.text,
                    "finish_reason": a and a.finish_reason,
                    "input_tokens": a and a.input_tokens,
                    "output_tokens": a and a.output_tokens,
                    "decode_tokens_per_s": a and a.timings.decode_tokens_per_s,
                    "ttft_s": a and a.timings.ttft_s,
                    "error": one.error,
                    "trace_id": a and a.trace_id,
                    "span_id": a and a.span_id,
                }
            )
        return pd.DataFrame(rows).astype({"input_tokens": "Int64", "output_tokens": "Int64", "seed": "Int64"})

    def _figures(self) -> list[tuple[str, list[str]]]:
        return [(name, [of(c.answer) if c.answer else NA for c in self.columns]) for name, of in _FIGURES]

    def __str__(self) -> str:
        if len(self) > _MAX_BESIDE:
            return "\n\n".join(str(Comparison(self.prompt, (one,))) for one in self.columns)
        width = max(12, _WIDTH // max(1, len(self)) - 2)
        cells = [_lines(escape.plain(one.text), width) for one in self.columns]
        height = max(map(len, cells), default=0)
        rows = [[short(escape.plain(one.label), width) for one in self.columns], ["─" * width] * len(self)]
        rows += [[c[i] if i < len(c) else "" for c in cells] for i in range(height)]
        rows.append(["─" * width] * len(self))
        rows += [[short(f"{name} {value}", width) for value in values] for name, values in self._figures()]
        return "\n".join("  ".join(cell.ljust(width) for cell in row).rstrip() for row in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(head: str, cells: list[str], tag: str = "td") -> str:
            style = _TH if tag == "th" else _TD
            made = "".join(f"<{tag} {style}>{escape.html(cell)}</{tag}>" for cell in cells)
            return f"<tr><th {_TH}>{escape.html(head)}</th>{made}</tr>"

        body = row("answer", [one.text for one in self.columns])
        body += "".join(row(name, values) for name, values in self._figures())
        head = row("", [one.label for one in self.columns], "th")
        return f'<div style="overflow-x:auto"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002 (IPython's signature)
        return {"text/html": self._repr_html_(), "text/plain": str(self)}


def _lines(text: str, width: int) -> list[str]:
    return [part for line in text.expandtabs(4).split("\n") for part in textwrap.wrap(line, width) or [""]]

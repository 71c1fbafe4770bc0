"""Spans as tables and trees: text for terminals and saved notebooks, plain HTML for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import escape
from ..values import SpanRow
from .format import clock, rate, seconds, short

_BAR = 32


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under ``headers``; columns named in ``right`` are aligned to the right. Shows itself."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    empty: str = "nothing yet"

    def __str__(self) -> str:
        if not self.rows:
            return self.empty
        lines = [self.headers, *self.rows]
        cells = [[escape.plain(cell).replace("\n", " ") for cell in line] for line in lines]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.headers))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if head in self.right else cell.ljust(width)
                for cell, width, head in zip(line, widths, self.headers, strict=True)
            ).rstrip()
            for line in cells
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape.html(self.empty)}</p>"
        align = ["right" if head in self.right else "left" for head in self.headers]
        head = "".join(
            f'<th style="text-align:{a};padding:1px 12px 1px 0">{escape.html(h)}</th>'
            for h, a in zip(self.headers, align, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{a};padding:1px 12px 1px 0;white-space:pre">{escape.html(c)}</td>'
                for c, a in zip(row, align, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float | None, form: str = "") -> str:
    return "n/a" if value is None else format(value, form)


_EMPTY = "no spans yet; try: %llama chat Hello"


def spans_table(rows: Sequence[SpanRow]) -> Table:
    """The spans as a table, the newest last."""
    headers = ("time", "span", "duration", "in", "cached", "out", "tokens/s", "first token", "status", "trace")
    return Table(
        headers,
        tuple(
            (
                clock(row.start_ns / 1e6),
                short(row.name, 48),
                seconds(row.duration_s),
                *(_call(row, value) for value in (row.input_tokens, row.cached_tokens, row.output_tokens)),
                _call(row, row.decode_tokens_per_s, ".1f"),
                "" if row.ttft_s is None else seconds(row.ttft_s),
                row.error_type or "" if row.status == "error" else "ok",
                row.trace_id[:8],
            )
            for row in rows
        ),
        frozenset({"duration", "in", "cached", "out", "tokens/s", "first token"}),
        _EMPTY,
    )


def _call(row: SpanRow, value: float | None, form: str = "") -> str:
    return _number(value, form) if "gen_ai.operation.name" in row.attributes else ""


def trace_tree(rows: Sequence[SpanRow]) -> Table:
    """One trace as a tree with, for each span, where in the trace's time it lies."""
    if not rows:
        return Table((), (), empty=_EMPTY)
    begin = min(row.start_ns for row in rows)
    total = max(max(row.end_ns for row in rows) - begin, 1)
    lines = []
    for row, indent in _walk(rows):
        left = min(int((row.start_ns - begin) / total * _BAR), _BAR - 1)
        width = max(1, min(_BAR - left, round((row.end_ns - row.start_ns) / total * _BAR)))
        facts = [f"{row.input_tokens} → {row.output_tokens} tokens"] if row.output_tokens is not None else []
        if row.decode_tokens_per_s is not None:
            facts.append(f"{rate(row.decode_tokens_per_s)} tokens/s")
        if row.ttft_s is not None:
            facts.append(f"first token {seconds(row.ttft_s)}")
        if row.status == "error":
            facts.append(f"error: {row.error_type or 'unknown'}")
        bar = "\u00b7" * left + "█" * width + "\u00b7" * (_BAR - left - width)
        lines.append((indent + short(row.name, 48), seconds(row.duration_s), bar, ", ".join(facts)))
    return Table(("span", "duration", "when", ""), tuple(lines), frozenset({"duration"}))


def _walk(rows: Sequence[SpanRow]) -> list[tuple[SpanRow, str]]:
    """Rows parent first, with the tree's lines before each."""
    known = {row.span_id for row in rows}
    children: dict[str | None, list[SpanRow]] = {}
    for row in sorted(rows, key=lambda r: (r.start_ns, -r.end_ns)):
        children.setdefault(row.parent_id if row.parent_id in known else None, []).append(row)
    out: list[tuple[SpanRow, str]] = []
    stack = [(row, "", "") for row in reversed(children.get(None, []))]
    seen = set()
    while stack:
        row, mark, below = stack.pop()
        if row.span_id in seen:
            continue
        seen.add(row.span_id)
        out.append((row, mark))
        inner = children.get(row.span_id, [])
        for number, child in reversed(list(enumerate(inner))):
            last = number == len(inner) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    return out

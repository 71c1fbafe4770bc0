"""Spans as tables and trees: text for terminals and saved notebooks, plain HTML for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import escape
from ..telemetry import figures, semconv
from ..values import SpanRow
from . import svg
from .format import clock, count, rate, seconds, short, size
from .model import depths, span_dict
from .picture import waterfall
from .theme import span_kind

_BAR = 32
_FACTS = ("span", "duration", "figures")
#: Columns of a table of calls → the figures that stand there.
CALL_FIGURES = {
    "in": "input_tokens",
    "cached": "cached_tokens",
    "out": "output_tokens",
    "tokens/s": "decode_tokens_per_s",
    "first token": "ttft_s",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under ``headers``; columns named in ``right`` are aligned to the right. Shows itself.

    ``titles`` are tooltips of headers and of rows by their first text (:func:`..telemetry.figures.titles`).
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    empty: str = "nothing yet"
    titles: Mapping[str, str] = field(default_factory=dict)

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
            f'<th{self._title(h)} style="text-align:{a};padding:1px 12px 1px 0">{escape.html(h)}</th>'
            for h, a in zip(self.headers, align, strict=True)
        )
        body = "".join(
            f"<tr{self._title(row[0])}>"
            + "".join(
                f'<td style="text-align:{a};padding:1px 12px 1px 0;white-space:pre">{escape.html(c)}</td>'
                for c, a in zip(row, align, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _title(self, name: str) -> str:
        return f' title="{escape.html(self.titles[name])}"' if name in self.titles else ""


_EMPTY = "no spans yet; try: %llama chat Hello"


@dataclass(frozen=True, slots=True, repr=False)
class Trace(Table):
    """One trace: text with bars for terminals, a picture and a table for pages."""

    spans: tuple[SpanRow, ...] = ()

    def _repr_html_(self) -> str:
        return trace_html(self.spans)


def spans_table(rows: Sequence[SpanRow]) -> Table:
    """The spans as a table, the newest last."""
    measured = [_measured(row) for row in rows]
    # Columns of what was measured are there when a span has such a figure: without a GPU there is no energy.
    there = [name for name in ("peak memory", *_WHOLE_GPU) if any(name in one for one in measured)]
    numbers = ("duration", "in", "cached", "out", "tokens/s", "first token", *there)
    return Table(
        ("time", "span", *numbers, "status", "trace"),
        tuple(
            (
                clock(row.start_ns / 1e6),
                short(row.name, 48),
                seconds(row.duration_s),
                *_figures(row),
                *(found.get(name, "") for name in there),
                short(row.error_type or "error", 24) if row.status == "error" else "ok",
                row.trace_id[:8],
            )
            for row, found in zip(rows, measured, strict=True)
        ),
        frozenset(numbers),
        _EMPTY,
        figures.titles(
            {"duration": "duration_s", **CALL_FIGURES, "peak memory": "peak_bytes", "GPU energy": "energy_j"}
        ),
    )


_WHOLE_GPU = ("GPU energy", "J/token", "GPU busy")


def _measured(row: SpanRow) -> dict[str, str]:
    """What was measured while the span ran, in words; ``≈`` is an estimate. Of a GPU it is the whole GPU's."""
    found: dict[str, str] = {}
    if row.peak_bytes is not None:
        found["peak memory"] = size(row.peak_bytes)
    guess = "≈ " if row.attributes.get(semconv.ENERGY_SOURCE) == "power" else ""
    if row.energy_j is not None:
        found["GPU energy"] = f"{guess}{rate(row.energy_j)} J"
    if isinstance(per_token := row.attributes.get(semconv.ENERGY_PER_TOKEN), float):
        found["J/token"] = f"{guess}{per_token:.3g}"
    if isinstance(busy := row.attributes.get(semconv.UTIL_MEAN), float):
        found["GPU busy"] = f"{100 * busy:.0f} %"
    return found


def _figures(row: SpanRow) -> tuple[str, str, str, str, str]:
    """What a call has and n/a where it was not told; nothing for spans that are no calls."""
    if not _is_call(row):
        return ("", "", "", "", "")
    tokens = (count(row.input_tokens), count(row.cached_tokens), count(row.output_tokens))
    return (*tokens, rate(row.decode_tokens_per_s), seconds(row.ttft_s))


def _is_call(row: SpanRow) -> bool:
    return "gen_ai.operation.name" in row.attributes or span_kind(row.name) == "chat"


def trace_html(rows: Sequence[SpanRow]) -> str:
    """The trace's waterfall as an ``<img>`` and its figures as a table."""
    if not rows:
        return f"<p>{escape.html(_EMPTY)}</p>"
    known = depths(rows)
    drawn = waterfall([span_dict(row, known[row.trace_id, row.span_id]) for row in rows])
    tree = trace_tree(rows)
    table = Table(_FACTS, tuple((one[0], one[1], one[3]) for one in tree.rows), frozenset({"duration"}))
    return svg.image(drawn, f"Waterfall of {len(rows)} spans; the table below names them.") + table._repr_html_()


def trace_tree(rows: Sequence[SpanRow]) -> Trace:
    """One trace as a tree with, for each span, where in the trace's time it lies."""
    if not rows:
        return Trace((), (), empty=_EMPTY)
    begin = min(row.start_ns for row in rows)
    total = max(max(row.end_ns for row in rows) - begin, 1)
    lines = []
    for row, indent in walk(rows):
        left = min(int((row.start_ns - begin) / total * _BAR), _BAR - 1)
        width = max(1, min(_BAR - left, round((row.end_ns - row.start_ns) / total * _BAR)))
        facts = (
            [f"{count(row.input_tokens)} → {count(row.output_tokens)} tokens"] if row.output_tokens is not None else []
        )
        if row.decode_tokens_per_s is not None:
            facts.append(f"{rate(row.decode_tokens_per_s)} tokens/s")
        if row.ttft_s is not None:
            facts.append(f"first token {seconds(row.ttft_s)}")
        found = _measured(row)
        if "peak memory" in found:
            facts.append(f"peak {found['peak memory']}")
        if "GPU energy" in found:
            per_token = f", {found['J/token']} J/token" if "J/token" in found else ""
            facts.append(f"{found['GPU energy']}{per_token} (whole GPU)")
        if "GPU busy" in found:
            facts.append(f"GPU busy {found['GPU busy']}")
        if row.status == "error":
            facts.append(f"error: {short(row.error_type or 'unknown', 40)}")
        bar = "\u00b7" * left + "█" * width + "\u00b7" * (_BAR - left - width)
        lines.append((indent + short(row.name, 48), seconds(row.duration_s), bar, ", ".join(facts)))
    headers = ("span", "duration", "when", "figures")
    return Trace(headers, tuple(lines), frozenset({"duration"}), spans=tuple(rows))


def walk(rows: Sequence[SpanRow]) -> list[tuple[SpanRow, str]]:
    """Rows parent first, with the tree's lines before each; of parents in a circle the first is the top."""
    known = {row.span_id for row in rows}
    children: dict[str | None, list[SpanRow]] = {}
    for row in sorted(rows, key=lambda r: (r.start_ns, -r.end_ns)):
        children.setdefault(row.parent_id if row.parent_id in known else None, []).append(row)
    out: list[tuple[SpanRow, str]] = []
    stack = [(row, "", "") for row in reversed(children.get(None, []))]
    left = sorted(rows, key=lambda r: r.start_ns, reverse=True)
    seen: set[str] = set()
    while stack or left:
        row, mark, below = stack.pop() if stack else (left.pop(), "", "")
        if row.span_id in seen:
            continue
        seen.add(row.span_id)
        out.append((row, mark))
        inner = children.get(row.span_id, [])
        for number, child in reversed(list(enumerate(inner))):
            last = number == len(inner) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    return out

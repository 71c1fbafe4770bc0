"""Spans that were asked for, as tables that show themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..telemetry.query import Group, Query
from .format import NA, count, rate, seconds, short
from .text import Table, spans_table

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 20
_EMPTY = "no such span"


class Spans(Query):
    """The recorded spans, or those that were asked for; shows the newest twenty.

    ``lt.spans.where(name="chat*", since="1h").by("model")`` asks, ``.rows()`` and ``.frame()`` give them,
    ``.search("timeout")`` looks for text.
    """

    def by(self, key: str) -> Summary:
        """Counts, percentiles of times and rates, tokens and energy by name, model, cell, hour, server or status."""
        return Summary(key, tuple(self.groups(key)))

    def __str__(self) -> str:
        table, more = self._table()
        return f"{table}\n{more}" if more else str(table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table, more = self._table()
        return table._repr_html_() + (f"<p>{more}</p>" if more else "")

    def _table(self) -> tuple[Table, str]:
        shown = self if self.newest is not None else self.last(_SHOWN)
        rows = shown.rows()
        if not self.conditions.everything:
            return dataclasses.replace(spans_table(rows), empty=_EMPTY), ""
        total = self.source().totals()["spans"]
        return spans_table(rows), f"the newest {len(rows):,} of {total:,} spans" if total > len(rows) else ""


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """Spans by ``key``; ``len()``, iteration and ``[i]`` are those of the groups. Shows itself."""

    key: str
    groups: tuple[Group, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __getitem__(self, index: int) -> Group:
        return self.groups[index]

    def frame(self) -> DataFrame:
        """One row a group, one column per field of :class:`~llamatelemetry_jupyter.telemetry.query.Group`."""
        import pandas as pd

        names = [field.name for field in dataclasses.fields(Group)]
        frame = pd.DataFrame({name: [getattr(group, name) for group in self.groups] for name in names})
        whole = dict.fromkeys(("count", "errors", "input_tokens", "output_tokens"), "Int64")
        real = {name: "float64" for name in names if name not in whole and name != "key"}
        return frame.astype({"key": "string", **whole, **real}).rename(columns={"key": self.key})

    def _table(self) -> Table:
        first, figures = ("first token p50", "first token p95"), ("tokens/s", "in", "out", "energy")
        headers = (self.key, "spans", "errors", "p50", "p95", *first, *figures)
        lines = tuple(
            (
                short(group.key if group.key is not None else NA, 56),
                count(group.count),
                count(group.errors),
                seconds(group.p50_s),
                seconds(group.p95_s),
                *(_there(seconds, x) for x in (group.ttft_p50_s, group.ttft_p95_s)),
                _there(rate, group.decode_p50_tokens_per_s),
                *(_there(count, x) for x in (group.input_tokens, group.output_tokens)),
                f"{group.energy_j:,.1f} J" if group.energy_j is not None else "",
            )
            for group in self.groups
        )
        return Table(headers, lines, frozenset(headers[1:]), _EMPTY)

    def __str__(self) -> str:
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def _there(shown: Callable[[float], str], value: float | None) -> str:
    """Nothing where spans of this kind have no such figure."""
    return "" if value is None else shown(value)

"""The spans of a session as they are read: the newest rows from memory, others from its file."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CommandError, LlamaError
from ..values import JSON, SpanRow
from . import latency
from ._packed import COLUMNS, end_ns, make, outlines, row, unpack
from ._reading import SpanReader
from ._recent import Recent, Totals, as_dict
from .gaps import decode
from .outline import Outline
from .where import Where

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")
_UNREADABLE = (OSError, sqlite3.Error, ValueError)  # ValueError: text that is not JSON


@dataclass(frozen=True, slots=True)
class Description:
    """What a ``kernel`` or a ``server`` is since ``t_ns``, as attributes by name (:mod:`.resource`)."""

    t_ns: int
    kind: str
    name: str
    told: Mapping[str, JSON]


class RecordedSpans:
    """A :class:`~llamatelemetry_jupyter.values.SpanSource` of the file at ``path``, a session of before as a rule.

    Opening it takes milliseconds: rows are read when they are asked for. Raises LlamaError when it is no such file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        #: Why rows are not being written, in words; ``None`` while all is well.
        self.problem: str | None = None
        self._reader = SpanReader(path) if path is not None else None
        self._recent = Recent()
        self._written = 0  # so many rows are in the file
        self._gaps: dict[str, bytes] = {}  # by span, the newest
        self._about: dict[str, str] = {}
        self._lock = threading.RLock()
        self._begin()

    def _begin(self) -> None:
        try:
            self._load()
        except (*_UNREADABLE, TypeError) as error:
            raise self._unreadable(error) from error

    def rows(
        self, last: int | None = None, trace_id: str | None = None, since_ns: int | None = None
    ) -> Sequence[SpanRow]:
        """Rows in order of their end; ``last`` keeps the newest N, ``since_ns`` those that ended at or after it."""
        with self._memory() as recent:
            packed, on_file, evicted_ns = recent.packed, self._on_file(), recent.evicted_ns
            if trace_id is None and since_ns is None and last is not None:
                packed = packed[max(0, len(packed) - last) :]
            else:
                packed = list(packed)
        if since_ns is not None:
            packed = [one for one in packed if end_ns(one) >= since_ns]
        if trace_id is not None:
            mark = trace_id.encode("utf-8", "replace")
            packed = [one for one in packed if mark in one]
        found = [row(one) for one in packed]
        if trace_id is not None:
            found = [one for one in found if one.trace_id == trace_id]
        if on_file and (last is None or len(found) < last) and (since_ns is None or since_ns <= evicted_ns):
            found = self._older(trace_id, since_ns, None if last is None else last - len(found), on_file) + found
        return found if last is None else found[max(0, len(found) - last) :]

    def roots(self, last: int = 1000) -> list[SpanRow]:
        """The newest spans without a parent, in order of their end."""
        with self._memory() as recent:
            packed, on_file = recent.roots(last), self._on_file()
        found = [row(one) for one in packed]
        if len(found) < last and on_file:
            found = (self._read(lambda reader: reader.roots(last - len(found), on_file)) or []) + found
        return found

    def outlines(self, last: int = 50_000) -> Iterator[Outline]:
        """Roots and calls, the newest first, at most ``last`` of them; read as far as they are asked for."""
        with self._memory() as recent:
            packed, on_file = list(recent.packed), self._on_file()
        yield from islice(chain(outlines(reversed(packed)), self._outlines_on_file(last, on_file)), last)

    def _outlines_on_file(self, last: int, on_file: int) -> Iterator[Outline]:
        if on_file:
            yield from self._read(lambda reader: reader.outlines(last, on_file)) or []

    def traces(self, beginning: str, most: int = 10) -> list[str]:
        """Ids of traces that begin so, at most ``most`` of them."""
        mark = beginning.encode("utf-8", "replace")
        with self._memory() as recent:
            packed, on_file = [one for one in recent.packed if mark in one], self._on_file()
        ids = (unpack(one)[0] for one in packed)
        found = dict.fromkeys(one for one in ids if one.startswith(beginning))
        if on_file and len(found) < most:
            found |= dict.fromkeys(self._read(lambda reader: reader.traces(beginning, on_file, most)) or [])
        return list(found)[:most]

    def trace(self, beginning: str | None = None) -> Sequence[SpanRow]:
        """The rows of the trace whose id begins so, of the newest without one; CommandError for none or several."""
        if beginning is None:
            last = self.rows(last=1)
            return self.rows(trace_id=last[-1].trace_id) if last else []
        found = self.traces(beginning.lower())
        if len(found) == 1:
            return self.rows(trace_id=found[0])
        said = "several traces begin with" if found else "there is no trace"
        raise CommandError(f"{said} {beginning!r}", hint="%llama spans")

    def select(self, where: Where, last: int | None = None) -> list[SpanRow]:
        """Rows that are meant by ``where``, in order of their end; the newest ``last``."""
        with self._memory() as recent:
            packed, on_file = list(recent.packed), self._on_file()
        found: list[SpanRow] = []
        for one in reversed(packed):
            if last is not None and len(found) >= last:
                break
            if (where.since_ns is None or end_ns(one) >= where.since_ns) and where.matches(made := row(one)):
                found.append(made)
        found.reverse()
        if on_file and (last is None or len(found) < last):
            left = None if last is None else last - len(found)
            found = (self._read(lambda reader: reader.selected(where, left, on_file)) or []) + found
        return found

    def values(self, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """The values of ``columns`` (of a :class:`SpanRow`, not ``attributes``) of the rows that are meant."""
        if where.text is not None:
            yield from (tuple(getattr(one, name) for name in columns) for one in self.select(where))
            return
        with self._memory() as recent:
            packed, on_file = list(recent.packed), self._on_file()
        if on_file:
            yield from self._read(lambda reader: list(reader.values(columns, where, on_file))) or []
        places = [COLUMNS.index(name) for name in columns]
        for one in packed:
            values = unpack(one)
            if where.everything or where.matches(make(*values)):
                yield tuple(values[place] for place in places)

    def frame(self) -> DataFrame:
        """All rows as a DataFrame, one column per field of :class:`SpanRow`; ``<NA>`` and NaN mean not available."""
        return frame(self.rows())

    def totals(self) -> dict[str, int]:
        """Counts over all rows, those that the file already held included: the fields of :class:`Totals`."""
        with self._memory() as recent:
            return as_dict(recent.totals)

    def trouble(self) -> str | None:
        """What was dropped and why rows are not being written, in words; ``None`` while all is well."""
        dropped = self.totals()["dropped"]
        said = [f"{dropped:,} dropped"] if dropped else []
        return "; ".join([*said, *([self.problem] if self.problem else [])]) or None

    def latencies(self) -> list[latency.Latency]:
        """Median and 95th percentile of the durations by name, over all rows: exact, or from the file within 2 %."""
        with self._memory() as recent:
            known = recent.durations.copy() if recent.durations is not None else None
        return latency.exact(known) if known is not None else self._read(lambda reader: reader.latencies()) or []

    def gaps(self, span_id: str) -> tuple[float, ...] | None:
        """The times between the tokens of a span in seconds; ``None`` where none were kept."""
        with self._lock:
            packed = self._gaps.get(span_id)
        if packed is None and self._written:
            packed = self._read(lambda reader: reader.gaps(span_id))
        return decode(packed) if packed is not None else None

    def about(self) -> dict[str, JSON]:
        """What :meth:`describe` was told, now and before."""
        with self._lock:
            said = {name: json.loads(value) for name, value in self._about.items()}
        return ((self._read(lambda reader: reader.about()) or {}) if self._written else {}) | said

    def descriptions(self) -> list[Description]:
        """What kernel and servers of the session were, in order; a server that was started again is there twice."""
        told: list[Any] = list(self.about().values())
        found = [Description(**one) for one in told]
        return sorted(found, key=lambda one: one.t_ns)

    def between(self, start: int, stop: int) -> list[SpanRow]:
        """Rows number ``start`` to ``stop - 1``, counted from 0 in the order in which they came."""
        with self._memory() as recent:
            base, packed = recent.base, recent.packed[max(0, start - recent.base) : max(0, stop - recent.base)]
            on_file = self._on_file()
        older = self._read(lambda reader: reader.rows(start, min(stop, on_file))) if start < min(base, on_file) else []
        return [*(older or []), *(row(one) for one in packed)]

    @contextmanager
    def _memory(self) -> Iterator[Recent]:
        """The rows in memory, with those of all spans that have ended."""
        with self._lock:
            self._recent.settle()
            yield self._recent

    def _on_file(self) -> int:
        """How many rows are to be read from the file, because they are no longer in memory or never were."""
        return min(self._recent.base, self._written)

    def _older(self, trace_id: str | None, since_ns: int | None, last: int | None, on_file: int) -> list[SpanRow]:
        if trace_id is not None:
            found = self._read(lambda reader: reader.trace(trace_id, on_file)) or []
            return [one for one in found if since_ns is None or one.end_ns >= since_ns]
        if since_ns is not None:
            return self._read(lambda reader: reader.since(since_ns, on_file)) or []
        return self._read(lambda reader: reader.rows(0 if last is None else max(0, on_file - last), on_file)) or []

    def _read(self, ask: Callable[[SpanReader], T]) -> T | None:
        """What the file says. Raises LlamaError when it cannot be read."""
        assert self._reader is not None
        try:
            return ask(self._reader)
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> LlamaError:
        return LlamaError(f"{self.path} is no session that can be read ({error})", hint="%llama sessions")

    def _load(self) -> None:
        assert self._reader is not None
        self._written = count = self._reader.count()
        self._recent = Recent(count, Totals(**self._reader.totals()))


def frame(rows: Sequence[SpanRow]) -> DataFrame:
    """Rows as a DataFrame, as :meth:`SpanStore.frame`."""
    import pandas as pd

    columns: dict[str, Any] = {name: [getattr(one, name) for one in rows] for name in COLUMNS}
    columns["attributes"] = [dict(one.attributes) for one in rows]
    return pd.DataFrame({name: pd.Series(columns[name], dtype=_DTYPES.get(name, "string")) for name in COLUMNS})


#: Columns that are not text.
_DTYPES = {
    "start_ns": "int64",
    "end_ns": "int64",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "cached_tokens": "Int64",
    "ttft_s": "float64",
    "decode_tokens_per_s": "float64",
    "energy_j": "float64",
    "peak_bytes": "Int64",
    "attributes": "object",
}

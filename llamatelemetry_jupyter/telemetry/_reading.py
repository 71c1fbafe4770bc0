"""Reading a session's file, the running one's or an old one's, without ever writing to it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote

from ..values import JSON, SpanRow
from . import _ids, latency, semconv
from ._packed import COLUMNS, make
from .outline import Outline
from .where import Where, functions

_COLUMNS = ", ".join(COLUMNS)
_SELECT = f"select {_COLUMNS} from spans"


class SpanReader:
    """Reads one file; every method opens it anew and raises ``OSError`` or ``sqlite3.Error`` when it cannot.

    ``stop`` is the number of the first row that is not meant: rows of a running session are numbered as in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self) -> int:
        """The number that the next row would have."""
        with self._connected() as connection:
            found: int = connection.execute("select coalesce(max(rowid), 0) from spans").fetchone()[0]
        return found

    def totals(self) -> dict[str, int]:
        """Counts over all rows; empty when nothing was written yet."""
        with self._connected() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("select * from totals").fetchone()
        return {name: found[name] for name in found.keys()} if found is not None else {}  # noqa: SIM118 (a Row iterates values)

    def about(self) -> dict[str, JSON]:
        """What the session said of itself."""
        with self._connected() as connection:
            return {name: json.loads(value) for name, value in connection.execute("select name, value from about")}

    def latencies(self) -> list[latency.Latency]:
        """Percentiles of the durations by name."""
        with self._connected() as connection:
            counts = connection.execute("select name, bucket, count from latency order by name, bucket").fetchall()
        return [
            latency.estimated(name, [(bucket, count) for _, bucket, count in group])
            for name, group in groupby(counts, key=lambda one: one[0])
        ]

    def names(self) -> list[str]:
        """The names of the spans that there are."""
        with self._connected() as connection:
            return [name for (name,) in connection.execute("select distinct name from latency")]

    def bounds(self) -> tuple[int | None, int | None]:
        """When the first row started and when the last one ended."""
        first = "select start_ns from spans order by rowid limit 1"
        last = "select end_ns from spans order by rowid desc limit 1"
        with self._connected() as connection:
            found: tuple[int | None, int | None] = connection.execute(f"select ({first}), ({last})").fetchone()
        return found

    def rows(self, start: int, stop: int) -> list[SpanRow]:
        """Rows with ``start <= number < stop``."""
        with self._connected() as connection:
            found = connection.execute(f"{_SELECT} where rowid > ? and rowid <= ? order by rowid", (start, stop))
            return [_row(one) for one in found]

    def since(self, since_ns: int, stop: int) -> list[SpanRow]:
        """Rows that ended at or after ``since_ns``."""
        with self._connected() as connection:
            first = connection.execute("select min(first) from blocks where end_ns >= ?", (since_ns,)).fetchone()[0]
            query = f"{_SELECT} where rowid >= ? and rowid <= ? and end_ns >= ? order by rowid"
            return [_row(one) for one in connection.execute(query, (first or stop + 1, stop, since_ns))]

    def roots(self, last: int, stop: int) -> list[SpanRow]:
        """The roots that started last, in order of their end."""
        query = (
            f"select rowid, {_COLUMNS} from spans where parent_id is null and rowid <= ? order by start_ns desc limit ?"
        )
        with self._connected() as connection:
            found = connection.execute(query, (stop, last)).fetchall()
        return [_row(one[1:]) for one in sorted(found, key=itemgetter(0))]

    def outlines(self, last: int, stop: int) -> list[Outline]:
        """Roots and calls, the newest first."""
        calls = ", ".join(f"'{one}'" for one in sorted(semconv.CALLS))
        call = f"coalesce(json_extract(attributes, '$.\"{semconv.OPERATION_NAME}\"') in ({calls}), 0)"
        query = (
            f"select {', '.join(Outline._fields[:-1])}, {call} as call from spans"
            " where rowid <= ? and (parent_id is null or call) order by rowid desc limit ?"
        )
        with self._connected() as connection:
            return [Outline._make((*one[:-1], bool(one[-1]))) for one in connection.execute(query, (stop, last))]

    def trace(self, trace_id: str, stop: int) -> list[SpanRow]:
        """The rows of one trace."""
        with self._connected() as connection:
            numbers = list(_located(connection, "traces", trace_id, stop))
            return [row for row in _fetched(connection, numbers) if row.trace_id == trace_id]

    def traces(self, beginning: str, stop: int, most: int) -> list[str]:
        """Ids of traces that begin so, ``most`` at most."""
        with self._connected() as connection:
            if _ids.searchable(beginning):
                numbers = list(_located(connection, "traces", beginning, stop))
                found = dict.fromkeys(row.trace_id for row in _fetched(connection, numbers))
                return [one for one in found if one.startswith(beginning)][:most]
            query = "select distinct trace_id from spans where rowid <= ? and substr(trace_id, 1, ?) = ? limit ?"
            return [one for (one,) in connection.execute(query, (stop, len(beginning), beginning, most))]

    def gaps(self, span_id: str) -> bytes | None:
        """The times between a span's tokens as they were appended."""
        query = "select gaps from gaps join spans on spans.rowid = span where span = ? and span_id = ?"
        with self._connected() as connection:
            for number in _located(connection, "spans", span_id, 2**62):
                if (found := connection.execute(query, (number, span_id)).fetchone()) is not None:
                    packed: bytes = found[0]
                    return packed
        return None

    def values(self, columns: Sequence[str], where: Where, stop: int) -> Iterator[tuple[object, ...]]:
        """Columns of the rows that are meant; ``where.text`` is not looked for."""
        with self._connected() as connection:
            condition, given = _condition(connection, where, stop)
            query = f"select {', '.join(columns)} from spans where {condition} order by rowid"
            yield from connection.execute(query, given)

    def selected(self, where: Where, last: int | None, stop: int) -> list[SpanRow]:
        """The rows that are meant, the newest ``last``."""
        found: list[SpanRow] = []
        with self._connected() as connection:
            condition, given = _condition(connection, where, stop)
            query = f"{_SELECT} where {condition} order by rowid desc"
            for one in connection.execute(query, given):
                if last is not None and len(found) >= last:
                    break
                if where.matches(row := _row(one)):
                    found.append(row)
        return found[::-1]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        address = f"file:{quote(os.fspath(self.path))}?mode=ro"
        # A file that was closed well has no log; SQLite would make one, which a folder of others' does not allow.
        if not os.access(self.path.parent, os.W_OK) and not os.path.exists(f"{self.path}-wal"):
            address += "&immutable=1"
        connection = sqlite3.connect(address, uri=True)
        try:
            for name, (arguments, function) in functions().items():
                connection.create_function(name, arguments, function, deterministic=True)
            yield connection
        finally:
            connection.close()


def _located(connection: sqlite3.Connection, column: str, wanted: str, stop: int) -> Iterator[int]:
    """The rowids whose id may be ``wanted`` or begin so."""
    key = _ids.key(wanted)
    for first, block in connection.execute(
        f"select first, {column} from blocks where first <= ? order by first", (stop,)
    ):
        for place in _ids.places(block, key):
            if first + place <= stop:
                yield first + place


def _fetched(connection: sqlite3.Connection, numbers: Sequence[int]) -> Iterator[SpanRow]:
    for number in numbers:
        for one in connection.execute(f"{_SELECT} where rowid = ?", (number,)):
            yield _row(one)


def _condition(connection: sqlite3.Connection, where: Where, stop: int) -> tuple[str, list[object]]:
    condition, given = where.sql()
    condition, given = f"rowid <= ? and {condition}", [stop, *given]
    if where.trace is not None and _ids.searchable(where.trace):
        numbers = ", ".join(map(str, _located(connection, "traces", where.trace, stop)))
        condition = f"rowid in ({numbers}) and {condition}"
    return condition, given


def _row(columns: Sequence[object]) -> SpanRow:
    return make(*columns[:-1], json.loads(str(columns[-1])))

"""The file of a session's spans: SQLite with a write-ahead log, rows appended by rowid.

A random key would rewrite pages all over the file, at eight times the cost. Row number n of a store is rowid n + 1.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ..values import SpanRow
from ._packed import COLUMNS, flat, make

_encode = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder per row
_SCHEMA = f"""
create table if not exists spans ({", ".join(COLUMNS)});
create index if not exists roots on spans (start_ns) where parent_id is null;
"""
_INSERT = f"insert into spans (rowid, {', '.join(COLUMNS)}) values ({', '.join('?' * (len(COLUMNS) + 1))})"
_UPDATE = "update spans set energy_j = ?, peak_bytes = ?, attributes = ? where rowid = ?"


class SpanFile:
    """Appends and updates rows of one file; every method raises ``OSError`` or ``sqlite3.Error`` when it cannot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def append(self, first: int, rows: Sequence[SpanRow]) -> None:
        """Add ``rows`` as numbers ``first``, ``first + 1``, … in one transaction."""
        connection = self._open()
        values = [[first + i + 1, *_values(row)] for i, row in enumerate(rows)]
        try:
            with connection:
                connection.executemany(_INSERT, values)
        except UnicodeError:  # half a character from a broken-off stream
            with connection:
                connection.executemany(_INSERT, [[_valid(value) for value in one] for one in values])

    def update(self, rows: Sequence[tuple[int, SpanRow]]) -> None:
        """Write what was measured during the spans of ``(number, row)`` pairs."""
        connection = self._open()
        with connection:
            values = ((row.energy_j, row.peak_bytes, _encode(dict(row.attributes)), number + 1) for number, row in rows)
            connection.executemany(_UPDATE, values)

    def close(self) -> None:
        """Give the file back; a later write opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> sqlite3.Connection | None:
        """The connection, to be kept but never used or closed: what a forked child must do with its parent's."""
        connection, self._connection = self._connection, None
        return connection

    def read(self, start: int, stop: int, trace_id: str | None = None) -> list[SpanRow]:
        """Rows with ``start <= number < stop``, of one trace if ``trace_id`` is given."""
        where, values = "rowid > ? and rowid <= ?", [start, stop]
        with closing(self._reader()) as connection:
            query = f"select {', '.join(COLUMNS)} from spans where {where}"
            if trace_id is None:
                found = connection.execute(f"{query} order by rowid", values)
            else:
                found = connection.execute(f"{query} and trace_id = ? order by rowid", [*values, trace_id])
            return [_row(one) for one in found]

    def scan(self) -> Iterator[tuple[str, str, int | None, int | None, str | None]]:
        """Trace id, status, input tokens, output tokens and GenAI operation of every row."""
        operation = "json_extract(attributes, '$.\"gen_ai.operation.name\"')"
        with closing(self._reader()) as connection:
            yield from connection.execute(
                f"select trace_id, status, input_tokens, output_tokens, {operation} from spans order by rowid"
            )

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its side files the mode of the file itself. Only when it is new: closing a descriptor of a
            # database drops the locks that this process holds on it (POSIX).
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self.path, check_same_thread=False)
            try:
                connection.execute("pragma journal_mode=wal")
                connection.execute("pragma synchronous=normal")
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _values(row: SpanRow) -> list[object]:
    return [*flat(row), _encode(dict(row.attributes))]


def _valid(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _row(columns: Sequence[object]) -> SpanRow:
    return make(*columns[:-1], json.loads(str(columns[-1])))

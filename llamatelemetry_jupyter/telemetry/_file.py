"""The file of a session's spans: SQLite with a write-ahead log, rows appended by rowid.

A random key would rewrite pages all over the file, at eight times the cost. Row number n of a store is rowid n + 1.
What would need a scan later (totals, percentiles by name, where a trace lies) is brought up to date with the rows, in
the same transaction. docs/telemetry.md describes the tables.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from . import _ids, latency
from ._lock import Lock
from ._packed import COLUMNS, Fields

_log = logging.getLogger(__name__)
VERSION = 1
_MAX_LOG = 16 << 20
#: SQLite writes a NaN as NULL. Python's sqlite3 looks for an adapter for each None: half the cost of a row.
_NULL = float("nan")
_encode = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":")).encode
try:
    from orjson import dumps as _quick
except ImportError:  # an extra; Kaggle has it
    _quick = None  # type: ignore[assignment]
_TOTALS = ("spans", "traces", "calls", "errors", "input_tokens", "output_tokens", "dropped")
_SCHEMA = f"""
create table if not exists spans ({", ".join(COLUMNS)});
create index if not exists roots on spans (start_ns) where parent_id is null;
create table if not exists gaps (span integer primary key, gaps blob);
create table if not exists latency (name text, bucket integer, count integer, primary key (name, bucket)) without rowid;
create table if not exists blocks (first integer primary key, end_ns integer, traces blob, spans blob);
create table if not exists totals ({", ".join(f"{name} integer" for name in _TOTALS)});
create table if not exists about (name text primary key, value text) without rowid;
pragma user_version = {VERSION};
"""
_INSERT = f"insert into spans (rowid, {', '.join(COLUMNS)}) values {{}}", len(COLUMNS) + 1
_INSERT_GAPS = "insert or replace into gaps (span, gaps) values {}", 2
_COUNT = (
    (
        "insert into latency (name, bucket, count) values {}"
        " on conflict (name, bucket) do update set count = count + excluded.count"
    ),
    3,
)
_BLOCK = "insert or replace into blocks (first, end_ns, traces, spans) values {}", 4
_SUM = f"insert or replace into totals (rowid, {', '.join(_TOTALS)}) values {{}}", len(_TOTALS) + 1
_ABOUT = "insert or replace into about (name, value) values {}", 2
_AT_ONCE = 128
_VARIABLES = 32_766 if sqlite3.sqlite_version_info >= (3, 32) else 999  # SQLite's own limit in a statement
_UPDATE = "update spans set energy_j = ?, peak_bytes = ?, attributes = ? where rowid = ?"
_NAME, _START, _END, _TRACE, _SPAN = (COLUMNS.index(n) for n in ("name", "start_ns", "end_ns", "trace_id", "span_id"))
_ENERGY, _PEAK = COLUMNS.index("energy_j"), COLUMNS.index("peak_bytes")


class SpanFile:
    """Appends and updates rows of one file; every method raises ``OSError`` or ``sqlite3.Error`` when it cannot.

    While it is open it holds the session's lock: another process that opens the file is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock(path)
        self._connection: sqlite3.Connection | None = None
        self._block: tuple[int, int, bytes, bytes] = (0, 0, b"", b"")  # the last one: first rowid, latest end, keys
        self._names: set[str] = set()
        self._tidying: threading.Thread | None = None

    def append(
        self,
        first: int,
        rows: Sequence[Fields],
        gaps: Mapping[str, bytes],
        totals: Mapping[str, int],
        about: Mapping[str, str],
    ) -> None:
        """Add ``rows`` as numbers ``first``, ``first + 1``, … in one transaction.

        ``gaps`` by span id, of whatever spans; ``totals`` and ``about`` (JSON by name) replace what the file has.
        """
        connection = self._open()
        beside = [(first + i + 1, gaps[row[_SPAN]]) for i, row in enumerate(rows) if row[_SPAN] in gaps] if gaps else []
        counts, names = self._counts(rows)
        blocks = self._blocks(first + 1, rows)

        def write(inserted: Sequence[Sequence[object]], counted: Sequence[Sequence[object]]) -> None:
            with connection:
                _insert(connection, _INSERT, inserted)
                _insert(connection, _INSERT_GAPS, beside)
                _insert(connection, _COUNT, counted)
                _insert(connection, _BLOCK, blocks)
                _insert(connection, _SUM, [[1, *(totals[name] for name in _TOTALS)]])
                _insert(connection, _ABOUT, list(about.items()))

        try:
            write(_numbered(first, rows), counts)
        # Half a character from a broken-off stream, a number of more than 64 bits, a value that is none.
        except (UnicodeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            write(_valid(_numbered(first, rows)), _valid(counts))
        self._names, self._block = names, blocks[-1] if blocks else self._block
        self._tidy_log()

    def describe(self, about: Mapping[str, str]) -> None:
        """Write facts about the session (JSON by name) without any row."""
        connection = self._open()
        with connection:
            _insert(connection, _ABOUT, list(about.items()))

    def update(self, rows: Sequence[tuple[int, Fields]]) -> None:
        """Write energy, peak memory and attributes of ``(number, row)`` pairs."""
        connection = self._open()
        changed = [(row[_ENERGY], row[_PEAK], _text(row[-1]), number + 1) for number, row in rows]
        with connection:
            connection.executemany(_UPDATE, _valid(changed))

    def close(self) -> None:
        """Give the file and its lock back; a later write opens it again."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            self._lock.release()

    def abandon(self) -> sqlite3.Connection | None:
        """The connection, to be kept but never used or closed: what a forked child must do with its parent's."""
        connection, self._connection = self._connection, None
        return connection

    def _tidy_log(self) -> None:
        """Move what a long log holds into the file, beside the rows that come meanwhile."""
        busy = self._tidying is not None and self._tidying.is_alive()
        if not busy and Path(f"{self.path}-wal").stat().st_size > _MAX_LOG:
            self._tidying = threading.Thread(
                target=_checkpoint, args=(self.path,), name="llamatelemetry-log", daemon=True
            )
            self._tidying.start()

    def _counts(self, rows: Sequence[Fields]) -> tuple[list[tuple[str, int, int]], set[str]]:
        """The rows' additions to the histogram, and the names that it then has."""
        names, added = set(self._names), Counter[tuple[str, int]]()
        for row in rows:
            name = row[_NAME]
            if name not in names:
                if len(names) < latency.MAX_NAMES:
                    names.add(name)
                else:
                    name = latency.OTHER
            added[name, latency.bucket(row[_END] - row[_START])] += 1
        return [(*place, count) for place, count in added.items()], names

    def _blocks(self, first: int, rows: Sequence[Fields]) -> list[tuple[int, int, bytes, bytes]]:
        """The last block with these rows behind its own, and those that follow it."""
        made: list[tuple[int, int, bytes, bytes]] = []
        begin, latest, traces, spans = self._block
        start = 0
        while start < len(rows):
            held = len(spans) // 4
            # Behind rows that were never written a block begins anew: a place in it is a rowid.
            if held >= _ids.ROWS or not held or begin + held != first + start:
                begin, latest, traces, spans, held = first + start, 0, b"", b"", 0
            part = rows[start : start + _ids.ROWS - held]
            traces += _ids.keys([row[_TRACE] for row in part])
            spans += _ids.keys([row[_SPAN] for row in part])
            latest = max([latest, *(row[_END] for row in part)])
            made.append((begin, latest, traces, spans))
            start += len(part)
        return made

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            # SQLite gives its side files the mode of the file itself. Only when it is new: closing a descriptor of a
            # database drops the locks that this process holds on it (POSIX).
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self.path, check_same_thread=False, cached_statements=2 * _AT_ONCE)
            try:
                connection.execute("pragma page_size = 16384")  # a seventh less CPU a row than 4096, of a new file only
                # Waiting for the disk would let spans go unwritten: not for a file that is empty still, and later on a
                # thread of its own (_tidy_log). The log itself survives the kernel's death without.
                connection.execute("pragma synchronous = off")
                connection.execute("pragma journal_mode = wal")
                connection.executescript(_SCHEMA)
                connection.execute("pragma synchronous = normal")
                connection.execute("pragma wal_autocheckpoint = 0")
                self._names = {name for (name,) in connection.execute("select distinct name from latency")}
                last = connection.execute("select * from blocks order by first desc limit 1").fetchone()
                self._block = last or (0, 0, b"", b"")
            except sqlite3.Error:
                connection.close()
                self._lock.release()
                raise
            self._connection = connection
        return self._connection


def _insert(connection: sqlite3.Connection, statement: tuple[str, int], rows: Sequence[Sequence[object]]) -> None:
    """Insert rows, many in one statement.

    Each step of a statement gives the interpreter to whoever waits for it, and beside a loop in Python gets it back
    5 ms later: row by row, 200 rows a second would be written.
    """
    text, columns = statement
    one, most = f"({', '.join('?' * columns)})", min(_AT_ONCE, _VARIABLES // columns)
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        flat = [_NULL if value is None else value for value in chain.from_iterable(part)]
        connection.execute(text.format(", ".join([one] * len(part))), flat)


def _checkpoint(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma wal_checkpoint(passive)")
    except sqlite3.Error as error:  # the log grows on, and the next write tries again
        _log.debug("the log of %s could not be moved into it: %s", path, error)


def _text(attributes: object) -> str:
    if _quick is None:
        return _encode(attributes)
    try:
        return _quick(attributes).decode()
    except (TypeError, ValueError):  # what it refuses: half a character, more than 64 bits, an object
        return _encode(attributes)


def _numbered(first: int, rows: Sequence[Fields]) -> list[Sequence[object]]:
    return [(rowid, *row[:-1], _text(row[-1])) for rowid, row in enumerate(rows, first + 1)]


def _valid(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    return [[_bindable(value) for value in row] for row in rows]


def _bindable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    return value if value is None or isinstance(value, (float, bytes)) else str(value)

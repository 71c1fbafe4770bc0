"""The spans of one session: in memory at once, in a file within a tenth of a second, gone never.

One SQLite file per session: write-ahead log, rows appended by rowid (a random key would rewrite pages, eight times the
cost), an index on roots. A thread of its own commits in groups; it starts with the first row and sleeps while there is
nothing to write.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..values import SampleSource, SpanRow
from .join import fill

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
_GROUP_S = 0.1
_IN_MEMORY = 100_000
_COLUMNS = tuple(field.name for field in dataclasses.fields(SpanRow))
_SCHEMA = f"""
create table if not exists spans ({", ".join(_COLUMNS)});
create index if not exists roots on spans (start_ns) where parent_id is null;
"""
_INSERT = f"insert into spans values ({', '.join('?' * len(_COLUMNS))})"


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all rows of a store; ``calls`` are requests to a model."""

    spans: int = 0
    traces: int = 0
    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class SpanStore:
    """A :class:`~llamatelemetry_jupyter.values.SpanSource` that lasts; ``path=None`` keeps spans in memory only.

    Opening an existing file reads its rows back. When the file cannot be written, rows stay in memory and one warning
    is logged.
    """

    def __init__(self, path: Path | None = None, samples: SampleSource | None = None) -> None:
        self.path = path
        self.samples = samples
        self._rows: deque[SpanRow] = deque(maxlen=_IN_MEMORY)
        self._pending: list[SpanRow] = []
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._broken = path is None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._subscribers: list[Callable[[], None]] = []
        self._traces: set[str] = set()
        self._totals = Totals()
        if path is not None and path.exists():
            for row in _read(path):
                self._count(row)
                self._rows.append(row)

    def append(self, row: SpanRow) -> None:
        """Add a row: seen by :meth:`rows` at once, by the file within 0.1 s."""
        with self._lock:
            self._rows.append(row)
            self._count(row)
            if self.path is not None or self.samples is not None:
                self._pending.append(row)
                if self._thread is None or self._pid != os.getpid():
                    self._pid = os.getpid()
                    self._thread = threading.Thread(target=self._run, name="llamatelemetry-spans", daemon=True)
                    self._thread.start()
                self._wake.set()
        self._notify()

    def rows(
        self, last: int | None = None, trace_id: str | None = None, since_ns: int | None = None
    ) -> Sequence[SpanRow]:
        """Rows in order of their end; ``last`` keeps the newest N, ``since_ns`` those that ended at or after it."""
        with self._lock:
            found = list(self._rows)
        if trace_id is not None:
            found = [row for row in found if row.trace_id == trace_id]
        if since_ns is not None:
            found = [row for row in found if row.end_ns >= since_ns]
        return found if last is None else found[-last:]

    def frame(self) -> DataFrame:
        """All rows as a DataFrame, one column per field of :class:`SpanRow`."""
        import pandas as pd

        rows = self.rows()
        columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
        columns["attributes"] = [dict(row.attributes) for row in rows]
        frame = pd.DataFrame(columns, columns=list(_COLUMNS))
        for name in ("input_tokens", "output_tokens", "cached_tokens", "peak_bytes"):
            frame[name] = frame[name].astype("Int64")
        return frame

    def totals(self) -> dict[str, int]:
        """Counts over all rows that this session has seen: the fields of :class:`Totals`."""
        return dataclasses.asdict(self._totals)

    def subscribe(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` (on any thread) after new rows; returns the function that ends it."""
        self._subscribers.append(fn)
        return lambda: self._subscribers.remove(fn) if fn in self._subscribers else None

    def flush(self) -> None:
        """Write what is pending, now."""
        with self._writing:
            with self._lock:
                pending, self._pending = self._pending, []
            if not pending:
                return
            filled = self._fill(pending)
            if not self._broken:
                self._write(filled)

    def close(self) -> None:
        """Write what is pending and end the thread; rows in memory stay readable."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout=5)
        self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            # Rows that end within the group are written with it; a closing store does not wait.
            if not self._closed:
                threading.Event().wait(_GROUP_S)
            self.flush()

    def _fill(self, pending: list[SpanRow]) -> Sequence[SpanRow]:
        if self.samples is None:
            return pending
        filled = fill(pending, self.samples)
        changed = {old.span_id: new for old, new in zip(pending, filled, strict=True) if old is not new}
        if changed:
            with self._lock:
                self._rows = deque((changed.get(row.span_id, row) for row in self._rows), maxlen=_IN_MEMORY)
            self._notify()
        return filled

    def _write(self, rows: Sequence[SpanRow]) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            connection = sqlite3.connect(self.path)
            try:
                connection.execute("pragma journal_mode=wal")
                connection.execute("pragma synchronous=normal")
                connection.executescript(_SCHEMA)
                with connection:
                    connection.executemany(_INSERT, map(_pack, rows))
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            self._broken = True
            _log.warning("spans are kept in memory only: %s cannot be written (%s)", self.path, error)

    def _count(self, row: SpanRow) -> None:
        self._traces.add(row.trace_id)
        call = "gen_ai.operation.name" in row.attributes
        old = self._totals
        self._totals = Totals(
            old.spans + 1,
            len(self._traces),
            old.calls + call,
            old.errors + (row.status == "error"),
            old.input_tokens + (row.input_tokens or 0 if call else 0),
            old.output_tokens + (row.output_tokens or 0 if call else 0),
        )

    def _notify(self) -> None:
        for fn in list(self._subscribers):
            try:
                fn()
            except Exception:  # noqa: BLE001 (a view's bug must not lose a span)
                _log.exception("a subscriber to spans failed")


def _pack(row: SpanRow) -> list[object]:
    return [json.dumps(dict(row.attributes)) if name == "attributes" else getattr(row, name) for name in _COLUMNS]


def _read(path: Path) -> list[SpanRow]:
    connection = sqlite3.connect(path)
    try:
        names = ", ".join(_COLUMNS)
        found = connection.execute(
            f"select {names} from (select *, rowid from spans order by rowid desc limit {_IN_MEMORY}) order by rowid"
        )
        return [
            SpanRow(**{**dict(zip(_COLUMNS, one, strict=True)), "attributes": json.loads(one[-1])}) for one in found
        ]
    finally:
        connection.close()

"""The spans of one session: in memory at once, in a file within a tenth of a second, never lost.

A thread of its own commits rows in groups; it starts with the first row and sleeps while there is nothing to write. It
also joins spans with samples: a span's last joule is known only when the sampler has read a counter after its end, so
rows are written first and completed when that has happened.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import now_ns
from ..values import SampleSource, SpanRow
from . import semconv
from ._file import SpanFile
from ._packed import COLUMNS, end_ns, pack, unpack
from .join import fill

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
_GROUP_S = 0.08
_REJOIN_S = 0.5
_PATIENCE_NS = 3_000_000_000  # no sample for so long after a span's end: the sampler does not run
_RETRY_NS = 5_000_000_000
_IN_MEMORY = 100_000
_TRACE_WINDOW = 5_000  # rows among which the children of a root are looked for
_stores: weakref.WeakSet[SpanStore] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


@dataclass(slots=True)
class Totals:
    """Counts over all rows of a store; ``calls`` are requests to a model, ``errors`` spans that ended in one."""

    spans: int = 0
    traces: int = 0
    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class SpanStore:
    """A :class:`~llamatelemetry_jupyter.values.SpanSource` that lasts; ``path=None``: the newest 100,000 rows only.

    With a file every row stays readable: the newest 100,000 from memory, older ones from the file. Opening an existing
    file reads its rows back. When it cannot be written, one warning is logged, all rows stay in memory, and the write
    is tried again later. After a fork the child's store keeps its own rows in memory; the file stays the parent's.
    """

    def __init__(self, path: Path | None = None, samples: SampleSource | None = None) -> None:
        self.path = path
        self.samples = samples
        self._file = SpanFile(path) if path is not None else None
        self._writes = path is not None
        self._pending: list[SpanRow] = []  # newest, not packed yet
        self._packed: list[bytes] = []
        self._base = 0  # number of the first packed row: so many are in the file alone
        self._evicted_ns = 0  # latest end among those
        self._written = 0  # so many are in the file
        self._unjoined: list[tuple[int, SpanRow]] = []
        self._failed_ns: int | None = None
        self._warned = False
        self._closed = False
        self._subscribers: list[Callable[[], None]] = []
        self._traces: set[int] = set()
        self._totals = Totals()
        self._complained = False
        self._lock = threading.RLock()  # a span may end in a finalizer, on a thread that holds it
        self._writing = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        _stores.add(self)
        if path is not None and path.exists():
            self._load()

    def append(self, row: SpanRow) -> None:
        """Add a row: seen by :meth:`rows` at once, by the file within 0.1 s."""
        with self._lock:
            self._pending.append(row)
            operation = row.attributes.get(semconv.OPERATION_NAME)
            self._count(row.trace_id, row.status, row.input_tokens, row.output_tokens, operation)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="llamatelemetry-spans", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()
        if self._subscribers:
            self._notify()

    def rows(
        self, last: int | None = None, trace_id: str | None = None, since_ns: int | None = None
    ) -> Sequence[SpanRow]:
        """Rows in order of their end; ``last`` keeps the newest N, ``since_ns`` those that ended at or after it."""
        with self._lock:
            base, packed, pending = self._base, self._packed, list(self._pending)
            if trace_id is None and since_ns is None and last is not None:
                needed = max(0, last - len(pending))
                packed = packed[max(0, len(packed) - needed) :]
            else:
                packed = list(packed)
            evicted_ns = self._evicted_ns
        if since_ns is not None:
            packed = [one for one in packed if end_ns(one) >= since_ns]
        if trace_id is not None:
            mark = trace_id.encode()
            packed = [one for one in packed if mark in one]
        found = [unpack(one) for one in packed] + pending
        if trace_id is not None:
            found = [row for row in found if row.trace_id == trace_id]
        if since_ns is not None:
            found = [row for row in found if row.end_ns >= since_ns]
        if base and (last is None or len(found) < last) and (since_ns is None or since_ns <= evicted_ns):
            assert self._file is not None
            start = (
                0 if last is None or trace_id is not None or since_ns is not None else max(0, base + len(found) - last)
            )
            older = self._file.read(start, base, trace_id)
            found = [row for row in older if since_ns is None or row.end_ns >= since_ns] + found
        return found if last is None else found[max(0, len(found) - last) :]

    def frame(self) -> DataFrame:
        """All rows as a DataFrame, one column per field of :class:`SpanRow`; ``<NA>`` and NaN mean not available."""
        import pandas as pd

        rows = self.rows()
        columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
        columns["attributes"] = [dict(row.attributes) for row in rows]
        return pd.DataFrame({name: pd.Series(columns[name], dtype=_DTYPES.get(name, "string")) for name in COLUMNS})

    def totals(self) -> dict[str, int]:
        """Counts over all rows, those that the file already held included: the fields of :class:`Totals`."""
        with self._lock:
            return dataclasses.asdict(self._totals)

    def subscribe(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` (on any thread, so quickly) after new rows; returns the function that ends it."""
        self._subscribers.append(fn)
        return lambda: self._subscribers.remove(fn) if fn in self._subscribers else None

    def flush(self) -> None:
        """Write what is pending, now."""
        self._flush(last_chance=False)

    def close(self) -> None:
        """Write what is pending and end the thread; rows stay readable."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self._flush(last_chance=True)
        if self._file is not None:
            with self._writing:
                self._file.close()

    # ----------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        nap = threading.Event()
        while not self._closed:
            woken = self._wake.wait(_REJOIN_S if self._unjoined else None)
            if woken and not self._closed:
                nap.wait(_GROUP_S)  # rows that end within the group are written with it
            self._wake.clear()
            try:
                self._flush(last_chance=False)
            except Exception as error:  # noqa: BLE001 (rows to come must still find their writer)
                self._warn(error)

    def _flush(self, *, last_chance: bool) -> None:
        with self._writing:
            with self._lock:
                fresh, first = list(self._pending), self._base + len(self._packed)
            packed = [pack(row) for row in fresh]
            with self._lock:
                self._packed += packed
                del self._pending[: len(packed)]
            if self.samples is not None:
                self._unjoined += enumerate(fresh, first)
            elif self._unjoined:
                self._unjoined.clear()
            changed = self._joined(last_chance=last_chance)
            if self._writes:
                self._write(first, fresh, changed, retry=last_chance)
            self._evict()
        if changed:
            self._notify()

    def _joined(self, *, last_chance: bool) -> list[tuple[int, SpanRow]]:
        """Complete rows whose samples have come; returns those that changed."""
        if self.samples is None or not self._unjoined:
            return []
        rows = [row for _, row in self._unjoined]
        family = self._family({row.trace_id for row in rows if row.parent_id is None}, {row.span_id for row in rows})
        try:
            latest = [series.t_ns[-1] for series in self.samples.latest().devices if series.t_ns]
            filled = fill([*family, *rows], self.samples)[len(family) :]
        except Exception:  # noqa: BLE001 (whatever a source of samples does, rows are written)
            _log.exception("spans could not be joined with samples")
            self._unjoined = []
            return []
        covered, now = min(latest, default=0), now_ns()
        changed: list[tuple[int, SpanRow]] = []
        waiting: list[tuple[int, SpanRow]] = []
        for (number, old), new in zip(self._unjoined, filled, strict=True):
            if new is not old:
                changed.append((number, new))
            if not last_chance and covered < new.end_ns and now < new.end_ns + _PATIENCE_NS:
                waiting.append((number, new))
        self._unjoined = waiting
        with self._lock:
            for number, new in changed:
                if number >= self._base:
                    self._packed[number - self._base] = pack(new)
        return changed

    def _family(self, traces: set[str], known: set[str]) -> list[SpanRow]:
        """Recent rows of ``traces`` other than the ``known`` spans: a root's memory is that of its children."""
        if not traces:
            return []
        marks = [trace.encode() for trace in traces]
        with self._lock:
            recent = self._packed[-_TRACE_WINDOW:]
        found = [unpack(one) for one in recent if any(mark in one for mark in marks)]
        return [row for row in found if row.trace_id in traces and row.span_id not in known]

    def _write(self, first: int, fresh: list[SpanRow], changed: list[tuple[int, SpanRow]], *, retry: bool) -> None:
        assert self._file is not None
        if self._failed_ns is not None and not retry and now_ns() < self._failed_ns + _RETRY_NS:
            return
        with self._lock:
            before, total = self._written, self._base + len(self._packed)
            waiting = self._packed[before - self._base :]
        # Rows that an earlier write left over, or that were joined before they were written, come from memory.
        new = fresh if before == first and not changed else [unpack(one) for one in waiting]
        try:
            if new:
                self._file.append(before, new)
                self._written = total
            if completed := [(number, row) for number, row in changed if number < before]:
                self._file.update(completed)
            self._failed_ns = None
        except (OSError, sqlite3.Error) as error:
            self._failed_ns = now_ns()
            self._warn(error)

    def _evict(self) -> None:
        with self._lock:
            excess = len(self._packed) - _IN_MEMORY
            if self._file is not None:
                excess = min(excess, self._written - self._base)
            if excess < _IN_MEMORY // 10:  # in blocks: removing from the front moves the rest
                return
            if self._file is not None:
                self._evicted_ns = max(self._evicted_ns, *map(end_ns, self._packed[:excess]))
                self._base += excess
            else:
                self._unjoined = [(number - excess, row) for number, row in self._unjoined if number >= excess]
            del self._packed[:excess]

    # -------------------------------------------------------------------------------------------------------- the rest

    def _load(self) -> None:
        assert self._file is not None
        try:
            for trace_id, status, input_tokens, output_tokens, operation in self._file.scan():
                self._count(trace_id, status, input_tokens, output_tokens, operation)
            self._written = self._totals.spans
            self._base = max(0, self._written - _IN_MEMORY)
            self._packed = [pack(row) for row in self._file.read(self._base, self._written)]
            self._evicted_ns = now_ns() if self._base else 0
        except (OSError, sqlite3.Error, ValueError) as error:
            # Not a file of ours, or a damaged one: it is left as it is.
            self._file, self._writes = None, False
            self._totals, self._packed, self._base, self._written = Totals(), [], 0, 0
            self._traces.clear()
            self._warn(error)

    def _count(
        self, trace_id: str, status: str, input_tokens: int | None, output_tokens: int | None, operation: object
    ) -> None:
        totals, traces = self._totals, self._traces
        totals.spans += 1
        traces.add(hash(trace_id))
        totals.traces = len(traces)
        if status == "error":
            totals.errors += 1
        if operation in semconv.CALLS:
            totals.calls += 1
            totals.input_tokens += input_tokens or 0
            totals.output_tokens += output_tokens or 0

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("spans are kept in memory only: %s cannot be used (%s)", self.path, error)

    def _notify(self) -> None:
        for fn in list(self._subscribers):
            try:
                fn()
            except Exception:  # noqa: BLE001 (a view's bug must not lose a span)
                if not self._complained:
                    self._complained = True
                    _log.exception("a subscriber to spans failed; further failures are not logged")

    def _forked(self) -> None:
        """In a forked child: no lock, thread or file of the parent may be used."""
        self._lock, self._writing, self._wake = threading.RLock(), threading.RLock(), threading.Event()
        self._thread = None
        # Closing the parent's connection could end the parent's write-ahead log.
        if self._file is not None and (connection := self._file.abandon()) is not None:
            _inherited.append(connection)
        self._writes = False
        self._unjoined = []
        self._subscribers = []


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


def _after_fork() -> None:
    for store in list(_stores):
        store._forked()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

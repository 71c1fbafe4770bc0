"""The spans of one session: in memory at once, in a file within a tenth of a second, never lost.

A thread of its own commits rows in groups; it starts with the first row and sleeps while there is nothing to write. It
also joins spans with samples: a span's last joule is known only when the sampler has read a counter after its end, so
rows are written first and completed when that has happened.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..clock import now_ns
from ..errors import LlamaError
from ..values import JSON, SampleSource, SpanRow
from ._file import SpanFile
from ._packed import Fields, fields, make, row, unpack
from ._reading import SpanReader
from ._recent import Maker, Recent, as_dict
from .gaps import encode
from .join import complete_ns, fill
from .latency import Latency
from .recorded import RecordedSpans

T = TypeVar("T")
_log = logging.getLogger(__name__)
_GROUP_S = 0.05
_MANY = 1_000  # spans that wait for the writer: whoever ends the next one waits with them
_WAIT_S = 0.05
_REJOIN_S = 0.5
_PATIENCE_NS = 3_000_000_000  # no sample for so long after a span's end: the sampler does not run
_RETRY_NS = 5_000_000_000
_TIDY_ROWS = 100_000
_CHUNK = 512  # rows in a transaction: still in the processor's cache when they are written
_MAX_GAPS = 2_000  # requests whose gaps are in memory; the file has them all
_TRACE_WINDOW = 5_000  # rows among which the children of a root are looked for
_stores: weakref.WeakSet[SpanStore] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


class SpanStore(RecordedSpans):
    """The spans of the running session; ``path=None``: the newest 100,000 rows only.

    With a file every row stays readable: the newest 100,000 of this process from memory, others from the file. When it
    cannot be written, one warning is logged, :attr:`problem` says why, rows stay in memory, and the write is tried
    again later; beyond 300,000 such rows the oldest are dropped and counted. After a fork the child's store keeps its
    own rows in memory; the file stays the parent's. ``tidy`` is called on the store's thread after the first rows are
    written and every 100,000 rows from then on, ``on_rows`` there with all new rows, each once.
    """

    def __init__(
        self,
        path: Path | None = None,
        samples: SampleSource | None = None,
        tidy: Callable[[], object] | None = None,
        on_rows: Callable[[Sequence[SpanRow]], None] | None = None,
    ) -> None:
        self._tidy = tidy
        self._on_rows = on_rows
        self._tidy_at = 0
        self.samples = samples
        self._file = SpanFile(path) if path is not None else None
        self._unjoined: list[tuple[int, SpanRow]] = []
        self._stale: list[tuple[int, Fields]] = []  # rows that have changed since they were written
        self._told = 0  # so many facts about the session are in the file
        self._failed_ns: int | None = None
        self._closed = self._complained = self._warned = False
        self._subscribers: list[Callable[[], None]] = []
        self._writing = threading.RLock()
        self._wake, self._many, self._caught_up = threading.Event(), threading.Event(), threading.Event()
        self._keeps_up = True
        self._thread: threading.Thread | None = None
        super().__init__(path)
        _stores.add(self)

    def _begin(self) -> None:
        """Go on where the file ends; one that is not ours, or damaged, is left as it is."""
        if self.path is None or not self.path.exists():
            return
        try:
            self._load()
            newest = self._reader.rows(max(0, self._written - _TRACE_WINDOW), self._written) if self._reader else []
            self._recent.known([one.trace_id for one in newest])
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            self._file, self._written, self._recent = None, 0, Recent()
            self._fail(error)

    def append(self, row: SpanRow) -> None:
        """Add a row: seen by :meth:`rows` at once, by the file within 0.1 s."""
        self.ended(fields, row)

    def ended(self, maker: Maker, what: Any) -> None:
        """A span has ended: ``maker(what)`` is its row, made when it is written or looked at; costs 1 µs."""
        waiting = self._recent.give(maker, what)
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()
        if waiting >= _MANY:
            self._let_write()
        if self._subscribers:
            self._notify()

    def lost(self) -> None:
        """A span could not be recorded; called where its exception is handled."""
        with self._lock:
            self._recent.drop("a span could not be recorded")

    def amend(self, span_id: str, told: Mapping[str, JSON]) -> None:
        """Add attributes to the row of a span that ended a moment ago, one of the newest 5,000; else nothing."""
        with self._writing:
            self.flush()
            mark = span_id.encode("utf-8", "replace")
            with self._lock:
                recent = self._recent
                first = max(recent.base, recent.stop - _TRACE_WINDOW)
                numbered = reversed(list(enumerate(recent.packed[first - recent.base :], first)))
                known = next(
                    ((n, old) for n, one in numbered if mark in one and (old := row(one)).span_id == span_id), None
                )
                if known is None:
                    return
                number, old = known
                new = dataclasses.replace(old, attributes={**old.attributes, **told})
                recent.replace([(number, fields(new))])
            self._unjoined = [(n, new if n == number else one) for n, one in self._unjoined]
            self._stale.append((number, fields(new)))
            self.flush()
        self._notify()

    def keep_gaps(self, span_id: str, gaps_s: Sequence[float]) -> None:
        """Keep the times between the tokens of a span that is about to be appended."""
        packed = encode(gaps_s)
        with self._lock:
            self._gaps[span_id] = packed
            while len(self._gaps) > _MAX_GAPS:
                del self._gaps[next(iter(self._gaps))]

    def describe(self, kind: str, name: str, told: Mapping[str, JSON]) -> None:
        """Keep what a ``kernel`` or a ``server`` of this session is, from now on; in the file as soon as rows are."""
        now = now_ns()
        value = {"t_ns": now, "kind": kind, "name": name, "told": dict(told)}
        with self._lock:
            self._about[f"{kind} {name} {now}"] = json.dumps(value, default=str)
        self._wake.set()

    def subscribe(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` (on any thread, so quickly) after new rows; returns the function that ends it."""
        self._subscribers.append(fn)
        return lambda: self._subscribers.remove(fn) if fn in self._subscribers else None

    def flush(self) -> None:
        """Write what is pending, now."""
        self._flush(last_chance=False)

    def latencies(self) -> list[Latency]:
        """As of :class:`RecordedSpans`, over what is pending, too."""
        self.flush()
        return super().latencies()

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

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="llamatelemetry-spans", daemon=True)
                self._thread.start()

    def _let_write(self) -> None:
        """Spans end faster than they are written, beside a thread that keeps the interpreter: stand back for a moment.

        Not for long, and not again before a write has been done: a disk that hangs must not hold up anybody's work.
        """
        self._many.set()
        if self._keeps_up and threading.current_thread() is not self._thread:
            self._caught_up.clear()
            self._keeps_up = self._caught_up.wait(_WAIT_S)

    def _run(self) -> None:
        while not self._closed:
            woken = self._wake.wait(_REJOIN_S if self._unjoined else None)
            if woken and not self._closed:
                self._many.wait(_GROUP_S)  # rows that end within the group are written with it
            self._wake.clear()
            self._many.clear()
            try:
                self._flush(last_chance=False)
            except Exception as error:  # noqa: BLE001 (rows to come must still find their writer)
                self._fail(error)

    def _flush(self, *, last_chance: bool) -> None:
        with self._writing:
            more, changed = True, []
            while more:
                with self._lock:
                    more = self._recent.settle(_CHUNK)
                    fresh, stop = self._recent.take(), self._recent.stop
                    totals = as_dict(self._recent.totals)
                first = stop - len(fresh)
                made = [make(*values) for values in fresh] if self.samples is not None or self._on_rows else []
                if self.samples is not None:
                    self._unjoined += enumerate(made, first)
                elif self._unjoined:
                    self._unjoined.clear()
                changed = self._joined(last_chance=last_chance) if not more else []
                if self._file is not None:
                    self._write(first, fresh, changed, totals, retry=last_chance)
                with self._lock:
                    self._recent.evict(self._written if self.path is not None else None)
                if made and self._on_rows is not None:
                    self._guarded(self._on_rows, made)
                self._keeps_up = True
                if not more:
                    self._caught_up.set()
        if changed:
            self._notify()

    def _joined(self, *, last_chance: bool) -> list[tuple[int, SpanRow]]:
        """Complete rows whose samples have come; returns those that changed."""
        if self.samples is None or not self._unjoined:
            return []
        rows = [row for _, row in self._unjoined]
        family = self._family({row.trace_id for row in rows if row.parent_id is None}, {row.span_id for row in rows})
        try:
            covered = complete_ns(self.samples.latest())
            filled = fill([*family, *rows], self.samples)[len(family) :]
        except Exception:  # noqa: BLE001 (whatever a source of samples does, rows are written)
            _log.exception("spans could not be joined with samples")
            self._unjoined = []
            return []
        now = now_ns()
        changed: list[tuple[int, SpanRow]] = []
        waiting: list[tuple[int, SpanRow]] = []
        for (number, old), new in zip(self._unjoined, filled, strict=True):
            if new is not old:
                changed.append((number, new))
            if not last_chance and covered < new.end_ns and now < new.end_ns + _PATIENCE_NS:
                waiting.append((number, new))
        self._unjoined = waiting
        with self._lock:
            self._recent.replace([(number, fields(new)) for number, new in changed])
        return changed

    def _family(self, traces: set[str], known: set[str]) -> list[SpanRow]:
        """Recent rows of ``traces`` other than the ``known`` spans: a root's memory is that of its children."""
        if not traces:
            return []
        marks = [trace.encode("utf-8", "replace") for trace in traces]
        with self._lock:
            recent = self._recent.packed[-_TRACE_WINDOW:]
        found = [row(one) for one in recent if any(mark in one for mark in marks)]
        return [one for one in found if one.trace_id in traces and one.span_id not in known]

    def _write(
        self,
        first: int,
        fresh: list[Fields],
        changed: list[tuple[int, SpanRow]],
        totals: Mapping[str, int],
        *,
        retry: bool,
    ) -> None:
        assert self._file is not None
        if self._failed_ns is not None and not retry and now_ns() < self._failed_ns + _RETRY_NS:
            return
        with self._lock:
            base = self._recent.base
            before, stop = max(self._written, base), first + len(fresh)
            about = dict(self._about)
            # Rows that an earlier write left over, or that were joined before they were written, come from memory.
            new = fresh if before == first and not changed else None
            waiting = self._recent.packed[before - base : stop - base] if new is None else []
            gaps = dict(self._gaps) if self._gaps else {}
        if new is None:
            new = [unpack(one) for one in waiting]
        try:
            if new:
                self._file.append(before, new, gaps, totals, about)
                self._written = stop
            elif self._written and len(about) > self._told:
                self._file.describe(about)
            self._told = len(about) if self._written else 0
            self._stale += [(number, fields(row)) for number, row in changed if number < before]
            if self._stale:
                self._file.update(self._stale)
                self._stale = []
            self._failed_ns = self.problem = None
            if self._tidy is not None and self._written > self._tidy_at:
                self._tidy_at = self._written + _TIDY_ROWS
                self._tidy()
        except (OSError, sqlite3.Error) as error:
            self._failed_ns = now_ns()
            self._fail(error)
            self._reopen()

    def _read(self, ask: Callable[[SpanReader], T]) -> T | None:
        """What the file says; that it cannot be read is this store's problem, not that of whoever asks."""
        try:
            return super()._read(ask)
        except LlamaError as error:
            self._fail(error.__cause__ or error)
            return None

    def _fail(self, error: BaseException) -> None:
        self.problem = f"spans are kept in memory only: {self.path} cannot be used ({error})"
        if not self._warned:
            self._warned = True
            _log.warning("%s", self.problem)

    def _reopen(self) -> None:
        assert self._file is not None
        try:
            self._file.close()
        except (OSError, sqlite3.Error) as error:
            _log.debug("a file of spans could not be closed: %s", error)

    def _notify(self) -> None:
        for fn in list(self._subscribers):
            self._guarded(fn)

    def _guarded(self, fn: Callable[..., None], *args: object) -> None:
        try:
            fn(*args)
        except Exception:  # noqa: BLE001 (a view's bug must not lose a span)
            if not self._complained:
                self._complained = True
                _log.exception("a subscriber to spans failed; further failures are not logged")

    def _forked(self) -> None:
        """In a forked child: no lock, thread or file of the parent may be used."""
        self._lock, self._writing = threading.RLock(), threading.RLock()
        self._wake, self._many, self._caught_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = None
        # Closing the parent's connection could end the parent's write-ahead log.
        if self._file is not None and (connection := self._file.abandon()) is not None:
            _inherited.append(connection)
        self._file = None
        self._unjoined = []
        self._subscribers = []
        self._on_rows = None


def _after_fork() -> None:
    for store in list(_stores):
        store._forked()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

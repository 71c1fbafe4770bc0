"""The newest rows of a store in memory, and the counts of all that it has seen.

Rows are given by :meth:`Recent.give` on whatever thread their span ends on, which costs that thread next to nothing and
takes no lock: a span may end in a finalizer, on a thread that holds one. Everything else is called with the store's
lock held. Rows are numbered from 0 in the order in which they came.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import semconv
from ._packed import COLUMNS, Fields, end_ns, is_root, pack
from .latency import Durations

_log = logging.getLogger(__name__)
#: Makes a row of what an ended span left; ``None`` when it is no row of ours.
Maker = Callable[[Any], Fields | None]
_IN_MEMORY = 100_000
_LONGEST_NS = 2**63 - 1
_UNWRITTEN = 3 * _IN_MEMORY  # rows that no file takes: about 0.1 GB


@dataclass(slots=True)
class Totals:
    """Counts over all rows of a store.

    ``calls`` are requests to a model, ``errors`` spans that ended in one, ``dropped`` spans that are neither in memory
    nor in a file any more. A trace counts again when its spans lie 100,000 rows apart.
    """

    spans: int = 0
    traces: int = 0
    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dropped: int = 0


class Recent:
    """Rows ``base`` to ``base + len(packed)``; ``fresh`` are those of them that :meth:`take` has not given out."""

    def __init__(self, base: int = 0, totals: Totals | None = None) -> None:
        self.base = base
        self.packed: list[bytes] = []
        self.evicted_ns = 2**63 if base else 0  # no row before the base ended later
        self.totals = totals or Totals()
        self.durations: Durations | None = Durations() if base == 0 else None
        self._given: list[tuple[Maker, Any]] = []
        self._fresh: list[Fields] = []
        self._traces: set[int] = set()
        self._older: set[int] = set()
        self._complained = False

    @property
    def stop(self) -> int:
        """The number that the next row will have."""
        return self.base + len(self.packed)

    def give(self, maker: Maker, ended: Any) -> int:
        """A span has ended: ``maker(ended)`` is its row, made when somebody looks or writes; returns how many wait."""
        self._given.append((maker, ended))
        return len(self._given)

    def settle(self, most: int | None = None) -> bool:
        """Make and pack the rows of spans that have ended, of ``most`` of them; returns whether there are more.

        One whose row cannot be made is dropped.
        """
        given = self._given
        count = len(given) if most is None else min(most, len(given))
        batch = given[:count]
        del given[:count]
        for maker, ended in batch:
            try:
                row = maker(ended)
                if row is None:
                    continue
                packed = pack(row)
                self._count(row)
            except Exception:  # noqa: BLE001 (whatever other people put on their spans)
                self.drop("a span could not be recorded")
                continue
            self.packed.append(packed)
            self._fresh.append(row)
        return bool(given)

    def drop(self, why: str) -> None:
        """One span more is lost; told once, with the traceback of the exception that is handled."""
        self.totals.dropped += 1
        if not self._complained:
            self._complained = True
            _log.exception("%s; further failures are not logged", why)

    def take(self) -> list[Fields]:
        """The rows that came since the last time."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def evict(self, written: int | None) -> None:
        """Forget rows beyond the memory that are among the first ``written``, with ``None`` whichever they are.

        Rows that are not written are dropped only when there are three times as many as the memory holds.
        """
        excess = len(self.packed) - _IN_MEMORY
        safe = excess if written is None else max(0, min(excess, written - self.base))
        excess = max(safe, len(self.packed) - _UNWRITTEN)
        if excess < _IN_MEMORY // 10:  # in blocks: removing from the front moves the rest
            return
        self.evicted_ns = max(self.evicted_ns, *map(end_ns, self.packed[:excess]))
        self.base += excess
        del self.packed[:excess]
        self.totals.dropped += excess - safe

    def roots(self, last: int) -> list[bytes]:
        """The newest roots."""
        found: list[bytes] = []
        for one in reversed(self.packed):
            if len(found) >= last:
                break
            if is_root(one):
                found.append(one)
        return found[::-1]

    def replace(self, changed: Sequence[tuple[int, Fields]]) -> None:
        """Other values for rows of these numbers."""
        for number, row in changed:
            if number >= self.base:
                self.packed[number - self.base] = pack(row)

    def _count(self, row: Fields) -> None:
        totals = self.totals
        totals.spans += 1
        trace = hash(row[0])
        if trace not in self._traces:
            totals.traces += trace not in self._older
            self._traces.add(trace)
            if len(self._traces) >= _IN_MEMORY:
                self._older, self._traces = self._traces, set()
        if row[_STATUS] == "error":
            totals.errors += 1
        operation = row[-1].get(semconv.OPERATION_NAME)
        if isinstance(operation, str) and operation in semconv.CALLS:
            totals.calls += 1
            totals.input_tokens += row[_INPUT] or 0
            totals.output_tokens += row[_OUTPUT] or 0
        if self.durations is not None:
            self.durations.add(row[_NAME], min(max(0, row[_END] - row[_START]), _LONGEST_NS))

    def known(self, trace_ids: Sequence[str]) -> None:
        """Traces that are counted already."""
        self._traces.update(map(hash, trace_ids))


_NAME, _START, _END, _STATUS, _INPUT, _OUTPUT = (
    COLUMNS.index(name) for name in ("name", "start_ns", "end_ns", "status", "input_tokens", "output_tokens")
)


def as_dict(totals: Totals) -> dict[str, int]:
    """The counts by name."""
    return dataclasses.asdict(totals)

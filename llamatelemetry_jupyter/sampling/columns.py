"""A stretch of a ring as columns: what :meth:`.ring.RingReader.window` gives, an hour of it in a few milliseconds.

Records are copied and taken apart by numpy, which only readers import, and only here and in parts.py; owners become
values when they are looked at. What the fine part no longer holds, or holds in more detail than was asked for, comes
from the coarse part: two rows for each of its records, the first with the smallest readings, the second with the
largest.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..values import ActivitySample, DeviceSample, Samples, ServerSample
from . import coarse, parts, records
from .layout import SLOT, Map, Tier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: Threads write in the order of the lock, not of t_ns; readers look this far around a moment.
DISORDER_NS = 5_000_000_000
_DEVICE, _SERVER, _ACTIVITY = (records.KIND[k] for k in (DeviceSample, ServerSample, ActivitySample))


class Columns:
    """Reads one mapped ring; knows which records it has checked, so that each is checked once."""

    def __init__(self, ring: Map) -> None:
        self._fine, self._coarse = _Table(ring.fine), _Table(ring.coarse)

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        """As :meth:`.ring.RingReader.window`."""
        oldest = self._fine.oldest_ns()
        # Where half the points asked for are there in the coarse part, and it reaches as far, it is enough.
        rough = max_points is not None and 4 * (t1_ns - t0_ns) >= max_points * coarse.BUCKET_NS
        rough = rough and self._coarse.oldest_ns() <= max(t0_ns, oldest) + coarse.BUCKET_NS
        until = t1_ns if rough else min(t1_ns, oldest + coarse.BUCKET_NS)
        old = self._coarse.rows(t0_ns, until, 2 * coarse.BUCKET_NS)
        after = t0_ns
        if rough and len(old.t_ns):
            after = max(t0_ns, int(old.t_ns.max()) - 2 * coarse.BUCKET_NS)
        new = self._fine.rows(after, t1_ns, DISORDER_NS)
        most = max_points if rough else None
        devices = [
            parts.devices(name, a.as_(parts.COARSE_DEVICE), b.as_(parts.FINE_DEVICE), b.raw, t0_ns, most, max_points)
            for name, a, b in _by_name(old, new, _DEVICE, rough=rough)
        ]
        servers = [
            parts.servers(name, a.as_(parts.COARSE_SERVER), b.as_(parts.FINE_SERVER), t0_ns, most, max_points)
            for name, a, b in _by_name(old, new, _SERVER, rough=rough)
        ]
        activity = [] if max_points is not None else new.only(new.kind == _ACTIVITY).decoded()
        return Samples(tuple(devices), tuple(servers), Samples.of([], [], activity).activity)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Whole records: their bytes, one below the other, and of each kind and time."""

    raw: Array
    kind: Array
    t_ns: Array

    def only(self, which: Array | slice) -> _Rows:
        return _Rows(self.raw[which], self.kind[which], self.t_ns[which])

    def as_(self, kind: np.dtype[Any]) -> Array:
        return np.ndarray((len(self.raw),), kind, self.raw, 0, self.raw.strides[:1])

    def decoded(self) -> list[ActivitySample]:
        found = [records.decode(row.tobytes()[12:]) for row in self.raw]
        return [one for one in found if isinstance(one, ActivitySample)]


class _Table:
    """A tier's slots, seen as a table that changes under us."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        shape = (tier.capacity, tier.slot_bytes)
        self._raw: Array = np.ndarray(shape, np.uint8, tier.bytes, tier.start)
        self._heads: Array = np.ndarray((tier.capacity,), parts.HEAD, tier.bytes, tier.start, (tier.slot_bytes,))
        self._checked = np.zeros(tier.capacity, np.uint64)

    def oldest_ns(self) -> int:
        """When the oldest record was taken; the end of time when there is none."""
        for number in range(self._tier.first, self._tier.end):
            if (t_ns := self._tier.time_ns(number)) > 0:
                return t_ns
        return 2**63 - 1

    def rows(self, t0_ns: int, t1_ns: int, slack_ns: int) -> _Rows:
        """The records of an interval that are whole, in the order in which they were written."""
        tier = self._tier
        end = tier.end
        first = tier.lower(t0_ns - slack_ns, tier.first, end) if t1_ns >= t0_ns else end
        numbers = np.arange(first, tier.lower(t1_ns + slack_ns, first, end), dtype=np.uint64)
        heads = self._heads[numbers % tier.capacity]
        times = heads["t_ns"]
        there = (heads["seq"] == numbers + 1) & (times >= t0_ns) & (times <= t1_ns)
        numbers, heads = numbers[there], heads[there]
        width = SLOT.size + min(int(heads["length"].max(initial=0)), tier.slot_bytes - SLOT.size)
        width = max(width, min(parts.WIDEST, tier.slot_bytes))
        slots = numbers % tier.capacity
        raw = self._copied(slots, width)
        found = _Rows(raw, heads["kind"], heads["t_ns"])
        # A writer makes the sequence invalid before anything else: what still has it was not touched while we copied.
        whole = self._heads["seq"][slots] == numbers + 1
        for index in np.flatnonzero(self._checked[slots] != numbers + 1):
            body = raw[index].tobytes()
            _, crc, length, _, _ = SLOT.unpack_from(body)
            if crc == zlib.crc32(body[12 : SLOT.size + length], zlib.crc32(body[:8])):
                self._checked[slots[index]] = numbers[index] + 1
            else:
                whole[index] = False
        return found if whole.all() else found.only(whole)

    def _copied(self, slots: Array, width: int) -> Array:
        """The first bytes of some slots; those that lie one after the other, in one piece."""
        table = self._raw[:, :width]
        if len(slots) and int(slots[-1]) - int(slots[0]) == len(slots) - 1:
            return table[int(slots[0]) : int(slots[-1]) + 1].copy()
        return table[slots]


def _by_name(old: _Rows, new: _Rows, kind: int, *, rough: bool) -> list[tuple[str, _Rows, _Rows]]:
    """Of each device or server its coarse and its fine records by time, one after the other without an overlap."""
    named: dict[bytes, list[_Rows]] = {}
    for which, rows in enumerate((old, new)):
        names = rows.as_(parts.NAMED)["name"]
        left = np.flatnonzero(rows.kind == kind)
        while len(left):
            name = names[left[0]]
            same = names[left] == name
            mine = left[same]
            mine = mine[np.argsort(rows.t_ns[mine], kind="stable")]
            named.setdefault(name, [rows.only(slice(0)), rows.only(slice(0))])[which] = rows.only(mine)
            left = left[~same]
    found = []
    for raw, (older, newer) in named.items():
        if not rough and len(newer.t_ns):
            # Only what began before the fine part reaches; a bucket across that edge counts whole.
            older = older.only(older.as_(parts.BEGUN)["first_ns"] < newer.t_ns[0])  # noqa: PLW2901
        if len(older.t_ns):
            newer = newer.only(newer.t_ns > older.t_ns[-1])  # noqa: PLW2901
        found.append((raw.decode("utf-8", "replace"), older, newer))
    return found

"""Records of one device or server as a series: the layouts of records.py and coarse.py for numpy, and their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..values import OWNERS, DeviceSeries, Owner, OwnerBytes, ServerSeries
from . import records
from .reduce import kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_HEAD = [("seq", "u8"), ("crc", "u4"), ("length", "u2"), ("kind", "u1"), ("_0", "u1"), ("t_ns", "i8")]
_NAMED = [*_HEAD, ("name", f"S{records.NAME_BYTES}")]
_FIGURES = ("util", "mem_util", "power_w", "energy_j", "temp_c")
_NUMBERS = 7
_BEGUN = [*_NAMED, ("first_ns", "i8")]
HEAD, NAMED, BEGUN = np.dtype(_HEAD), np.dtype(_NAMED), np.dtype(_BEGUN)
FINE_DEVICE = np.dtype(
    [
        *_NAMED,
        ("used", "i8"),
        ("total", "i8"),
        *((name, "f8") for name in _FIGURES),
        ("since", "i8"),
        ("count", "u1"),
        ("_1", "V7"),
    ]
)
FINE_SERVER = np.dtype([*_NAMED, ("state", "u1"), ("_1", "V7"), ("numbers", "i8", (_NUMBERS,))])
COARSE_DEVICE = np.dtype(
    [
        *_BEGUN,
        ("used", "i8", (2,)),
        ("total", "i8"),
        ("energy_j", "f8", (2,)),
        *((name, "f4", (2,)) for name in _FIGURES if name != "energy_j"),
        ("owners", "i8", (len(OWNERS),)),
        ("filled", "i8"),
    ]
)
COARSE_SERVER = np.dtype(
    [
        *_BEGUN,
        ("state", "u1", (2,)),
        ("_1", "V6"),
        ("busy", "i8", (2,)),
        ("slots", "i8"),
        ("queued", "i8", (2,)),
        ("kv", "i8", (2,)),
        ("capacity", "i8"),
        ("input", "i8", (2,)),
        ("output", "i8", (2,)),
    ]
)
#: So many bytes of a slot any of them may look at.
WIDEST = max(kind.itemsize for kind in (FINE_DEVICE, FINE_SERVER, COARSE_DEVICE, COARSE_SERVER))
_OWNER = np.dtype(
    [("owner", "u1"), ("_0", "V7"), ("bytes", "i8"), ("filled", "i8"), ("_1", f"V{records.OWNER.size - 24}")]
)


def devices(
    name: str, older: Array, newer: Array, raw: Array, t0_ns: int, most: int | None, max_points: int | None
) -> DeviceSeries:
    """The series of a device: coarse records, in ``most`` rows at most, then fine ones (``raw``: with their owners).

    Of a coarse record that began before ``t0_ns`` only the second row counts.
    """
    groups = _groups(len(older), most)
    high = _largest(older["used"][:, 1].astype(float), groups)
    old_ns, double = _doubled(older, groups, t0_ns)
    t_ns = np.concatenate([old_ns, newer["t_ns"]])
    used = _low_high(older["used"], groups, double)
    columns = [
        np.concatenate([np.where(np.isnan(used), -1, used).astype(np.int64), newer["used"]]),
        np.concatenate([np.repeat(older["total"][high], 2)[double], newer["total"]]),
        *(np.concatenate([_figure(older, name, groups, double), newer[name]]) for name in _FIGURES),
        np.concatenate([np.full(len(old_ns), -1, np.int64), newer["since"]]),
    ]
    owners = _Owners(
        name,
        (np.repeat(older["owners"][high], 2, axis=0)[double], np.repeat(older["filled"][high], 2)[double]),
        raw[:, FINE_DEVICE.itemsize :],
        newer["count"].astype(int),
    )
    if max_points is not None and len(t_ns) > max_points:
        extremes = [_floats(columns[0]), *(columns[2 + _FIGURES.index(n)] for n in _FIGURES if n != "energy_j")]
        rows = kept(len(t_ns), extremes, max_points)
        t_ns, columns, owners = t_ns[rows], [c[rows] for c in columns], owners.only(rows)
    used_, total, util, mem_util, power, energy, temp, since = map(_listed, columns)
    return DeviceSeries(name, t_ns.tolist(), used_, total, util, mem_util, power, energy, temp, owners, since)


def servers(
    name: str, older: Array, newer: Array, t0_ns: int, most: int | None, max_points: int | None
) -> ServerSeries:
    """The series of a server, as :func:`devices`."""
    groups = _groups(len(older), most)
    last = groups[:, 1] - 1
    old_ns, double = _doubled(older, groups, t0_ns)
    t_ns = np.concatenate([old_ns, newer["t_ns"]])
    states = np.concatenate([_ends(older["state"], groups, double), newer["state"]])
    coarse = [
        _low_high(older["busy"], groups, double),
        np.repeat(older["slots"][last], 2)[double],
        _low_high(older["queued"], groups, double),
        _low_high(older["kv"], groups, double),
        np.repeat(older["capacity"][last], 2)[double],
        _ends(older["input"], groups, double),
        _ends(older["output"], groups, double),
    ]
    columns = [
        np.concatenate([np.where(np.isnan(c), -1, c).astype(np.int64), newer["numbers"][:, i]])
        for i, c in enumerate(coarse)
    ]
    if max_points is not None and len(t_ns) > max_points:
        rows = kept(len(t_ns), [_floats(columns[i]) for i in (0, 2, 3, 6)], max_points)
        t_ns, states, columns = t_ns[rows], states[rows], [c[rows] for c in columns]
    return ServerSeries(name, t_ns.tolist(), [records.state_of(n) for n in states.tolist()], *map(_listed, columns))


def _groups(count: int, most: int | None) -> Array:
    """``[first, after last]`` of coarse records that become one pair of rows, so that there are about ``most`` rows."""
    size = 1 if most is None else max(1, -(-2 * count // max(2, most)))
    first = np.arange(0, count, size)
    return np.stack([first, np.minimum(first + size, count)], axis=1)


def _doubled(older: Array, groups: Array, t0_ns: int) -> tuple[Array, Array]:
    """First and last time of each group in turn, as far as the rows stay; and which stay: one of two of one time."""
    times = np.stack([older["first_ns"][groups[:, 0]], older["t_ns"][groups[:, 1] - 1]], axis=1)
    double = np.ones(times.shape, bool)
    double[:, 0] = (t0_ns <= times[:, 0]) & (times[:, 0] < times[:, 1])
    return times.ravel()[double.ravel()], double.ravel()


def _low_high(pairs: Array, groups: Array, double: Array) -> Array:
    """The smallest and the largest of each group, in turn; NaN where nothing was read."""
    if not len(groups):
        return np.zeros(0)
    values = pairs.astype(float)
    if pairs.dtype.kind == "i":
        values[pairs == -1] = np.nan
    low = np.fmin.reduceat(values[:, 0], groups[:, 0])
    high = np.fmax.reduceat(values[:, 1], groups[:, 0])
    return np.stack([low, high], axis=1).ravel()[double]


def _ends(pairs: Array, groups: Array, double: Array) -> Array:
    """The first and last of each group, in turn."""
    return np.stack([pairs[groups[:, 0], 0], pairs[groups[:, 1] - 1, 1]], axis=1).ravel()[double]


def _figure(older: Array, name: str, groups: Array, double: Array) -> Array:
    if name == "energy_j":
        return _ends(older[name], groups, double)
    return _low_high(older[name], groups, double).round(4)


def _largest(values: Array, groups: Array) -> Array:
    """Of each group the record with the largest value."""
    if not len(groups):
        return np.zeros(0, int)
    most = np.maximum.reduceat(values, groups[:, 0])
    is_most = np.flatnonzero(values == np.repeat(most, groups[:, 1] - groups[:, 0]))
    return is_most[np.searchsorted(is_most, groups[:, 0])]


def _floats(column: Array) -> Array:
    return np.where(column == -1, np.nan, column) if column.dtype.kind == "i" else column


def _listed(column: Array) -> list[Any]:
    missing = column == -1 if column.dtype.kind == "i" else np.isnan(column)
    if not missing.any():
        found: list[Any] = column.tolist()
        return found
    if missing.all():
        return [None] * len(column)
    mixed = column.astype(object)
    mixed[missing] = None
    made: list[Any] = mixed.tolist()
    return made


class _Owners(Sequence[tuple[OwnerBytes, ...]]):
    """The owners of each row, made when looked at; coarse rows come first and know sums per owner only."""

    def __init__(self, device: str, sums: tuple[Array, Array], raw: Array, counts: Array) -> None:
        self._device = device
        self._sums = sums
        self._raw, self._counts = raw, counts

    def only(self, rows: Array) -> _Owners:
        split = len(self._sums[0])
        old, new = rows[rows < split], rows[rows >= split] - split
        return _Owners(self._device, (self._sums[0][old], self._sums[1][old]), self._raw[new], self._counts[new])

    def __len__(self) -> int:
        return len(self._sums[0]) + len(self._counts)

    @overload
    def __getitem__(self, index: int) -> tuple[OwnerBytes, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[OwnerBytes, ...]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        split = len(self._sums[0])
        if index >= split:
            raw = self._raw[index - split, : int(self._counts[index - split]) * records.OWNER.size]
            return records.decode_owners(self._device, raw.tobytes())
        return tuple(
            OwnerBytes(self._device, owner, size, _filled(owner, int(self._sums[1][index])), source="estimate")
            for owner, size in zip(OWNERS, self._sums[0][index].tolist(), strict=True)
            if size > 0
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def by_owner(self) -> dict[Owner, list[int | None]]:
        """As :meth:`..values.DeviceSeries.by_owner`, without making the entries."""
        entries, there = self._entries()
        out: dict[Owner, list[int | None]] = {}
        for number, owner in enumerate(OWNERS):
            own = there & (entries["owner"] == number)
            older = self._sums[0][:, number]
            if own.any() or (older > 0).any():
                newer = np.where(self._counts == 0, -1, np.where(own, entries["bytes"], 0).sum(axis=1))
                out[owner] = _listed(np.concatenate([older, newer]))
        return out

    def filled(self) -> list[int | None]:
        """As :meth:`..values.DeviceSeries.filled`, without making the entries."""
        entries, there = self._entries()
        own = there & (entries["filled"] >= 0)
        newer = np.where(own.any(axis=1), np.where(own, entries["filled"], 0).sum(axis=1), -1)
        return _listed(np.concatenate([self._sums[1], newer]))

    def _entries(self) -> tuple[Array, Array]:
        """Owners of the fine rows as a table, and which of its cells are one."""
        most = int(self._counts.max(initial=0))
        width = most * records.OWNER.size
        entries = (
            np.ascontiguousarray(self._raw[:, :width]).view(_OWNER) if most else np.zeros((len(self._raw), 0), _OWNER)
        )
        return entries, np.arange(most)[None, :] < self._counts[:, None]


def _filled(owner: Owner, filled: int) -> int | None:
    return filled if owner == "kv" and filled >= 0 else None

"""Questions to the recorded spans: which, how many, how long.

A :class:`Query` is a source and conditions; nothing is read until rows or figures are asked for, so it can be kept and
asked again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..clock import now_ns
from ..errors import CommandError
from ..values import SpanRow
from .latency import Latency, rank
from .recorded import RecordedSpans, frame
from .where import Where

if TYPE_CHECKING:
    from pandas import DataFrame

Q = TypeVar("Q", bound="Query")
N = TypeVar("N", int, float)
#: What spans can be grouped by → the column.
GROUPS = {
    "name": "name",
    "model": "model",
    "cell": "cell_id",
    "hour": "start_ns",
    "server": "server",
    "status": "status",
}
_COLUMNS = (
    "start_ns", "end_ns", "status", "input_tokens", "output_tokens", "ttft_s", "decode_tokens_per_s", "energy_j",
)  # fmt: skip
_STATUSES = ("ok", "unset", "error")


@dataclass(frozen=True, slots=True)
class Group:
    """Figures over spans that have ``key`` in common; percentiles are the nearest of the values that there are.

    ``energy_j`` is the sum over spans that have one; spans inside others count with them, so sum spans of one name.
    ``None``: no span has that figure.
    """

    key: str | None
    count: int
    errors: int
    p50_s: float
    p95_s: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    decode_p50_tokens_per_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    energy_j: float | None


@dataclass(frozen=True, repr=False)
class Query:
    """Spans of ``source`` that ``conditions`` mean, the newest ``newest`` of them."""

    source: Callable[[], RecordedSpans]
    conditions: Where = field(default_factory=Where)
    newest: int | None = None

    def where(
        self: Q,
        *,
        name: str | None = None,
        model: str | None = None,
        server: str | None = None,
        status: str | None = None,
        cell: str | None = None,
        trace: str | None = None,
        since: str | float | datetime | None = None,
        until: str | float | datetime | None = None,
    ) -> Q:
        """Those of them for which all of this holds.

        ``name`` and ``model`` may hold ``*`` and ``?``; ``cell`` and ``trace`` are ids or their beginnings. ``since``
        and ``until``: ``"10m"``, ``"2h"``, ``"1d"`` ago, ``"14:30"`` today, a date, or Unix seconds; compared with a
        span's end. Raises CommandError for a moment or a status that is none.
        """
        if status is not None and status not in _STATUSES:
            raise CommandError(f"a status is {', '.join(_STATUSES)}, not {status!r}", hint='status="error"')
        told = {
            "name": name,
            "model": model,
            "server": server,
            "status": status,
            "cell": cell,
            "trace": trace.lower() if trace else trace,
            "since_ns": moment_ns(since) if since is not None else None,
            "until_ns": moment_ns(until) if until is not None else None,
        }
        given = {key: value for key, value in told.items() if value is not None}
        return replace(self, conditions=replace(self.conditions, **given))  # type: ignore[arg-type]

    def search(self: Q, text: str) -> Q:
        """Those of them in whose name, model, server, error or attributes ``text`` is, without regard to case."""
        return replace(self, conditions=replace(self.conditions, text=text or None))

    def last(self: Q, count: int) -> Q:
        """The newest ``count`` of them."""
        if count < 1:
            raise CommandError(f"the newest {count} spans are none", hint="lt.spans.last(20)")
        return replace(self, newest=count)

    def rows(self) -> list[SpanRow]:
        """The spans in order of their end."""
        if self.conditions.everything:
            return list(self.source().rows(self.newest))
        return self.source().select(self.conditions, self.newest)

    def __iter__(self) -> Iterator[SpanRow]:
        return iter(self.rows())

    def __len__(self) -> int:
        if self.conditions.everything and self.newest is None:
            return self.source().totals()["spans"]
        return len(self.rows())

    def frame(self) -> DataFrame:
        """The spans as a DataFrame, one column per field of :class:`SpanRow`; times are Unix nanoseconds."""
        return frame(self.rows())

    def latencies(self) -> list[Latency]:
        """Median and 95th percentile by name of all spans of the session, in milliseconds however many there are."""
        return self.source().latencies()

    def groups(self, key: str) -> list[Group]:
        """Figures by ``name``, ``model``, ``cell``, ``hour`` (local time), ``server`` or ``status``; exact.

        They read every span that is meant: a second for a million.
        """
        if key not in GROUPS:
            raise CommandError(f"spans are grouped by {', '.join(GROUPS)}, not {key!r}", hint=".by('name')")
        columns = (GROUPS[key], *_COLUMNS)
        if self.newest is None:
            values = self.source().values(columns, self.conditions)
        else:
            values = (tuple(getattr(one, name) for name in columns) for one in self.rows())
        named: Callable[[Any], str | None] = _Hours() if key == "hour" else lambda value: value
        found: dict[str | None, list[tuple[Any, ...]]] = {}
        for value, *figures in values:
            found.setdefault(named(value), []).append(tuple(figures))
        return [_group(of, found[of]) for of in sorted(found, key=lambda of: (of is None, of or ""))]


class _Hours:
    """The local hour of a moment as text; whole quarters of an hour are looked up once: time zones differ by those."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def __call__(self, t_ns: int) -> str:
        quarter = t_ns // 900_000_000_000
        if quarter not in self._known:
            self._known[quarter] = f"{datetime.fromtimestamp(quarter * 900).astimezone():%Y-%m-%d %H:00}"
        return self._known[quarter]


def moment_ns(said: str | float | datetime) -> int:
    """Unix nanoseconds of a moment: ``"10m"`` ago (s, m, h, d), ``"14:30"`` today, a date, or Unix seconds."""
    if isinstance(said, datetime):
        return round(said.timestamp() * 1e9)
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        return round(said * 1e9)
    text = str(said).strip()
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhd])", text):
        seconds = timedelta(days=float(ago[1])) if ago[2] == "d" else timedelta(hours=float(ago[1]) / _PER_HOUR[ago[2]])
        return now_ns() - round(seconds.total_seconds() * 1e9)
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            text = f"{datetime.fromtimestamp(now_ns() / 1e9).astimezone():%Y-%m-%d} {text.rjust(5, '0')}"
        return round(datetime.fromisoformat(text).astimezone().timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise CommandError(f"{said!r} is no moment", hint="10m, 2h, 1d, 14:30 or 2026-11-24") from error


_PER_HOUR = {"s": 3600, "m": 60, "h": 1}


def _group(key: str | None, rows: Sequence[tuple[Any, ...]]) -> Group:
    starts, ends, statuses, inputs, outputs, firsts, rates, joules = zip(*rows, strict=True)
    took = sorted(max(0, end - start) for start, end in zip(starts, ends, strict=True))
    first, rate = sorted(x for x in firsts if x is not None), sorted(x for x in rates if x is not None)
    return Group(
        key,
        len(rows),
        statuses.count("error"),
        took[rank(len(took), 0.5)] / 1e9,
        took[rank(len(took), 0.95)] / 1e9,
        _at(first, 0.5),
        _at(first, 0.95),
        _at(rate, 0.5),
        _sum(inputs),
        _sum(outputs),
        _sum(joules),
    )


def _at(ordered: Sequence[float], q: float) -> float | None:
    return ordered[rank(len(ordered), q)] if ordered else None


def _sum(values: Sequence[N | None]) -> N | None:
    there = [value for value in values if value is not None]
    return sum(there) if there else None

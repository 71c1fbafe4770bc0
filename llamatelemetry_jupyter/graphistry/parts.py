"""What a graph of spans is made of: kinds, labels and depths of spans, and the parts that stand for many of them.

Texts are harmless and hold no prompt, path or host: a graph may be sent away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

from .. import escape
from ..telemetry import semconv
from ..values import SpanRow

#: Ids of parts that stand for what has none of its own.
FOLDED = frozenset({"cells", "traces", "spans"})
_PHASES = frozenset({"queue", "prefill", "decode"})
_PATH = re.compile(r"(?:[A-Za-z]:)?[^\s/\\]*[/\\](?:[^\s/\\]*[/\\])*(?=[^\s/\\]*)")
_MAX_LABEL = 200

#: Source, target and kind of an edge → the durations of the spans that are behind it, in seconds.
Links: TypeAlias = "dict[tuple[str, str, str], list[float]]"


@dataclass(slots=True)
class Part:
    """A node: spans that are alike; ``durations_s`` has one entry for each, ``newest`` is one of them.

    ``tokens`` are those of the answers among them, ``None`` where there is none; ``level`` and ``row`` are its place,
    from the left and from the top.
    """

    id: str
    kind: str
    label: str
    level: int
    newest: SpanRow
    start_ns: int
    durations_s: list[float] = field(default_factory=list)
    tokens: int | None = None
    errors: int = 0
    row: int = 0

    def add(self, row: SpanRow, tokens: int | None = None, *, failed: bool = False) -> None:
        """Count a span; ``tokens`` and ``failed`` are what it adds."""
        self.durations_s.append(row.duration_s)
        if row.start_ns >= self.newest.start_ns:
            self.newest = row
        self.start_ns = min(self.start_ns, row.start_ns)
        self.sum_up(tokens, failed=failed)

    def sum_up(self, tokens: int | None, *, failed: bool) -> None:
        """What a span adds to the part that it is inside of."""
        self.errors += failed
        if tokens is not None:
            self.tokens = (self.tokens or 0) + tokens

    @property
    def title(self) -> str:
        """The label, with the number of spans where they are several and it does not say so."""
        many = len(self.durations_s)
        return f"{self.label} × {many:,}" if many > 1 and self.id not in FOLDED else self.label

    @property
    def duration_s(self) -> float:
        """The median; of one span its duration."""
        return median(self.durations_s) if self.durations_s else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Parts in order of column and row, what leads from one to another, and in words what has no part."""

    parts: tuple[Part, ...]
    links: Links
    left_out: tuple[str, ...] = ()


def kind(row: SpanRow) -> str:
    """``cell``, ``chat``, ``queue``, ``prefill``, ``decode`` or ``other``."""
    first = row.name.partition(" ")[0]
    if first in semconv.CALLS or semconv.OPERATION_NAME in row.attributes:
        return "chat"
    if row.name in ("notebook cell", "cell"):
        return "cell"
    return row.name if row.name in _PHASES else "other"


def label(name: str) -> str:
    """A span's name, harmless and not too long, without the folders of a path (a model may be named by its file)."""
    shown = escape.plain(name[:2000])
    shown = _PATH.sub("", shown) if "/" in shown or "\\" in shown else shown
    return shown if len(shown) <= _MAX_LABEL else shown[: _MAX_LABEL - 1] + "…"


def unique(rows: Iterable[SpanRow]) -> list[SpanRow]:
    """Each span once: a node's id must be unique in a graph, and two exporters or a replay bring a span twice."""
    return list({row.span_id: row for row in rows}.values())


def depths(rows: Sequence[SpanRow]) -> dict[str, int]:
    """How deep below its root each span is; one whose parent is not among ``rows`` is a root."""
    parent = {row.span_id: row.parent_id for row in rows}
    depth: dict[str, int] = {}
    for row in rows:
        chain: dict[str, None] = {}
        at: str | None = row.span_id
        while at is not None and at in parent and at not in depth and at not in chain:
            chain[at] = None
            at = parent[at]
        level = depth.get(at, -1) if at is not None else -1
        for span_id in reversed(chain):
            level += 1
            depth[span_id] = level
    return depth


def quantile(ordered: Sequence[float], q: float) -> float:
    """The value that a part ``q`` of ``ordered`` is not above, interpolated; ``ordered`` is sorted and not empty."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

"""Many spans as a graph of few parts: what a session or a trace is made of, how often, and how long it took.

A session has one part per cell, trace, name of spans, model, device and kind of error, so that its picture is as
readable with 100,000 spans as with one; what has no part of its own is counted in one that says so. A trace keeps its
spans apart as long as they are few. Texts are harmless and hold no prompt, path or host: a graph may be sent away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2s
from typing import TypeVar

from ..telemetry import semconv
from ..values import SpanRow
from .parts import FOLDED, Links, Part, Summary, depths, kind, label, unique

MAX_TRACES = 24
MAX_NAMES = 48
#: Models, devices, kinds of errors: of each so many.
MAX_OTHERS = 12
#: A trace of more spans has one part for all spans of one name under one parent.
MAX_APART = 60
MAX_TREE = 240

#: What OpenTelemetry allows as a type of error; other libraries write whole messages there.
_WORD = re.compile(r"[A-Za-z_][\w.:-]{0,60}")
_DEVICE = re.compile(r"[A-Za-z_]+\d*")  # "RPC[host:port]" is a device, too
#: Columns from the left; deeper spans than these share one.
_NOTEBOOK, _CELL, _TRACE, _SPAN, _DEEPEST = 0, 1, 2, 3, 7

_Name = TypeVar("_Name", str, "tuple[str, str]")


def session(rows: Iterable[SpanRow], most_traces: int = MAX_TRACES) -> Summary:
    """Notebook → cells → traces → names of spans → models → devices, and errors; the newest traces one by one."""
    known = unique(rows)
    if not known:
        return Summary((), {})
    made = _Session(known)
    made.add_traces(most_traces)
    made.add_spans()
    made.add_devices()
    return made.summary()


def trace(rows: Iterable[SpanRow]) -> Summary:
    """The spans of one trace, each right of its parent; of a large one all of a name under one parent together."""
    known = unique(rows)
    depth = depths(known)
    by_id = {row.span_id: row for row in known}
    apart = len(known) <= MAX_APART
    part_of: dict[str, Part] = {}
    parts: dict[str, Part] = {}
    links: Links = defaultdict(list)
    for row in sorted(known, key=lambda r: (depth[r.span_id], r.start_ns)):
        above = part_of.get(row.parent_id or "") if row.parent_id in by_id else None
        own_kind, name = kind(row), label(row.name)
        path = f"{above.id if above else ''}/{own_kind}:{name}"
        # A digest: paths of deep trees are long.
        part_id = row.span_id if apart else blake2s(path.encode("utf-8", "replace"), digest_size=8).hexdigest()
        part = parts.get(part_id)
        if part is None:
            part = parts[part_id] = Part(part_id, own_kind, name, depth[row.span_id], row, row.start_ns)
        part.add(row, _tokens(row, own_kind), failed=row.status == "error")
        part_of[row.span_id] = part
        if above is not None:
            links[above.id, part.id, "parent"].append(row.duration_s)
    left_out = f"{len(parts) - MAX_TREE:,} rarer names" if len(parts) > MAX_TREE else None
    if left_out:
        kept = sorted(parts.values(), key=lambda p: (p.level, -len(p.durations_s), p.start_ns))[:MAX_TREE]
        parts = {part.id: part for part in kept}
    links = {link: took for link, took in links.items() if link[0] in parts and link[1] in parts}
    _tree_rows(parts, links)
    return Summary(tuple(parts.values()), links, (left_out,) if left_out else ())


def _tokens(row: SpanRow, own_kind: str) -> int | None:
    return row.output_tokens if own_kind == "chat" else None


class _Session:
    """The parts of a session while they are found."""

    def __init__(self, rows: Sequence[SpanRow]) -> None:
        self.rows = rows
        self.depth = depths(rows)
        self.parts: dict[str, Part] = {}
        self.links: Links = defaultdict(list)
        #: Trace id → the part that stands for it; ids of spans that a cell's part stands for; span id → its part's id.
        self.trace_of: dict[str, Part] = {}
        self.cells: set[str] = set()
        self.group_of: dict[str, str] = {}

    def part(self, part_id: str, own_kind: str, name: str, level: int, row: SpanRow) -> Part:
        found = self.parts.get(part_id)
        if found is None:
            found = self.parts[part_id] = Part(part_id, own_kind, name, level, row, row.start_ns)
        found.level = max(found.level, level)
        return found

    def add_traces(self, most: int) -> None:
        """Notebook, cells and traces; older traces than the newest ``most`` are one part, and so are their cells."""
        roots: dict[str, SpanRow] = {}
        for row in self.rows:
            before = roots.get(row.trace_id)
            if before is None or self._rank(row) > self._rank(before):
                roots[row.trace_id] = row
        ordered = sorted(roots.values(), key=lambda r: r.start_ns)
        kept = ordered[-most:]
        folded = ordered[: len(ordered) - len(kept)]
        cell_of = {row.span_id: _cell_id(row) for row in ordered}
        gone = {cell_of[row.span_id] for row in folded} - {cell_of[row.span_id] for row in kept} - {None}
        notebook = self.part("notebook", "notebook", "notebook", _NOTEBOOK, ordered[0])
        notebook.durations_s.append((max(row.end_ns for row in self.rows) - ordered[0].start_ns) / 1e9)
        inside: dict[str, tuple[Part, ...]] = {}
        for index, row in enumerate(ordered):
            own, above = cell_of[row.span_id], notebook
            if own is not None:
                self.cells.add(row.span_id)
                if own in gone:
                    above = self.part("cells", "cell", f"{len(gone):,} earlier cells", _CELL, row)
                else:
                    above = self.part(own, "cell", "cell", _CELL, row)
                    above.label = _cell_label(row)
                above.add(row)
                self.links[notebook.id, above.id, "contains"].append(row.duration_s)
            if index < len(folded):
                part = self.part("traces", "trace", f"{len(folded):,} earlier traces", _TRACE, row)
            else:
                part = self.part(row.trace_id, "trace", f"trace {label(row.trace_id)[:8]}", _TRACE, row)
            part.add(row)
            self.links[above.id, part.id, "contains"].append(row.duration_s)
            self.trace_of[row.trace_id] = part
            inside[row.trace_id] = (notebook, part) if above is notebook else (notebook, above, part)
        for row in self.rows:
            for part in inside[row.trace_id]:
                part.sum_up(_tokens(row, kind(row)), failed=row.status == "error")

    def _rank(self, row: SpanRow) -> tuple[bool, bool, int]:
        """How well a span stands for its trace, which has no root where its parent is elsewhere: root, cell, first."""
        root = self.depth[row.span_id] == 0
        return root, root and kind(row) == "cell", -row.start_ns

    def add_spans(self) -> None:
        """One part per name, with models and errors; rare names beyond :data:`MAX_NAMES` are one."""
        below_cell = {row.trace_id for row in self.rows if row.span_id in self.cells}
        names: dict[tuple[str, str], int] = defaultdict(int)
        keys: dict[str, tuple[str, str]] = {}
        labels: dict[str, str] = {}
        for row in self.rows:
            if row.span_id not in self.cells:
                name = labels.get(row.name)
                if name is None:
                    name = labels[row.name] = label(row.name)
                keys[row.span_id] = key = (kind(row), name)
                names[key] += 1
        shown = _most(names, MAX_NAMES)
        rarer = f"{len(names) - len(shown):,} rarer names"
        for row in self.rows:
            if row.span_id not in keys:
                continue
            key = keys[row.span_id]
            level = min(_DEEPEST, _SPAN + self.depth[row.span_id] - (row.trace_id in below_cell))
            if key in shown:
                part = self.part(f"{key[0]}:{key[1]}", *key, level, row)
            else:
                part = self.part("spans", "other", rarer, level, row)
            part.add(row, _tokens(row, key[0]), failed=row.status == "error")
            self.group_of[row.span_id] = part.id
        for row in self.rows:
            if row.span_id in keys:
                source = self.group_of.get(self._above(row) or "", self.trace_of[row.trace_id].id)
                if source != self.group_of[row.span_id]:
                    self.links[source, self.group_of[row.span_id], "parent"].append(row.duration_s)
        model_of = {row.span_id: row.model for row in self.rows}
        models = _most(_count(row.model for row in self.rows), MAX_OTHERS)
        errors = _most(_count(_error(row) for row in self.rows), MAX_OTHERS)
        for row in self.rows:
            if row.span_id in self.cells:
                continue
            # A call's phases are of the same model: the call alone leads there.
            if row.model is not None and model_of.get(self._above(row) or "") != row.model:
                self._lead(row, "model", row.model if row.model in models else None)
            if (failure := _error(row)) is not None:
                self._lead(row, "error", failure if failure in errors else None)

    def _above(self, row: SpanRow) -> str | None:
        """The parent's id, where it is known and no circle leads back from it."""
        parent = row.parent_id
        return parent if parent is not None and self.depth.get(parent, -1) == self.depth[row.span_id] - 1 else None

    def _lead(self, row: SpanRow, what: str, name: str | None) -> None:
        """From a span's part to the model or the error that it names; ``None`` is one of too many."""
        source = self.parts[self.group_of[row.span_id]]
        shown = f"more {what}s" if name is None else label(name)
        part = self.part(f"{what}:{shown}", what, shown, source.level + 1, row)
        part.add(row, _tokens(row, kind(row)), failed=row.status == "error")
        self.links[source.id, part.id, what].append(row.duration_s)

    def add_devices(self) -> None:
        """Where a model's memory is, as its server said when it started; nothing where no start was recorded."""
        on: dict[str, set[str]] = {}
        for row in self.rows:
            devices = _devices(row.attributes) if row.name.startswith("server start") else set()
            if devices and row.server is not None:
                on.setdefault(row.server, set()).update(devices)
        if not on:
            return
        level = 1 + max((part.level for part in self.parts.values() if part.kind == "model"), default=_SPAN)
        for row in self.rows:
            if row.model is None or row.server not in on or row.span_id in self.cells:
                continue
            model = f"model:{label(row.model)}"
            if model not in self.parts or kind(row) != "chat":
                continue
            for device in sorted(on[row.server or ""])[:MAX_OTHERS]:
                part = self.part(f"device:{device}", "device", device, level, row)
                part.add(row, _tokens(row, "chat"), failed=row.status == "error")
                self.links[model, part.id, "device"].append(row.duration_s)

    def summary(self) -> Summary:
        """Columns without a part are left out; a column's parts stand in the order in which they first began."""
        for one in ("model", "error"):
            alike = [part for part in self.parts.values() if part.kind == one]
            level = max((part.level for part in alike), default=0)
            for part in alike:
                part.level = level
        ranks = {level: rank for rank, level in enumerate(sorted({part.level for part in self.parts.values()}))}
        order = {"model": 1, "device": 2, "error": 3}
        parts = sorted(
            self.parts.values(),
            key=lambda p: (p.level, order.get(p.kind, 0), p.id not in FOLDED, p.start_ns, p.id),
        )
        rows: dict[int, int] = defaultdict(int)
        for part in parts:
            part.level = ranks[part.level]
            part.row = rows[part.level]
            rows[part.level] += 1
        return Summary(tuple(parts), dict(self.links))


def _tree_rows(parts: Mapping[str, Part], links: Links) -> None:
    """Each part beside its first child, and below everything that hangs on its elder siblings."""
    children: dict[str, list[Part]] = defaultdict(list)
    below = set()
    for source, target, _ in links:
        children[source].append(parts[target])
        below.add(target)
    roots = [part for part in parts.values() if part.id not in below]
    stack = sorted(roots, key=lambda p: -p.start_ns)
    next_row, seen = 0, set()
    while stack:
        part = stack.pop()
        if part.id in seen:
            continue
        seen.add(part.id)
        part.row = next_row
        inside = sorted((c for c in children[part.id] if c.id not in seen), key=lambda p: -p.start_ns)
        stack += inside
        next_row += not inside
    for part in parts.values():  # a circle of parents
        if part.id not in seen:
            part.row, next_row = next_row, next_row + 1


def _cell_id(root: SpanRow) -> str | None:
    """Of the cell whose run this span is; ``None`` when it is none."""
    if kind(root) != "cell":
        return None
    own = root.cell_id or f"[{root.attributes.get(semconv.EXECUTION_COUNT)}]"
    return f"cell:{blake2s(own.encode('utf-8', 'replace'), digest_size=6).hexdigest()}"


def _cell_label(root: SpanRow) -> str:
    count = root.attributes.get(semconv.EXECUTION_COUNT)
    return f"cell [{count}]" if isinstance(count, int) else "cell"


def _error(row: SpanRow) -> str | None:
    if row.status != "error":
        return None
    return row.error_type if row.error_type and _WORD.fullmatch(row.error_type) else "error"


def _devices(attributes: Mapping[str, object]) -> set[str]:
    names = (
        name.removeprefix(semconv.MEMORY).rpartition(".")[0] for name in attributes if name.startswith(semconv.MEMORY)
    )
    return {found[0] for name in names if (found := _DEVICE.match(name))}


def _count(names: Iterable[str | None]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for name in names:
        if name is not None:
            found[name] += 1
    return found


def _most(counts: Mapping[_Name, int], most: int) -> set[_Name]:
    """The names with the highest counts; all of them when they are few."""
    return set(sorted(counts, key=lambda name: -counts[name])[:most])

"""Traces for the dashboard: the list as columns, because ten thousand of them go out at once, and one trace whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..telemetry.outline import Outline
from ..telemetry.wire import plain
from ..values import JSON, Samples, SpanRow
from .curl import curl
from .model import number, span_dict, text
from .series import columns, series_list

#: An attribute's value, and all attributes of an answer; other libraries put whole documents on their spans.
MAX_VALUE_BYTES = 20_000
MAX_ATTRIBUTE_BYTES = 200_000
MAX_GAPS = 50_000
_LANES = frozenset({"memory", "util", "power"})
_CELL = 8  # characters of a cell's id: enough to tell cells apart
#: So many traces are listed, the newest.
MAX_TRACES = 10_000
_COLUMNS = (
    "trace_id", "span_id", "start_ms", "end_ms", "complete", "calls", "failed", "input_tokens", "output_tokens",
    "ttft_s", "decode_tokens_per_s", "energy_j", "name", "model", "cell", "error_type",
)  # fmt: skip


def trace_list(outlines: Iterable[Outline], since_ns: int = 0, most: int = MAX_TRACES) -> dict[str, Any]:
    """The newest ``most`` traces of which something ended at or after ``since_ns``, the newest first, as columns.

    ``outlines`` are roots and calls, the newest first. The last four columns are places in ``texts``. ``calls`` counts
    requests to a model; tokens are their sums, ``ttft_s`` is the first one's, the rate is over the time in which they
    decoded. ``complete`` is false while the root has not ended: then the first call stands for it.
    """
    places: dict[str | None, int] = {None: 0}
    lines = [_line(spans, places) for spans in _newest(outlines, since_ns, most)]
    columns = zip(*lines, strict=True) if lines else [()] * len(_COLUMNS)
    short = [one if one is None or len(one) <= _CELL else text(one, 60) for one in places]
    return {"texts": short, **dict(zip(_COLUMNS, columns, strict=True))}


def _newest(outlines: Iterable[Outline], since_ns: int, most: int) -> Iterable[Sequence[Outline]]:
    kept: dict[str, list[Outline]] = {}
    rootless: set[str] = set()
    oldest_ns = 2**63
    for one in outlines:
        trace_id, _, parent_id, _, start_ns, end_ns, *_ = one
        spans = kept.get(trace_id)
        if spans is not None:
            spans.append(one)
        elif end_ns >= since_ns and len(kept) < most:
            kept[trace_id] = [one]
            if parent_id is not None:
                rootless.add(trace_id)
        elif end_ns < oldest_ns and not rootless:
            break  # what ended before all of these began is none of theirs
        else:
            continue
        if parent_id is None:
            rootless.discard(trace_id)
            oldest_ns = min(oldest_ns, start_ns)
    return kept.values()


def _line(spans: Sequence[Outline], places: dict[str | None, int]) -> tuple[Any, ...]:
    root: Outline | None = None
    failed: Outline | None = None
    first: Outline | None = None
    calls: list[Outline] = []
    for one in spans:
        if one.parent_id is None:
            root = one
        if one.status == "error":
            failed = one
        if one.call:
            calls.append(one)
    if len(calls) == 1:
        first = calls[0]
        input_tokens, output_tokens, rate, energy_j = (
            first.input_tokens,
            first.output_tokens,
            first.decode_tokens_per_s,
            first.energy_j,
        )
    else:
        first = min(calls, key=_start, default=None)
        input_tokens, output_tokens, energy_j = (
            _sum([getattr(one, name) for one in calls]) for name in ("input_tokens", "output_tokens", "energy_j")
        )
        rate = _rate(calls)
    head = root or first or spans[-1]
    said = first or head
    return (
        head.trace_id,
        head.span_id,
        head.start_ns / 1e6,
        (root.end_ns if root else max(one.end_ns for one in spans)) / 1e6,
        root is not None,
        len(calls),
        failed is not None,
        input_tokens,
        output_tokens,
        number(said.ttft_s),
        number(rate),
        number(energy_j if head.energy_j is None else head.energy_j),
        places.setdefault(head.name, len(places)),
        places.setdefault(said.model, len(places)),
        places.setdefault(head.cell_id and head.cell_id[:_CELL], len(places)),
        places.setdefault(failed and failed.error_type, len(places)),
    )


def _start(one: Outline) -> int:
    return one.start_ns


def _sum(values: Sequence[Any]) -> Any:
    """The sum of those that there are; ``None`` where there is none."""
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def _rate(calls: Sequence[Outline]) -> float | None:
    """Output tokens per second of decoding: each call's first token is its prefill's."""
    timed = [
        (one.output_tokens - 1, one.decode_tokens_per_s)
        for one in calls
        if one.output_tokens and one.output_tokens > 1 and one.decode_tokens_per_s
    ]
    return round(sum(n for n, _ in timed) / sum(n / rate for n, rate in timed), 2) if timed else None


def trace(
    rows: Sequence[SpanRow], gaps: Callable[[str], Sequence[float] | None], samples: Samples | None
) -> dict[str, Any]:
    """One trace whole: its ``spans`` in order of their start, and what ``samples`` say of the devices meanwhile.

    Times are nanoseconds as text: a number of JavaScript would round them. Fields that are ``None`` are left out, as
    are the details (:func:`details`) of spans for which there is no room; they are asked for one by one.
    """
    spans, room = [], MAX_ATTRIBUTE_BYTES
    for row in sorted(rows, key=lambda one: (one.start_ns, -one.end_ns)):
        span = span_dict(row, 0)
        made = {name: value for name, value in span.items() if value is not None and name not in _DERIVED}
        made |= {"start_ns": str(row.start_ns), "end_ns": str(row.end_ns), "scope": text(row.scope, 80)}
        told = details(row, gaps, room) if room > 0 else {"left_out": 1}
        if "left_out" not in told:
            room -= sum(_size(value) for value in told.values())
            made |= told
        spans.append(made)
    return {"spans": spans, **(_lanes(samples) if samples is not None else {})}


_DERIVED = frozenset({"depth", "trace_id", "start_ms", "end_ms"})


def details(
    row: SpanRow, gaps: Callable[[str], Sequence[float] | None], room: int = MAX_ATTRIBUTE_BYTES
) -> dict[str, Any]:
    """A span's ``attributes``, the times between its tokens (``gaps_s``), and of a request the command (``curl``).

    Values beyond 20 kB are cut; ``cut`` says how many bytes they have. ``left_out`` counts attributes, and
    ``gaps_left_out`` times, for which ``room`` (bytes) was not enough; absent where all are there.
    """
    attributes: dict[str, JSON] = {}
    cut: dict[str, int] = {}
    left_out = 0
    for key, value in row.attributes.items():
        name = text(plain(key), 200) or ""
        shown, full = _shown(value)
        room -= _size(shown) + len(name)
        if room < 0:
            left_out += 1
            continue
        attributes[name] = shown
        if full is not None:
            cut[name] = full
    told: dict[str, Any] = {"attributes": attributes}
    streamed = gaps(row.span_id) if row.ttft_s is not None else None
    if streamed:
        told["gaps_s"] = list(streamed[:MAX_GAPS])
    if (asked := curl(row)) is not None and len(asked.command) <= MAX_VALUE_BYTES:
        told["curl"] = asked._asdict()
    more = {"cut": cut, "left_out": left_out, "gaps_left_out": max(0, len(streamed or ()) - MAX_GAPS)}
    return told | {name: value for name, value in more.items() if value}


def _shown(value: object) -> tuple[JSON, int | None]:
    """A value as JSON, at most 20 kB of it, and its whole size where it was cut."""
    safe = plain(value)
    if isinstance(safe, (bool, int, float)) or safe is None:
        return safe, None
    said = (safe if isinstance(safe, str) else json.dumps(safe, ensure_ascii=False)).encode()
    if len(said) <= MAX_VALUE_BYTES:
        return safe, None
    return said[:MAX_VALUE_BYTES].decode(errors="ignore"), len(said)


def _size(value: object) -> int:
    return len(json.dumps(value))


def _lanes(samples: Samples) -> dict[str, Any]:
    series = [one for one in series_list(samples) if one["group"] in _LANES]
    t_ms, values = columns(samples, series)
    return {"series": series, "points": {"t_ms": t_ms, "values": values}}

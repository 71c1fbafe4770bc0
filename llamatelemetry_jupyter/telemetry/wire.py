"""A span as OTLP has it: what lies between a row of ours and every format that others read.

One mapping, so that a row is the same whichever way it left and came back. A row has no column for a span's status
message, events, links, trace state, scope version and resource: they are kept in attributes named ``otel.*``. Columns
that are no attributes of a span (energy, peak memory, a trace's cell) leave as attributes and come back as columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..values import JSON, SpanRow
from . import semconv

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")  # numbered as in OTLP
STATUSES = ("unset", "ok", "error")
MAX_INT = 2**63
_TEXTS = (semconv.STATUS_MESSAGE, semconv.SCOPE_VERSION, semconv.TRACE_STATE)
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # protobuf's names; JSON has none


@dataclass(frozen=True, slots=True)
class Event:
    """A moment of a span, in ns since 1970."""

    t_ns: int
    name: str
    attributes: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Another span that a span has to do with."""

    trace_id: str
    span_id: str
    trace_state: str = ""
    attributes: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wire:
    """One span with its scope and resource; ids hex, times in ns since 1970."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, JSON]
    status: str = "unset"
    message: str = ""
    trace_state: str = ""
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    scope: str = ""
    scope_version: str = ""
    resource: Mapping[str, JSON] = field(default_factory=dict)


def from_row(row: SpanRow, resource: Mapping[str, JSON]) -> Wire:
    """The span of a row; ``resource`` is that of this kernel, for rows that brought none of their own."""
    attributes = {text(name): plain(value) for name, value in row.attributes.items()}
    message, version, state = (_take(attributes, name, str) or "" for name in _TEXTS)
    own = _take(attributes, semconv.RESOURCE, dict)
    events, links = _events(attributes), _links(attributes)
    derived = columns(attributes)
    for name in derived:
        value = getattr(row, name)
        if value != derived[name]:
            attributes[_NAMES.get(name, semconv.COLUMN + name)] = plain(value)
    return Wire(
        row.trace_id,
        row.span_id,
        row.parent_id,
        text(row.name),
        row.kind,
        max(0, row.start_ns),
        max(0, row.start_ns, row.end_ns),
        attributes,
        row.status,
        message,
        state,
        events,
        links,
        text(row.scope or ""),
        version,
        dict(resource) if own is None else own,
    )


def to_row(span: Wire, *own: Mapping[str, JSON]) -> SpanRow:
    """The row of a span; a resource that is one of ``own`` is this kernel's and is not kept on each of its rows.

    Older and other vocabularies are understood (:data:`.semconv.ALIASES`); their attributes stay, and the operation and
    the provider are added under today's names, so that a call counts as a call. Raises ``ValueError`` without ids.
    """
    if not _is_id(span.trace_id, 32) or not _is_id(span.span_id, 16):
        raise ValueError(f"a span has no ids: {span.trace_id[:40]!r}, {span.span_id[:40]!r}")
    attributes = {text(name): plain(value) for name, value in span.attributes.items()}
    for name, value in (
        (semconv.OPERATION_NAME, _operation(attributes)),
        (semconv.PROVIDER_NAME, _first(attributes, semconv.PROVIDERS)),
    ):
        if isinstance(value, str):
            attributes.setdefault(name, value)
    given: dict[str, Any] = {}
    for column in columns({}):
        for name in (_NAMES.get(column, ""), semconv.COLUMN + column):
            if name in attributes:
                given[column] = _typed(column, attributes.pop(name))
    derived = columns(attributes) | given
    kept: dict[str, JSON] = {
        semconv.STATUS_MESSAGE: text(span.message),
        semconv.SCOPE_VERSION: text(span.scope_version),
        semconv.TRACE_STATE: text(span.trace_state),
        semconv.EVENTS: [_event_json(one) for one in span.events],
        semconv.LINKS: [_link_json(one) for one in span.links],
    }
    attributes |= {name: value for name, value in kept.items() if value}
    resource = {text(name): plain(value) for name, value in span.resource.items()}
    if resource and resource not in own:
        attributes[semconv.RESOURCE] = resource
    elif attributes.get(semconv.RESOURCE) in own:
        del attributes[semconv.RESOURCE]
    start_ns = _time(span.start_ns)
    return SpanRow(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id if span.parent_id and _is_id(span.parent_id, 16) else None,
        name=text(span.name),
        kind=span.kind if span.kind in KINDS[1:] else "internal",  # the specification's reading of "unspecified"
        start_ns=start_ns,
        end_ns=max(start_ns, _time(span.end_ns)),
        status=span.status if span.status in STATUSES else "unset",
        scope=text(span.scope) or None,
        attributes=attributes,
        **derived,
    )


def columns(attributes: Mapping[str, JSON]) -> dict[str, Any]:
    """The columns of a row that follow from a span's attributes; ``None`` where they do not."""
    address, port = attributes.get(semconv.SERVER_ADDRESS), attributes.get(semconv.SERVER_PORT)
    error, model = attributes.get(semconv.ERROR_TYPE), _today(attributes, semconv.REQUEST_MODEL)
    cell = attributes.get(semconv.CELL_ID)
    found = {
        "error_type": str(error) if error is not None else None,
        "cell_id": str(cell) if cell is not None else None,
        "server": f"{address}:{port}" if address and port else None,
        "model": str(model) if model is not None else None,
        "input_tokens": _today(attributes, semconv.USAGE_INPUT_TOKENS),
        "output_tokens": _today(attributes, semconv.USAGE_OUTPUT_TOKENS),
        "cached_tokens": _today(attributes, semconv.USAGE_CACHE_READ),
        "ttft_s": _today(attributes, semconv.RESPONSE_TIME_TO_FIRST_CHUNK),
        "decode_tokens_per_s": attributes.get(semconv.DECODE_RATE),
        "energy_j": None,
        "peak_bytes": None,
    }
    return {name: _typed(name, value) for name, value in found.items()}


def plain(value: Any) -> JSON:
    """``value`` as OTLP and JSON both have it: text, 64-bit integers, finite numbers, lists and dicts of these."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return int(value) if -MAX_INT <= value < MAX_INT else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _NOT_FINITE[str(float(value))]
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {text(str(name)): plain(one) for name, one in value.items()}
    return text(str(value))


def text(value: str) -> str:
    """``value`` as UTF-8 can carry it: half a character becomes U+FFFD."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


_INTEGERS = frozenset({"input_tokens", "output_tokens", "cached_tokens", "peak_bytes"})
_NUMBERS = frozenset({"ttft_s", "decode_tokens_per_s", "energy_j"})
_NAMES = {"energy_j": semconv.ENERGY, "peak_bytes": semconv.PEAK}


def _typed(column: str, value: JSON) -> JSON:
    """A column's value, ``None`` when it is of no use there."""
    if column not in _INTEGERS | _NUMBERS:
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -MAX_INT <= value < MAX_INT:
        return None
    if column in _NUMBERS:
        return float(value)
    return int(value) if value == int(value) and value >= 0 else None


def _today(attributes: Mapping[str, JSON], name: str) -> JSON:
    return _first(attributes, (name, *semconv.ALIASES.get(name, ())))


def _first(attributes: Mapping[str, JSON], names: Sequence[str]) -> JSON:
    return next((value for name in names if (value := attributes.get(name)) is not None), None)


def _operation(attributes: Mapping[str, JSON]) -> str | None:
    for name, operations in semconv.OPERATIONS.items():
        value = attributes.get(name)
        if isinstance(value, str) and (found := operations.get(value.lower())) is not None:
            return found
    return None


def _take(attributes: dict[str, JSON], name: str, of: type) -> Any:
    """The value of ``name``, which is taken out when it is what we put there; a user's own of another type stays."""
    value = attributes.get(name)
    return attributes.pop(name) if value and isinstance(value, of) else None


def _time(value: int) -> int:
    return value if 0 <= value < MAX_INT else 0


def _is_id(value: str, length: int) -> bool:
    return len(value) == length and not set(value) - set("0123456789abcdef") and value.strip("0") != ""


def _event_json(event: Event) -> JSON:
    return {"t_ns": _time(event.t_ns), "name": text(event.name), "attributes": _attributes(event.attributes)}


def _link_json(link: Link) -> JSON:
    made = dataclasses.replace(link, trace_state=text(link.trace_state), attributes=_attributes(link.attributes))
    return {name: value for name, value in dataclasses.asdict(made).items() if value or name != "trace_state"}


def _attributes(given: Mapping[str, JSON]) -> dict[str, JSON]:
    return {text(name): plain(value) for name, value in given.items()}


def _events(attributes: dict[str, JSON]) -> tuple[Event, ...]:
    return _items(attributes, semconv.EVENTS, Event, ("t_ns", "name"))


def _links(attributes: dict[str, JSON]) -> tuple[Link, ...]:
    return _items(attributes, semconv.LINKS, Link, ("trace_id", "span_id"))


def _items(attributes: dict[str, JSON], name: str, of: Any, required: tuple[str, str]) -> tuple[Any, ...]:
    given = attributes.get(name)
    if not isinstance(given, list) or not given:
        return ()
    known = {one.name: one for one in dataclasses.fields(of)}
    for one in given:
        if not isinstance(one, dict) or set(one) - set(known) or any(key not in one for key in required):
            return ()  # not what we put there
        if not all(isinstance(value, _TYPES[key]) for key, value in one.items()):
            return ()
    del attributes[name]
    return tuple(of(**one) for one in given if isinstance(one, dict))


_TYPES: dict[str, type] = {
    "t_ns": int, "name": str, "attributes": dict, "trace_id": str, "span_id": str, "trace_state": str,
}  # fmt: skip

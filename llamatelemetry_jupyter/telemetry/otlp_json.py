"""OTLP as JSON: one line per batch of spans in a file, or the body of a request.

Written by hand because it is small and its form is frozen, and because protobuf's own JSON reader takes the hexadecimal
ids of OTLP for base64 and gets wrong ones without an error. Ids are hex, 64-bit integers text, enums numbers
(opentelemetry.io/docs/specs/otlp, JSON Protobuf encoding).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from ..values import JSON
from .wire import KINDS, MAX_INT, STATUSES, Event, Link, Wire

PER_LINE = 512


def lines(spans: Iterable[Wire], per_line: int = PER_LINE) -> Iterator[str]:
    """``spans`` as lines of a ``.jsonl`` file, each a whole ``TracesData`` without line breaks inside."""
    left = iter(spans)
    while batch := list(islice(left, per_line)):
        yield dumps(batch)


def dumps(spans: Sequence[Wire]) -> str:
    """``spans`` as one ``TracesData``, which is also an ``ExportTraceServiceRequest``."""
    resources = []
    for resource, in_resource in grouped(spans, lambda one: one.resource):
        scopes = []
        for (name, version), in_scope in grouped(in_resource, lambda one: (one.scope, one.scope_version)):
            scope = {key: value for key, value in (("name", name), ("version", version)) if value}
            scopes.append({"scope": scope, "spans": [_span(one) for one in in_scope]})
        resources.append({"resource": {"attributes": _attributes(resource)}, "scopeSpans": scopes})
    return json.dumps({"resourceSpans": resources}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(text: str | bytes) -> list[Wire]:
    """The spans of one ``TracesData``; raises ``ValueError`` for anything else. Unknown fields are passed over."""
    try:
        found = json.loads(text)
        data = _get(found, "resourceSpans")
        if not isinstance(found, dict) or data is None:
            raise ValueError("no resourceSpans")
        return list(_read(data))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not OTLP: {error}") from error


def grouped(spans: Sequence[Wire], key: Any) -> Iterator[tuple[Any, list[Wire]]]:
    """Neighbours of one key together; spans keep their order, which is that of their ends."""
    for found, group in groupby(spans, key):
        yield found, list(group)


def _span(span: Wire) -> dict[str, Any]:
    made: dict[str, Any] = {"traceId": span.trace_id, "spanId": span.span_id}
    if span.trace_state:
        made["traceState"] = span.trace_state
    if span.parent_id:
        made["parentSpanId"] = span.parent_id
    made |= {
        "name": span.name,
        "kind": KINDS.index(span.kind) if span.kind in KINDS else 0,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
    }
    if span.events:
        made["events"] = [
            {"timeUnixNano": str(one.t_ns), "name": one.name, "attributes": _attributes(one.attributes)}
            for one in span.events
        ]
    if span.links:
        made["links"] = [
            {"traceId": one.trace_id, "spanId": one.span_id, "attributes": _attributes(one.attributes)}
            | ({"traceState": one.trace_state} if one.trace_state else {})
            for one in span.links
        ]
    status: dict[str, Any] = {"message": span.message} if span.message else {}
    if code := STATUSES.index(span.status) if span.status in STATUSES else 0:
        status["code"] = code
    return made | {"status": status}


def _attributes(attributes: Mapping[str, JSON]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: JSON) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"kvlistValue": {"values": _attributes(value)}}


# -------------------------------------------------------------------------------------------------------------- reading


def _read(data: Any) -> Iterator[Wire]:
    for in_resource in data:
        resource = _pairs(_get(_get(in_resource, "resource") or {}, "attributes"))
        for in_scope in _get(in_resource, "scopeSpans") or _get(in_resource, "instrumentationLibrarySpans") or ():
            scope = _get(in_scope, "scope") or _get(in_scope, "instrumentationLibrary") or {}
            for span in _get(in_scope, "spans") or ():
                yield _wire(span, str(scope.get("name") or ""), str(scope.get("version") or ""), resource)


def _wire(span: Any, scope: str, version: str, resource: Mapping[str, JSON]) -> Wire:
    status = _get(span, "status") or {}
    return Wire(
        _id(_get(span, "traceId"), 16),
        _id(_get(span, "spanId"), 8),
        _id(_get(span, "parentSpanId"), 8) or None,
        str(_get(span, "name") or ""),
        _enum(_get(span, "kind"), KINDS, "SPAN_KIND_"),
        _int(_get(span, "startTimeUnixNano")),
        _int(_get(span, "endTimeUnixNano")),
        _pairs(_get(span, "attributes")),
        _enum(status.get("code"), STATUSES, "STATUS_CODE_"),
        str(status.get("message") or ""),
        str(_get(span, "traceState") or ""),
        tuple(
            Event(_int(_get(one, "timeUnixNano")), str(_get(one, "name") or ""), _pairs(_get(one, "attributes")))
            for one in _get(span, "events") or ()
        ),
        tuple(
            Link(
                _id(_get(one, "traceId"), 16),
                _id(_get(one, "spanId"), 8),
                str(_get(one, "traceState") or ""),
                _pairs(_get(one, "attributes")),
            )
            for one in _get(span, "links") or ()
        ),
        scope,
        version,
        resource,
    )


def _get(data: Any, name: str) -> Any:
    """A field by its name in JSON, or by its name in the schema, which protobuf's own writers can be told to use."""
    found = data.get(name)
    return data.get("".join(f"_{c.lower()}" if c.isupper() else c for c in name)) if found is None else found


def _pairs(pairs: Any) -> dict[str, JSON]:
    return {str(pair["key"]): _plain(pair.get("value") or {}) for pair in pairs or ()}


def _plain(value: Any) -> JSON:
    for name, found in value.items():
        match name:
            case "stringValue" | "string_value":
                return str(found)
            case "boolValue" | "bool_value":
                return bool(found)
            case "intValue" | "int_value":
                return int(found)
            case "doubleValue" | "double_value":
                return float(found)  # "NaN" and "Infinity" are float's words, too
            case "arrayValue" | "array_value":
                return [_plain(one) for one in found.get("values") or ()]
            case "kvlistValue" | "kvlist_value":
                return _pairs(found.get("values"))
            case "bytesValue" | "bytes_value":
                return str(found)  # base64, as it stands there
    return None


def _id(value: Any, size: int) -> str:
    """Hex; a writer that did not know of OTLP's rule has written base64."""
    given = str(value or "")
    if len(given) != 2 * size and len(given) in (22, 24, 11, 12):
        try:
            decoded = base64.b64decode(given + "=" * (-len(given) % 4), validate=True)
        except (ValueError, binascii.Error):
            return given.lower()
        if len(decoded) == size:
            return decoded.hex()
    return given.lower()


def _enum(value: Any, names: tuple[str, ...], prefix: str) -> str:
    if isinstance(value, str):
        found = value.removeprefix(prefix).lower()
        return found if found in names else names[0]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else names[0]


def _int(value: Any) -> int:
    found = int(value or 0)
    return found if 0 <= found < MAX_INT else 0

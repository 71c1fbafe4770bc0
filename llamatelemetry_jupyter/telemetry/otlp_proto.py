"""OTLP as protobuf, with the messages of the package ``opentelemetry-proto``: bodies of requests and of their answers.

The SDK's own encoder takes the SDK's span objects; what is sent here are rows, joined with energy and memory.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ExportError
from ..values import JSON
from .otlp_json import grouped
from .wire import KINDS, STATUSES, Event, Link, Wire, text

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


def require() -> None:
    """Raises ExportError with what to type where the package is missing."""
    try:
        import opentelemetry.proto.trace.v1.trace_pb2  # noqa: F401
    except ImportError as error:
        raise ExportError(
            "OTLP as protobuf needs the package opentelemetry-proto",
            hint='%pip install "llamatelemetry-jupyter[otlp]"',
        ) from error


def dumps(spans: Sequence[Wire]) -> bytes:
    """``spans`` as an ``ExportTraceServiceRequest``."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    for resource, in_resource in grouped(spans, lambda one: one.resource):
        resource_spans = request.resource_spans.add()
        _fill(resource_spans.resource.attributes, resource)
        for (name, version), in_scope in grouped(in_resource, lambda one: (one.scope, one.scope_version)):
            scope_spans = resource_spans.scope_spans.add()
            scope_spans.scope.name, scope_spans.scope.version = name, version
            for one in in_scope:
                _span(scope_spans.spans.add(), one)
    body: bytes = request.SerializeToString()
    return body


def loads(body: bytes) -> list[Wire]:
    """The spans of an ``ExportTraceServiceRequest`` or a ``TracesData``; raises ``ValueError`` for anything else."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not OTLP: {error}") from error
    return [
        _wire(span, scope_spans.scope.name, scope_spans.scope.version, resource)
        for resource_spans in request.resource_spans
        for resource in [_pairs(resource_spans.resource.attributes)]
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def answer() -> bytes:
    """The answer to a request all of whose spans were taken."""
    return b""  # an ExportTraceServiceResponse without fields


def refused(body: bytes) -> tuple[int, str]:
    """How many spans a receiver says in its answer that it did not take, and why."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:  # receivers answer with a page or with nothing, too
        return 0, ""
    return partial.rejected_spans, partial.error_message


def _span(made: Span, span: Wire) -> None:
    made.trace_id, made.span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    if span.parent_id:
        made.parent_span_id = bytes.fromhex(span.parent_id)
    made.trace_state, made.name = span.trace_state, span.name
    made.kind = KINDS.index(span.kind) if span.kind in KINDS else 0  # type: ignore[assignment]
    made.start_time_unix_nano, made.end_time_unix_nano = span.start_ns, span.end_ns
    _fill(made.attributes, span.attributes)
    for event in span.events:
        one = made.events.add()
        one.time_unix_nano, one.name = event.t_ns, event.name
        _fill(one.attributes, event.attributes)
    for link in span.links:
        other = made.links.add()
        other.trace_id, other.span_id = _bytes(link.trace_id), _bytes(link.span_id)
        other.trace_state = link.trace_state
        _fill(other.attributes, link.attributes)
    made.status.code = STATUSES.index(span.status) if span.status in STATUSES else 0  # type: ignore[assignment]
    made.status.message = span.message


def _bytes(hexadecimal: str) -> bytes:
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError:  # a link of a file that was no id
        return b""


def _fill(pairs: Any, attributes: Mapping[str, JSON]) -> None:
    for name, value in attributes.items():
        pair = pairs.add()
        pair.key = name
        _set(pair.value, value)


def _set(made: AnyValue, value: JSON) -> None:
    if value is None:
        made.SetInParent()  # a value that holds nothing is null
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, list):
        made.array_value.SetInParent()
        for one in value:
            _set(made.array_value.values.add(), one)
    else:
        made.kvlist_value.SetInParent()
        _fill(made.kvlist_value.values, value)


# -------------------------------------------------------------------------------------------------------------- reading


def _wire(span: Span, scope: str, version: str, resource: Mapping[str, JSON]) -> Wire:
    return Wire(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        span.name,
        _named(KINDS, span.kind),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _pairs(span.attributes),
        _named(STATUSES, span.status.code),
        span.status.message,
        span.trace_state,
        tuple(Event(one.time_unix_nano, one.name, _pairs(one.attributes)) for one in span.events),
        tuple(
            Link(one.trace_id.hex(), one.span_id.hex(), one.trace_state, _pairs(one.attributes)) for one in span.links
        ),
        scope,
        version,
        resource,
    )


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _pairs(pairs: Iterable[KeyValue]) -> dict[str, JSON]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> JSON:
    match value.WhichOneof("value"):
        case "string_value":
            return text(value.string_value)
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "array_value":
            return [_plain(one) for one in value.array_value.values]
        case "kvlist_value":
            return _pairs(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return None

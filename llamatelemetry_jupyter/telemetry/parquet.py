"""Spans as a Parquet file with the columns of ClickHouse's ``otel_traces``, and back.

The first 22 columns are those that the OpenTelemetry Collector's ClickHouse exporter makes, in its order and with its
types, so that ClickHouse and tools on that table take the file. There attributes are maps of text:
``SpanAttributeTypes`` and its like say which of them were no text, so that they come back as they were.
After these come a row's own columns under their names, for whoever reads the file with pandas or DuckDB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..values import JSON, SpanRow
from .wire import Event, Link, Wire

_PER_GROUP = 16_384
#: Our columns of a row, after ClickHouse's.
FLAT = (
    "cell_id", "server", "model", "input_tokens", "output_tokens", "cached_tokens", "ttft_s", "decode_tokens_per_s",
    "energy_j", "peak_bytes",
)  # fmt: skip
_WHOLE = frozenset({"input_tokens", "output_tokens", "cached_tokens", "peak_bytes"})
_TEXT = frozenset({"cell_id", "server", "model"})


def write(path: Path, pairs: Iterable[tuple[SpanRow, Wire]]) -> int:
    """Write rows with their spans; returns how many. Raises ``OSError`` where the file cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    count = 0
    left = iter(pairs)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(left, _PER_GROUP)):
            count += len(batch)
            columns = [_line(row, span) for row, span in batch]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))
    return count


def read(path: Path) -> Iterator[Wire]:
    """The spans of a file with ClickHouse's column names; columns of ours may be missing. Raises ``ValueError``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = {"Timestamp", "TraceId", "SpanId", "SpanName", "Duration"} - set(file.schema_arrow.names)
            if missing:
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            for batch in file.iter_batches(_PER_GROUP):
                # Nanoseconds as numbers: as dates Python would round them to microseconds.
                whole = [
                    column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                    for column in batch.columns
                ]
                lists = [
                    column.cast(pa.list_(pa.int64()))
                    if pa.types.is_list(column.type) and pa.types.is_timestamp(column.type.value_type)
                    else column
                    for column in whole
                ]
                units = {
                    name: _NS[batch.schema.field(name).type.unit]
                    for name in batch.schema.names
                    if pa.types.is_timestamp(batch.schema.field(name).type)
                }
                for line in pa.RecordBatch.from_arrays(lists, names=batch.schema.names).to_pylist():
                    yield _wire(line, units.get("Timestamp", 1))
    except pa.ArrowException as error:
        raise ValueError(str(error).partition("\n")[0]) from error


_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _schema() -> Any:
    import pyarrow as pa

    text, pairs, moment = pa.string(), pa.map_(pa.string(), pa.string()), pa.timestamp("ns", tz="UTC")
    named = [
        ("Timestamp", moment), ("TraceId", text), ("SpanId", text), ("ParentSpanId", text), ("TraceState", text),
        ("SpanName", text), ("SpanKind", text), ("ServiceName", text), ("ResourceAttributes", pairs),
        ("ScopeName", text), ("ScopeVersion", text), ("SpanAttributes", pairs), ("Duration", pa.uint64()),
        ("StatusCode", text), ("StatusMessage", text), ("Events.Timestamp", pa.list_(moment)),
        ("Events.Name", pa.list_(text)), ("Events.Attributes", pa.list_(pairs)), ("Links.TraceId", pa.list_(text)),
        ("Links.SpanId", pa.list_(text)), ("Links.TraceState", pa.list_(text)), ("Links.Attributes", pa.list_(pairs)),
        ("SpanAttributeTypes", pairs), ("ResourceAttributeTypes", pairs), ("Events.AttributeTypes", pa.list_(pairs)),
        ("Links.AttributeTypes", pa.list_(pairs)),
    ]  # fmt: skip
    own = [(name, text if name in _TEXT else pa.int64() if name in _WHOLE else pa.float64()) for name in FLAT]
    return pa.schema(named + own)


def _line(row: SpanRow, span: Wire) -> dict[str, Any]:
    attributes, types = _texts(span.attributes)
    resource, resource_types = _texts(span.resource)
    events, links = [_texts(e.attributes) for e in span.events], [_texts(one.attributes) for one in span.links]
    return {
        "Timestamp": span.start_ns,
        "TraceId": span.trace_id,
        "SpanId": span.span_id,
        "ParentSpanId": span.parent_id or "",
        "TraceState": span.trace_state,
        "SpanName": span.name,
        "SpanKind": span.kind.capitalize(),
        "ServiceName": str(span.resource.get("service.name", "")),
        "ResourceAttributes": resource,
        "ScopeName": span.scope,
        "ScopeVersion": span.scope_version,
        "SpanAttributes": attributes,
        "Duration": span.end_ns - span.start_ns,
        "StatusCode": span.status.capitalize(),
        "StatusMessage": span.message,
        "Events.Timestamp": [e.t_ns for e in span.events],
        "Events.Name": [e.name for e in span.events],
        "Events.Attributes": [texts for texts, _ in events],
        "Links.TraceId": [one.trace_id for one in span.links],
        "Links.SpanId": [one.span_id for one in span.links],
        "Links.TraceState": [one.trace_state for one in span.links],
        "Links.Attributes": [texts for texts, _ in links],
        "SpanAttributeTypes": types,
        "ResourceAttributeTypes": resource_types,
        "Events.AttributeTypes": [kinds for _, kinds in events],
        "Links.AttributeTypes": [kinds for _, kinds in links],
        **{name: getattr(row, name) for name in FLAT},
    }


def _texts(attributes: Mapping[str, JSON]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Attributes as text, and which of them were no text: numbers and lists are JSON, as the exporter has them."""
    texts, types = [], []
    for name, value in attributes.items():
        if isinstance(value, str):
            texts.append((name, value))
        else:
            texts.append((name, json.dumps(value, ensure_ascii=False, separators=(",", ":"))))
            types.append((name, "json"))
    return texts, types


# -------------------------------------------------------------------------------------------------------------- reading


def _wire(line: Mapping[str, Any], unit_ns: int) -> Wire:
    start_ns = int(line["Timestamp"] or 0) * unit_ns
    return Wire(
        str(line["TraceId"] or "").lower(),
        str(line["SpanId"] or "").lower(),
        str(line.get("ParentSpanId") or "").lower() or None,
        str(line["SpanName"] or ""),
        _word(line.get("SpanKind"), "SPAN_KIND_"),
        start_ns,
        start_ns + int(line["Duration"] or 0),
        _attributes(line.get("SpanAttributes"), line.get("SpanAttributeTypes")),
        _word(line.get("StatusCode"), "STATUS_CODE_"),
        str(line.get("StatusMessage") or ""),
        str(line.get("TraceState") or ""),
        tuple(
            Event(int(t_ns or 0), str(name or ""), attributes)
            for t_ns, name, attributes in _zipped(line, "Events", ("Timestamp", "Name"))
        ),
        tuple(Link(*one) for one in _zipped(line, "Links", ("TraceId", "SpanId", "TraceState"))),
        str(line.get("ScopeName") or ""),
        str(line.get("ScopeVersion") or ""),
        _attributes(line.get("ResourceAttributes"), line.get("ResourceAttributeTypes")),
    )


def _word(value: Any, prefix: str) -> str:
    return str(value or "").upper().removeprefix(prefix).lower()


def _zipped(line: Mapping[str, Any], what: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    columns = [line.get(f"{what}.{name}") or [] for name in names]
    count = len(columns[0])
    attributes = line.get(f"{what}.Attributes") or [[]] * count
    types = line.get(f"{what}.AttributeTypes") or [[]] * count
    for index in range(count):
        yield (*(column[index] for column in columns), _attributes(attributes[index], types[index]))


def _attributes(texts: Any, types: Any) -> dict[str, JSON]:
    typed = dict(types or ())
    return {
        str(name): json.loads(value) if typed.get(name) == "json" else str(value)
        for name, value in dict(texts or ()).items()
    }

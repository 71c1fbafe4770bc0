"""Rows kept small: one string of bytes per row, which the garbage collector never has to walk.

A span of a request takes about 0.3 kB this way; as objects it would be six times that. What many rows have in common
(name, kind, status, scope, server, model, the names of attributes) is kept once for all of them.

Between a span's end and its packing a row is a plain tuple in the order of :data:`COLUMNS`: a frozen dataclass takes
2 µs to make, and nobody reads most rows.
"""

from __future__ import annotations

import dataclasses
import json
import marshal
import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from ..values import SpanRow

#: The columns of a row, in order; the last one is ``attributes``.
COLUMNS = tuple(field.name for field in dataclasses.fields(SpanRow))
#: A row's values in the order of :data:`COLUMNS`.
Fields = tuple[Any, ...]
#: The row of values in the order of :data:`COLUMNS`.
make: Callable[..., SpanRow] = SpanRow
_flat = attrgetter(*COLUMNS[:-1])
_HEADER = struct.Struct("<q?")  # when it ended, whether it is a root
_MAX_SHAPES = 4096  # rows with others carry theirs along
Shape = tuple[Any, ...]
_shapes: dict[Shape, int] = {}
_known: list[Shape] = []


def fields(row: SpanRow) -> Fields:
    """The values of ``row``."""
    return (*_flat(row), dict(row.attributes))


def pack(values: Fields) -> bytes:
    """A row as bytes that only this process can read."""
    (
        trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, error_type, scope, cell_id, server, model,
        input_tokens, output_tokens, cached_tokens, ttft_s, rate, energy_j, peak_bytes, attributes,
    ) = values  # fmt: skip
    shape: Shape = (name, kind, status, error_type, scope, server, model, *attributes)
    index: int | Shape | None = _shapes.get(shape)
    if index is None:
        index = _remember(shape)
    own = (
        trace_id, span_id, parent_id, start_ns, end_ns, cell_id, input_tokens, output_tokens, cached_tokens, ttft_s,
        rate, energy_j, peak_bytes, index, tuple(attributes.values()),
    )  # fmt: skip
    try:
        body = marshal.dumps(own)
    except ValueError:  # a value that is not JSON: its text stands for it
        body = marshal.dumps((*own[:-1], tuple(json.loads(json.dumps(own[-1], default=str)))))
    return _HEADER.pack(end_ns, parent_id is None) + body


def unpack(packed: bytes) -> Fields:
    """The values that :func:`pack` was given."""
    (
        trace_id, span_id, parent_id, start_ns, end_ns, cell_id, input_tokens, output_tokens, cached_tokens, ttft_s,
        rate, energy_j, peak_bytes, index, values,
    ) = marshal.loads(memoryview(packed)[_HEADER.size :])  # fmt: skip  # noqa: S302 (our own bytes, in memory)
    name, kind, status, error_type, scope, server, model, *names = _known[index] if type(index) is int else index
    return (
        trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, error_type, scope, cell_id, server, model,
        input_tokens, output_tokens, cached_tokens, ttft_s, rate, energy_j, peak_bytes,
        dict(zip(names, values, strict=True)),
    )  # fmt: skip


def row(packed: bytes) -> SpanRow:
    """The row that was packed."""
    return make(*unpack(packed))


def end_ns(packed: bytes) -> int:
    """When the row ended, without unpacking it."""
    end: int = _HEADER.unpack_from(packed)[0]
    return end


def is_root(packed: bytes) -> bool:
    """Whether the row has no parent, without unpacking it."""
    return packed[8] == 1


def _remember(shape: Shape) -> int | Shape:
    if len(_known) >= _MAX_SHAPES:
        return shape
    _known.append(shape)
    # Two threads may append the same shape; either index is right.
    _shapes[shape] = _known.index(shape)
    return _shapes[shape]

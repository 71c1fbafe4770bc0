"""Rows kept small: one string of bytes per row, which the garbage collector never has to walk.

A span of a request takes about 0.3 kB this way; as objects it would be six times that. What many rows have in common
(name, kind, status, scope, server, model, the names of attributes) is kept once for all of them.

Between a span's end and its packing a row is a plain tuple in the order of :data:`COLUMNS`: a frozen dataclass takes
2 µs to make, and nobody reads most rows. Attributes are bytes within the bytes: lists of traces are made of what else
there is, at a third of the time.
"""

from __future__ import annotations

import dataclasses
import json
import marshal
import struct
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

from ..values import SpanRow
from . import semconv
from .outline import Outline

#: The columns of a row, in order; the last one is ``attributes``.
COLUMNS = tuple(field.name for field in dataclasses.fields(SpanRow))
#: A row's values in the order of :data:`COLUMNS`.
Fields = tuple[Any, ...]
#: The row of values in the order of :data:`COLUMNS`.
make: Callable[..., SpanRow] = SpanRow
_flat = attrgetter(*COLUMNS[:-1])
_HEADER = struct.Struct("<qB")  # when it ended, what it is
_ROOT, _CALL = 1, 2
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
    told = tuple(attributes.values())
    try:
        packed = marshal.dumps(told)
    except ValueError:  # a value that is not JSON: its text stands for it
        packed = marshal.dumps(tuple(json.loads(json.dumps(told, default=str))))
    own = (
        trace_id, span_id, parent_id, start_ns, end_ns, cell_id, input_tokens, output_tokens, cached_tokens, ttft_s,
        rate, energy_j, peak_bytes, index, packed,
    )  # fmt: skip
    operation = attributes.get(semconv.OPERATION_NAME)
    what = (parent_id is None) * _ROOT + (isinstance(operation, str) and operation in semconv.CALLS) * _CALL
    return _HEADER.pack(end_ns, what) + marshal.dumps(own)


def unpack(packed: bytes) -> Fields:
    """The values that :func:`pack` was given."""
    (
        trace_id, span_id, parent_id, start_ns, end_ns, cell_id, input_tokens, output_tokens, cached_tokens, ttft_s,
        rate, energy_j, peak_bytes, index, told,
    ) = marshal.loads(memoryview(packed)[_HEADER.size :])  # fmt: skip  # noqa: S302 (our own bytes, in memory)
    values = marshal.loads(told)  # noqa: S302
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
    return bool(packed[8] & _ROOT)


def outlines(rows: Iterable[bytes]) -> Iterator[Outline]:
    """What a list of traces needs of roots and calls, without unpacking their attributes; others are passed over."""
    new, known, size = tuple.__new__, _known, _HEADER.size
    for one in rows:
        if what := one[8]:
            (
                trace_id, span_id, parent_id, start_ns, end_ns, cell_id, input_tokens, output_tokens, _, ttft_s, rate,
                energy_j, _, index, _,
            ) = marshal.loads(one[size:])  # fmt: skip  # noqa: S302 (our own bytes, in memory)
            shape = known[index] if type(index) is int else index
            yield new(Outline, (
                trace_id, span_id, parent_id, shape[0], start_ns, end_ns, shape[2], shape[3], cell_id, shape[6],
                input_tokens, output_tokens, ttft_s, rate, energy_j, what >= _CALL,
            ))  # fmt: skip


def _remember(shape: Shape) -> int | Shape:
    if len(_known) >= _MAX_SHAPES:
        # It becomes bytes, and other people's columns may hold what has none.
        return tuple(one if one is None or type(one) is str else str(one) for one in shape)
    _known.append(shape)
    # Two threads may append the same shape; either index is right.
    _shapes[shape] = _known.index(shape)
    return _shapes[shape]

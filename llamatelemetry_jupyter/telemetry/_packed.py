"""Rows kept small: one string of bytes per row, which the garbage collector never has to walk.

A span of a request takes about 0.5 kB this way; as objects it would be four times that. The names of its attributes
are kept once for all spans that have the same ones.
"""

from __future__ import annotations

import dataclasses
import json
import marshal
import struct
from collections.abc import Callable
from operator import attrgetter

from ..values import SpanRow

#: The columns of a row, in order; the last one is ``attributes``.
COLUMNS = tuple(field.name for field in dataclasses.fields(SpanRow))
#: All columns of a row but the last.
flat = attrgetter(*COLUMNS[:-1])
#: The row of values in the order of :data:`COLUMNS`.
make: Callable[..., SpanRow] = SpanRow
_END = struct.Struct("<q")
_MAX_SHAPES = 4096  # sets of attribute names that are remembered; rows with others carry their names along
_shapes: dict[tuple[str, ...], int] = {}
_names: list[tuple[str, ...]] = []


def pack(row: SpanRow) -> bytes:
    """``row`` as bytes that only this process can read."""
    names = tuple(row.attributes)
    shape: int | tuple[str, ...] | None = _shapes.get(names)
    if shape is None:
        shape = _remember(names)
    values = tuple(row.attributes.values())
    fields = flat(row)
    try:
        body = marshal.dumps((*fields, shape, values))
    except ValueError:  # a value that is not JSON: its text stands for it
        body = marshal.dumps((*fields, shape, tuple(json.loads(json.dumps(values, default=str)))))
    return _END.pack(row.end_ns) + body


def unpack(packed: bytes) -> SpanRow:
    """The row that :func:`pack` was given."""
    *fields, shape, values = marshal.loads(memoryview(packed)[_END.size :])  # noqa: S302 (our own bytes, in memory)
    names = _names[shape] if isinstance(shape, int) else shape
    return make(*fields, dict(zip(names, values, strict=True)))


def end_ns(packed: bytes) -> int:
    """When the row ended, without unpacking it."""
    end: int = _END.unpack_from(packed)[0]
    return end


def _remember(names: tuple[str, ...]) -> int | tuple[str, ...]:
    if len(_names) >= _MAX_SHAPES:
        return names
    _names.append(names)
    # Two threads may append the same names; either index is right.
    _shapes[names] = _names.index(names)
    return _shapes[names]

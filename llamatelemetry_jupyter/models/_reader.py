"""Reads a GGUF header out of a file that may be damaged or hostile.

Every count and length is checked against what is left of the file before anything is made of it; long arrays are
stepped over; what is kept is bounded, and so is what is read. Rules that the engine enforces (ggml's gguf.cpp) are
enforced here with the same outcome, before an engine is started.
"""

from __future__ import annotations

import shlex
import struct
from math import prod

from .. import escape
from ..errors import GGUFError
from .ggml import tensor_bytes, type_name
from .header import GGUFHeader, LongArray, Part, Scalar, TensorInfo, Value
from .source import ByteSource, Window, is_remote, shown

STRING, ARRAY = 8, 9
#: GGUF value type -> struct code; its size is what one element takes.
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

#: GGML_MAX_DIMS, GGML_MAX_NAME (ggml.h). The other bounds are far above what any model holds, and keep a hostile
#: header's cost in bounds: the largest vocabularies have 300,000 tokens and 500,000 merges.
_MAX_DIMENSIONS = 4
_MAX_NAME = 64
_MAX_KEYS = 16_384
_MAX_TENSORS = 65_536
_MAX_STRINGS = 2_000_000
_MAX_HEADER_BYTES = 128 << 20
#: Kept in memory: arrays up to so many elements (head counts per layer), so many in all; text up to so many bytes.
_KEPT_ARRAY = 1_024
_KEPT_ELEMENTS = 200_000
_KEPT_TEXT = 8 << 20


def damaged(where: str, what: str) -> GGUFError:
    """The error for a file that is not what it should be; both lines are safe to show and to type."""
    name = shown(where)
    if is_remote(where):
        return GGUFError(f"{name} {what}", hint="look for another file of this model")
    quoted = shlex.quote(name)
    return GGUFError(f"{name} {what}", hint=f"download it again, then compare its checksum: !sha256sum {quoted}")


def parse(source: ByteSource) -> GGUFHeader:
    """The header of one file; raises GGUFError."""
    start = source.read(0, 24)
    if start[:4] != b"GGUF":
        raise damaged(source.name, f"is not a GGUF file: it starts with {start[:4]!r}" if start else "is empty")
    if len(start) < 24:
        raise damaged(source.name, f"is truncated: a GGUF header has at least 24 bytes, the file {source.size}")
    for order in "<>":
        version = struct.unpack_from(order + "I", start, 4)[0]
        if version in (2, 3):
            return _Reader(source, order).header()
    version = struct.unpack_from("<I", start, 4)[0]
    raise damaged(source.name, f"is GGUF version {version}; versions 2 and 3 can be read")


class _Reader:
    """A position in a file that never passes its end."""

    def __init__(self, source: ByteSource, order: str) -> None:
        self.name = source.name
        self.order = order
        self.window = Window(source, _MAX_HEADER_BYTES)
        self.size = source.size
        self.position = 4
        self.forms = {kind: struct.Struct(order + code) for kind, code in CODES.items()}
        self.u64 = self.forms[10].unpack_from
        self.strings_left = _MAX_STRINGS
        self.text_left = _KEPT_TEXT
        self.elements_left = _KEPT_ELEMENTS

    def header(self) -> GGUFHeader:
        version = int(self.scalar(4))
        tensor_count, key_count = int(self.scalar(10)), int(self.scalar(10))
        # The smallest tensor takes 24 bytes, the smallest key 13: a count that cannot fit is refused unread.
        if key_count > min(_MAX_KEYS, self.size // 13) or tensor_count > min(_MAX_TENSORS, self.size // 24):
            raise self.error(
                f"claims {key_count:,} keys and {tensor_count:,} tensors in {self.size:,} bytes:"
                " it is truncated or damaged"
            )
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key = self.text()
            if not key or key in metadata:
                raise self.error(f"has the key {escape.plain(key)[:60]!r} twice or unnamed: it is damaged")
            metadata[key] = self.value(int(self.scalar(4)))
        architecture = metadata.get("general.architecture", "")
        # Only the first file of a split model and files with a model in them name one.
        if not isinstance(architecture, str) or not (architecture or "split.no" in metadata):
            raise self.error("does not name its architecture: it is damaged or not a model")
        found = [self.tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.error(f"has an alignment of {str(alignment)[:20]!r}: it is damaged")
        data_offset = -(-self.position // alignment) * alignment
        tensors = self.placed(found, data_offset, alignment)
        part = Part(self.name, self.size, data_offset)
        return GGUFHeader(version, self.order, architecture, (part,), metadata, tensors)

    def placed(
        self, found: list[tuple[str, int, tuple[int, ...], int]], data_offset: int, alignment: int
    ) -> tuple[TensorInfo, ...]:
        """The tensors with their bytes, one after another without a hole, all inside the file."""
        tensors: list[TensorInfo] = []
        names: set[str] = set()
        expected: int | None = 0
        for name, kind, dimensions, offset in found:
            if name in names:
                raise self.error(f"has the tensor {escape.plain(name)!r} twice: it is damaged")
            names.add(name)
            try:
                size = tensor_bytes(kind, dimensions)
            except ValueError as problem:
                raise self.error(f"has a tensor with {problem}: it is damaged") from problem
            if expected is not None and offset != expected:
                raise self.error(f"has tensor {escape.plain(name)!r} at {offset:,}, not {expected:,}: it is damaged")
            end = data_offset + offset + (size or 0)
            if end > self.size:
                raise self.error(f"is truncated: its weights end at byte {end:,} or later, the file at {self.size:,}")
            # Behind a tensor of unknown size the next one's place is not known either.
            expected = None if expected is None or size is None else offset + -(-size // alignment) * alignment
            tensors.append(TensorInfo(name, type_name(kind), dimensions, data_offset + offset, size))
        return tuple(tensors)

    # ------------------------------------------------------------------------------------------------------- the parts

    def error(self, what: str) -> GGUFError:
        return damaged(self.name, what)

    def take(self, count: int) -> int:
        """Index in the window of the next ``count`` bytes; steps over them."""
        window = self.window
        index = self.position - window.base
        if index < 0 or index + count > len(window.data):
            if count > self.size - self.position:
                raise self.error(f"is truncated: its header ends after {self.size:,} bytes")
            self.load(count)
            index = 0
        self.position += count
        return index

    def skip(self, count: int) -> None:
        """Step over ``count`` bytes unread."""
        if count > self.size - self.position:
            raise self.error(f"is truncated: its header ends after {self.size:,} bytes")
        self.position += count

    def load(self, count: int) -> None:
        if not self.window.load(self.position, count):
            raise self.error(f"is damaged: its header cannot be read at byte {self.position:,}")

    def scalar(self, kind: int) -> int | float | bool:
        form = self.forms[kind]
        index = self.take(form.size)
        value: int | float | bool = form.unpack_from(self.window.data, index)[0]
        return value

    def text(self) -> str:
        index = self.take(8)
        length: int = self.u64(self.window.data, index)[0]
        if length > self.size - self.position:
            raise self.error(f"is truncated: its header ends after {self.size:,} bytes")
        self.text_left -= length
        if self.text_left < 0:
            raise self.error(f"has a header with more than {_KEPT_TEXT >> 20} MiB of text: it is damaged")
        index = self.take(length)
        return self.window.data[index : index + length].decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array()
        if kind not in CODES:
            raise self.error(f"holds a value of unknown type {kind}: it is damaged")
        return self.scalar(kind)

    def array(self) -> tuple[Scalar, ...] | LongArray:
        kind, length = int(self.scalar(4)), int(self.scalar(10))
        found = LongArray(kind, length, self.position)
        long = length > min(_KEPT_ARRAY, self.elements_left)
        if not long:
            self.elements_left -= length
        if kind in CODES:
            size = self.forms[kind].size
            if long:
                self.skip(length * size)
                return found
            index = self.take(length * size)
            return struct.unpack_from(f"{self.order}{length}{CODES[kind]}", self.window.data, index)
        if kind != STRING:
            raise self.error(f"holds an array of unknown type {kind}: it is damaged")
        self.strings_left -= length
        if length > (self.size - self.position) // 8 or self.strings_left < 0:
            raise self.error(f"claims an array of {length:,} texts: it is truncated or damaged")
        if not long:
            return tuple(self.text() for _ in range(length))
        self.skip_texts(length)
        return found

    def skip_texts(self, count: int) -> None:
        # The vocabulary: 50,000 to 500,000 strings, so no call per string but the unpacking itself.
        unpack, window = self.u64, self.window
        data, at, last = window.data, self.position - window.base, len(window.data) - 8
        for _ in range(count):
            if at > last:
                self.position = window.base + at
                if self.position > self.size - 8:
                    raise self.error(f"is truncated: its header ends after {self.size:,} bytes")
                self.load(8)
                data, at, last = window.data, 0, len(window.data) - 8
            at += 8 + unpack(data, at)[0]
        self.position = window.base + at
        self.skip(0)

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self.text()
        if len(name.encode("utf-8", "replace")) >= _MAX_NAME:
            raise self.error(f"has a tensor with a name of {len(name)} characters: it is damaged")
        rank = int(self.scalar(4))
        if rank > _MAX_DIMENSIONS:
            raise self.error(f"has a tensor with {rank} dimensions: it is damaged")
        form = f"{self.order}{rank}QIQ"
        index = self.take(rank * 8 + 12)
        *dimensions, kind, offset = struct.unpack_from(form, self.window.data, index)
        if prod(dimensions) >= 1 << 63:
            raise self.error(f"has a tensor of {prod(dimensions):.3g} elements: it is damaged")
        return name, kind, tuple(dimensions), offset

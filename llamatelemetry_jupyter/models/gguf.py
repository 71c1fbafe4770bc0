"""What a GGUF file says about itself, read before an engine is started on it.

A damaged file costs an engine start and then a log to read; here it costs milliseconds and says what is wrong. The
file is untrusted: every length is checked against what is left of the file before anything is made of it, and nothing
larger than a few kilobytes is copied out of it. GGUF v2 and v3, little endian (v1 and big endian are not served by
any current engine).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ..errors import GGUFError
from .ggml import FILE_TYPES, TENSOR_TYPES, tensor_bytes

Scalar: TypeAlias = "bool | int | float | str"
Value: TypeAlias = "Scalar | tuple[Scalar, ...] | ArraySummary"

#: llama.cpp's own limits (GGML_MAX_DIMS, and far above what any model holds).
_MAX_DIMENSIONS = 4
_MAX_KEYS = 65_536
_MAX_TENSORS = 1_000_000
#: Arrays up to here are kept (head counts per layer); longer ones (the vocabulary) are only counted.
_KEPT_ARRAY = 1_024
_KEPT_TEXT = 1 << 20  # chat templates reach tens of kilobytes

_STRING, _ARRAY = 8, 9
_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U64 = _SCALARS[10]


@dataclass(frozen=True, slots=True)
class ArraySummary:
    """An array too long to keep: how many elements of which GGUF type."""

    kind: int
    length: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor; ``offset`` counts from the start of the file, ``bytes`` is ``None`` for an unknown type."""

    name: str
    kind: str
    dimensions: tuple[int, ...]
    offset: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The header of a GGUF file that is whole: every tensor lies within ``file_bytes``."""

    version: int
    architecture: str
    file_bytes: int
    data_offset: int
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)

    @property
    def name(self) -> str | None:
        """``general.name``."""
        return self._text("general.name")

    @property
    def quant(self) -> str | None:
        """The quantisation's usual name (``Q4_K_M``), from ``general.file_type``."""
        kind = self._int("general.file_type")
        return None if kind is None else FILE_TYPES.get(kind)

    @property
    def context_length(self) -> int | None:
        """Tokens of context that the model was trained for."""
        return self._int(f"{self.architecture}.context_length")

    @property
    def block_count(self) -> int | None:
        """Number of layers."""
        return self._int(f"{self.architecture}.block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the model."""
        return self._int(f"{self.architecture}.embedding_length")

    @property
    def head_count(self) -> int | tuple[int, ...] | None:
        """Attention heads, per layer where the file says so."""
        return self._heads("attention.head_count")

    @property
    def head_count_kv(self) -> int | tuple[int, ...] | None:
        """Key/value heads, per layer where the file says so; defaults to :attr:`head_count`."""
        found = self._heads("attention.head_count_kv")
        return self.head_count if found is None else found

    @property
    def vocab_size(self) -> int | None:
        """Number of tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArraySummary):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self._int(f"{self.architecture}.vocab_size")

    @property
    def tensor_count(self) -> int:
        """Number of tensors."""
        return len(self.tensors)

    def _text(self, key: str) -> str | None:
        found = self.metadata.get(key)
        return found if isinstance(found, str) else None

    def _int(self, key: str) -> int | None:
        found = self.metadata.get(key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def _heads(self, key: str) -> int | tuple[int, ...] | None:
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, tuple):
            return tuple(int(x) for x in found if isinstance(x, int))
        return self._int(f"{self.architecture}.{key}")


def read_header(path: str | Path) -> GGUFHeader:
    """The header of ``path``; raises GGUFError when it is not GGUF, is truncated, or contradicts itself."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
            if start != b"GGUF":
                raise _error(path, f"is not a GGUF file: it starts with {start!r}" if start else "is empty")
            if size < 24:
                raise _error(path, f"is truncated: a GGUF header has at least 24 bytes, the file {size}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except FileNotFoundError as exc:
        raise GGUFError(f"there is no file {path}", hint="%llama start smollm2-135m") from exc
    except IsADirectoryError as exc:
        raise GGUFError(f"{path} is a folder, not a .gguf file", hint=f"%llama start {path}/MODEL.gguf") from exc
    except OSError as exc:
        raise GGUFError(f"{path} cannot be read: {exc.strerror}", hint=f"!ls -l {path}") from exc


def check(path: str | Path) -> GGUFHeader:
    """The header of a file that an engine can load: one of a model, in one part, with weights in it."""
    header = read_header(path)
    if not header.tensors:
        raise _error(Path(path), "holds no tensors (a vocabulary only?)")
    return header


def _error(path: Path, what: str) -> GGUFError:
    return GGUFError(f"{path} {what}", hint=f"download it again, then compare its size and checksum: !sha256sum {path}")


class _Reader:
    """A position in a mapped file that never passes its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.position = 4

    def header(self) -> GGUFHeader:
        version = self.scalar(4)
        if version not in (2, 3):
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            said = "big endian GGUF" if swapped in (2, 3) else f"GGUF version {version}"
            raise _error(self.path, f"is {said}; versions 2 and 3, little endian, can be served")
        tensor_count, key_count = int(self.scalar(10)), int(self.scalar(10))
        # The smallest tensor info takes 24 bytes, the smallest key 13: a count that cannot fit is refused unread.
        if key_count > min(_MAX_KEYS, self.size // 13) or tensor_count > min(_MAX_TENSORS, self.size // 24):
            raise _error(
                self.path,
                f"claims {key_count:,} keys and {tensor_count:,} tensors in {self.size:,} bytes:"
                " it is truncated or damaged",
            )
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key = self.text()
            metadata[key] = self.value(int(self.scalar(4)))
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise _error(self.path, "does not name its architecture: it is damaged or not a model")
        infos = [self.tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _error(self.path, f"has an alignment of {alignment!r}: it is damaged")
        data_offset = -(-self.position // alignment) * alignment
        tensors = tuple(self.placed(info, data_offset) for info in infos)
        end = max((t.offset + (t.bytes or 0) for t in tensors), default=0)
        if end > self.size:
            raise _error(self.path, f"is truncated: its weights end at byte {end:,}, the file at {self.size:,}")
        return GGUFHeader(int(version), architecture, self.size, data_offset, metadata, tensors)

    def take(self, count: int) -> int:
        """Step over ``count`` bytes; returns where they start."""
        start = self.position
        if count > self.size - start:
            raise _error(self.path, f"is truncated: its header ends after {self.size:,} bytes")
        self.position = start + count
        return start

    def scalar(self, kind: int) -> int | float | bool:
        form = _SCALARS[kind]
        value: int | float | bool = form.unpack_from(self.data, self.take(form.size))[0]
        return value

    def text(self) -> str:
        length = int(self.scalar(10))
        start = self.take(length)
        return self.data[start : start + min(length, _KEPT_TEXT)].decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise _error(self.path, f"holds a value of unknown type {kind}: it is damaged")
        return self.scalar(kind)

    def array(self) -> tuple[Scalar, ...] | ArraySummary:
        kind, length = int(self.scalar(4)), int(self.scalar(10))
        if kind in _SCALARS:
            form = _SCALARS[kind]
            start = self.take(length * form.size)
            if length > _KEPT_ARRAY:
                return ArraySummary(kind, length)
            return tuple(form.unpack_from(self.data, start + i * form.size)[0] for i in range(length))
        if kind != _STRING:
            raise _error(self.path, f"holds an array of unknown type {kind}: it is damaged")
        if length > (self.size - self.position) // 8:
            raise _error(self.path, f"is truncated: its header ends after {self.size:,} bytes")
        if length <= _KEPT_ARRAY:
            return tuple(self.text() for _ in range(length))
        self.skip_texts(length)
        return ArraySummary(kind, length)

    def skip_texts(self, count: int) -> None:
        # The vocabulary: 50,000 to 500,000 strings, so no call per string but the unpacking itself.
        unpack, data, position, last = _U64.unpack_from, self.data, self.position, self.size - 8
        for _ in range(count):
            if position > last:
                raise _error(self.path, f"is truncated: its header ends after {self.size:,} bytes")
            position += 8 + unpack(data, position)[0]
        self.position = position
        self.take(0)
        if position > self.size:
            raise _error(self.path, f"is truncated: its header ends after {self.size:,} bytes")

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self.text()
        rank = int(self.scalar(4))
        if rank > _MAX_DIMENSIONS:
            raise _error(self.path, f"has a tensor with {rank} dimensions: it is damaged")
        dimensions = tuple(int(self.scalar(10)) for _ in range(rank))
        return name, int(self.scalar(4)), dimensions, int(self.scalar(10))

    @staticmethod
    def placed(info: tuple[str, int, tuple[int, ...], int], data_offset: int) -> TensorInfo:
        name, kind, dimensions, offset = info
        label = TENSOR_TYPES[kind][0] if kind in TENSOR_TYPES else f"type {kind}"
        return TensorInfo(name, label, dimensions, data_offset + offset, tensor_bytes(kind, dimensions))

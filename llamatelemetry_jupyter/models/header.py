"""The values that a GGUF header holds, and the few of them that every reader asks for by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from .ggml import FILE_TYPES

Scalar: TypeAlias = "bool | int | float | str"
Value: TypeAlias = "Scalar | tuple[Scalar, ...] | LongArray"


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that stays in its file: GGUF type of its elements, how many, and the byte at which the first begins."""

    kind: int
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor; ``offset`` counts from the start of file ``part``, ``bytes`` is ``None`` for an unknown type."""

    name: str
    kind: str
    dimensions: tuple[int, ...]
    offset: int
    bytes: int | None
    part: int = 0

    @property
    def elements(self) -> int:
        """Number of weights."""
        return prod(self.dimensions)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model; ``data_offset`` is the byte at which its weights begin."""

    where: str
    file_bytes: int
    data_offset: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a model says about itself; every tensor lies within its file.

    ``order`` is ``<`` (little endian) or ``>``. A model in several files has one header: the metadata of its first
    file, the tensors of all.
    """

    version: int
    order: str
    architecture: str
    parts: tuple[Part, ...]
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)

    @property
    def file_bytes(self) -> int:
        """Size of all files together."""
        return sum(part.file_bytes for part in self.parts)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, without header and padding; those of an unknown type are not counted."""
        return sum(tensor.bytes or 0 for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Exact number of weights in the files."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def tensor_count(self) -> int:
        """Number of tensors."""
        return len(self.tensors)

    @property
    def name(self) -> str | None:
        """``general.name``."""
        return self.text("general.name")

    @property
    def quant(self) -> str | None:
        """The quantisation's usual name (``Q4_K_M``), from ``general.file_type``."""
        kind = self.number("general.file_type")
        return None if kind is None else FILE_TYPES.get(kind)

    @property
    def context_length(self) -> int | None:
        """Tokens of context that the model was trained for."""
        return self.own("context_length")

    @property
    def block_count(self) -> int | None:
        """Number of layers."""
        return self.own("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the model."""
        return self.own("embedding_length")

    @property
    def head_count(self) -> int | tuple[int, ...] | None:
        """Attention heads, per layer where the file says so."""
        return self.own_each("attention.head_count")

    @property
    def head_count_kv(self) -> int | tuple[int, ...] | None:
        """Key/value heads, per layer where the file says so; defaults to :attr:`head_count`."""
        found = self.own_each("attention.head_count_kv")
        return self.head_count if found is None else found

    @property
    def vocab_size(self) -> int | None:
        """Number of tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, LongArray):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self.own("vocab_size")

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into a prompt."""
        return self.text("tokenizer.chat_template")

    def text(self, key: str) -> str | None:
        """The string under ``key``."""
        found = self.metadata.get(key)
        return found if isinstance(found, str) else None

    def number(self, key: str) -> int | None:
        """The whole number under ``key``."""
        found = self.metadata.get(key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def own(self, key: str) -> int | None:
        """The whole number under the architecture's ``key``; one below 0 means nothing there."""
        found = self.number(f"{self.architecture}.{key}")
        return None if found is None or found < 0 else found

    def own_each(self, key: str) -> int | tuple[int, ...] | None:
        """The number under the architecture's ``key``, or one number per layer; false and true are 0 and 1."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, tuple):
            return tuple(max(int(x), 0) for x in found if isinstance(x, int))
        return max(int(found), 0) if isinstance(found, int) else None

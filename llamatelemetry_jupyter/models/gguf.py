"""What a GGUF file says about itself, read before an engine is started on it, and also without fetching it.

A damaged file costs an engine start and then a log to read; here it costs milliseconds and says what is wrong. GGUF v2
and v3, both byte orders, in one file or several, on this machine or at an address that serves ranges.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ..errors import GGUFError
from ._reader import CODES, STRING, damaged, parse
from .header import GGUFHeader, LongArray, Part, Scalar, TensorInfo, Value
from .source import is_remote, opened, shown

__all__ = ["GGUFHeader", "LongArray", "Part", "TensorInfo", "Value", "array", "check", "read_header", "read_model"]

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_MAX_PARTS = 1_000

#: Headers that were read, by what tells that a file is still the same; a remote one is believed for some minutes.
_Key: TypeAlias = "tuple[str, tuple[int, ...]]"
_known: OrderedDict[_Key, tuple[float, GGUFHeader]] = OrderedDict()
_KEPT_HEADERS = 16
_lock = threading.Lock()
_REMOTE_S = 600.0

#: ``general.type`` of files that are no model by themselves.
_NOT_MODELS = {"adapter": "a LoRA adapter", "mmproj": "a vision projector", "imatrix": "an importance matrix"}


def read_header(where: str | Path) -> GGUFHeader:
    """The header of one file: a path, ``hf:OWNER/REPOSITORY/FILE.gguf`` or an ``https:`` address.

    Raises GGUFError when it is not GGUF, is truncated, or contradicts itself, ModelError when an address cannot be
    reached. An unchanged file is not read again; of a remote one only the header is fetched.
    """
    where = str(where)
    if is_remote(where):
        return _cached((where, ()), _REMOTE_S, lambda: _read(where))
    try:
        key = _identity(where)
    except OSError:
        key = None  # the reader says what is wrong
    return _read(where) if key is None else _cached(key, float("inf"), lambda: _read(where))


def read_model(where: str | Path) -> GGUFHeader:
    """The header of a whole model: of a split one (``…-00001-of-00003.gguf``) with the tensors of all its files.

    Raises GGUFError as :func:`read_header` does, and when a part is missing or belongs elsewhere.
    """
    first = read_header(where)
    count, number = first.number("split.count") or 0, first.number("split.no") or 0
    if count <= 1 and number == 0:
        return first
    name = str(where)
    found = _PART.fullmatch(name)
    if found is None or int(found[3]) != count or not 1 < count <= _MAX_PARTS:
        raise damaged(name, f"is one of {count} files of a model, but is not named so (…-00001-of-{count:05}.gguf)")
    names = [f"{found[1]}-{index + 1:05}-of-{count:05}.gguf" for index in range(count)]
    if number != 0 or int(found[2]) != 1:
        raise GGUFError(
            f"{shown(name)} is part {number + 1} of a model: the first part stands for all",
            hint=f"give {shown(names[0])}",
        )
    parts, tensors = [first.parts[0]], list(first.tensors)
    for index, part in enumerate(names[1:], 1):
        header = read_header(part)
        if header.number("split.no") != index or header.order != first.order:
            raise damaged(part, f"is not part {index + 1} of {shown(name)}")
        parts.append(header.parts[0])
        tensors += [replace(tensor, part=index) for tensor in header.tensors]
    expected = first.number("split.tensors.count")
    if len({tensor.name for tensor in tensors}) != len(tensors) or expected not in (None, len(tensors)):
        raise damaged(name, f"has {len(tensors)} tensors in its {count} parts, not {expected}")
    return replace(first, parts=tuple(parts), tensors=tuple(tensors))


def check(where: str | Path) -> GGUFHeader:
    """The header of a model that an engine on this machine can load; raises GGUFError for everything else."""
    header = read_model(where)
    name = str(where)
    if (header.order == "<") != (sys.byteorder == "little"):
        wrong = "big" if header.order == ">" else "little"
        raise damaged(name, f"is {wrong} endian; an engine reads the byte order of its machine, {sys.byteorder}")
    kind = _NOT_MODELS.get(header.text("general.type") or "")
    if kind is not None or header.architecture == "clip":
        raise GGUFError(f"{shown(name)} is {kind or 'a vision projector'}, not a model", hint="%llama start MODEL.gguf")
    if not header.tensors:
        raise damaged(name, "holds no tensors (a vocabulary only?)")
    unknown = next((tensor for tensor in header.tensors if tensor.bytes is None), None)
    if unknown is not None and not unknown.kind.startswith("type "):
        raise GGUFError(
            f"{shown(name)} uses {unknown.kind}, which engines no longer read", hint="look for a Q4_0 file of it"
        )
    return header


def array(header: GGUFHeader, key: str) -> tuple[Scalar, ...]:
    """All elements of an array, read from its file when the header did not keep them; KeyError when there is none."""
    found = header.metadata[key]
    if not isinstance(found, LongArray):
        if isinstance(found, tuple):
            return found
        raise KeyError(f"{key} is not an array")
    part = header.parts[0]
    with opened(part.where) as source:
        if source.size != part.file_bytes:
            raise damaged(part.where, "has changed since its header was read")
        end = part.data_offset
        if found.kind in CODES:
            size = struct.calcsize(CODES[found.kind]) * found.length
            raw = source.read(found.offset, size)
            if len(raw) != size:
                raise damaged(part.where, "has changed since its header was read")
            return struct.unpack(f"{header.order}{found.length}{CODES[found.kind]}", raw)
        raw = source.read(found.offset, end - found.offset)
    if found.kind != STRING:
        raise KeyError(f"{key} is not an array of texts or numbers")
    return _texts(part.where, raw, found.length, header.order)


def _texts(where: str, raw: bytes, count: int, order: str) -> tuple[str, ...]:
    unpack, at = struct.Struct(order + "Q").unpack_from, 0
    texts: list[str] = []
    try:
        for _ in range(count):
            begin = at + 8
            at = begin + unpack(raw, at)[0]
            texts.append(raw[begin:at].decode("utf-8", "replace"))
    except struct.error as exc:
        raise damaged(where, "has changed since its header was read") from exc
    return tuple(texts)


def _read(where: str) -> GGUFHeader:
    # Absolute: long arrays are read from there later, wherever the notebook has gone by then.
    with opened(where if is_remote(where) else os.path.abspath(where)) as source:
        return parse(source)


def _identity(where: str) -> _Key:
    status = Path(where).stat()
    return os.path.abspath(where), (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _cached(key: _Key, seconds: float, read: Callable[[], GGUFHeader]) -> GGUFHeader:
    with _lock:
        found = _known.get(key)
    if found is not None and time.monotonic() - found[0] < seconds:
        return found[1]
    header = read()
    with _lock:
        _known[key] = (time.monotonic(), header)
        _known.move_to_end(key)
        while len(_known) > _KEPT_HEADERS:
            _known.popitem(last=False)
    return header

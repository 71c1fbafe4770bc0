"""Samples as bytes of a fixed size, so that a slot of the ring always holds a whole one.

``None`` is -1 for integers and NaN for floats: no reading is negative, and 0 stays a reading. Names longer than their
field are cut at a whole character; of more than ``MAX_OWNERS`` owners the small ones of other processes become one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Literal, get_args

from ..values import OWNERS, DeviceSample, OwnerBytes, ServerSample, ServerState

KIND: dict[type, int] = {DeviceSample: 1, ServerSample: 2}
_SOURCES: tuple[Literal["measured", "engine", "estimate"], ...] = ("measured", "engine", "estimate")
_STATES: tuple[ServerState, ...] = get_args(ServerState)
# A record begins with the tail of the slot's head (length, kind, t_ns) and the name, so that peek() needs no decoding.
_HEAD = struct.Struct("=HBxq")
_NAME = struct.Struct("=64s")
_DEVICE = struct.Struct("=qq5dB7x")
_OWNER = struct.Struct("=BB2xiqq20s")
_SERVER = struct.Struct("=B7x7q")
NAME_BYTES, PROCESS_BYTES = 64, 20
MAX_OWNERS = 20


def encode(sample: DeviceSample | ServerSample, room: int) -> bytes:
    """The record of a sample, at most ``room`` bytes."""
    if isinstance(sample, ServerSample):
        return _NAME.pack(_text(sample.server, NAME_BYTES)) + _SERVER.pack(
            _STATES.index(sample.state),
            *(_int(v) for v in (sample.slots_busy, sample.slots, sample.queued, sample.kv_tokens, sample.kv_capacity)),
            _int(sample.input_tokens_total),
            _int(sample.output_tokens_total),
        )
    fit = min(MAX_OWNERS, (room - _NAME.size - _DEVICE.size) // _OWNER.size)
    owners = _fit(sample.owners, fit)
    floats = (sample.util, sample.mem_util, sample.power_w, sample.energy_j, sample.temp_c)
    head = _DEVICE.pack(
        _int(sample.used_bytes), _int(sample.total_bytes), *(math.nan if v is None else v for v in floats), len(owners)
    )
    return b"".join([_NAME.pack(_text(sample.device, NAME_BYTES)), head, *map(_owner, owners)])


def peek(body: bytes) -> tuple[int, int, str]:
    """``(kind, t_ns, device or server)`` of a record without decoding the rest."""
    _, kind, t_ns = _HEAD.unpack_from(body)
    return kind, t_ns, _name(body[_HEAD.size : _HEAD.size + NAME_BYTES])


def decode(body: bytes) -> DeviceSample | ServerSample:
    """The sample of a record as the ring hands it out."""
    kind, t_ns, name = peek(body)
    at = _HEAD.size + NAME_BYTES
    if kind == KIND[ServerSample]:
        state, *numbers = _SERVER.unpack_from(body, at)
        return ServerSample(t_ns, name, _STATES[state], *(_back(n) for n in numbers))
    used, total, *floats, count = _DEVICE.unpack_from(body, at)
    at += _DEVICE.size
    owners = []
    for index in range(count):
        owner, source, pid, size, filled, process = _OWNER.unpack_from(body, at + index * _OWNER.size)
        owners.append(
            OwnerBytes(name, OWNERS[owner], size, _back(filled), _back(pid), _name(process) or None, _SOURCES[source])
        )
    util, mem_util, power_w, energy_j, temp_c = (None if math.isnan(v) else v for v in floats)
    return DeviceSample(t_ns, name, _back(used), _back(total), util, mem_util, power_w, energy_j, temp_c, tuple(owners))


def _owner(entry: OwnerBytes) -> bytes:
    return _OWNER.pack(
        OWNERS.index(entry.owner),
        _SOURCES.index(entry.source),
        _int(entry.pid),
        entry.bytes,
        _int(entry.filled_bytes),
        _text(entry.process or "", PROCESS_BYTES),
    )


def _fit(owners: Sequence[OwnerBytes], room: int) -> Sequence[OwnerBytes]:
    """The same bytes in at most ``room`` entries: the smallest of the foldable ones are summed."""
    surplus = len(owners) - room
    if surplus <= 0:
        return owners
    # "other" first, then whatever is smallest: a sum must survive even where a label cannot.
    order = sorted(range(len(owners)), key=lambda i: (owners[i].owner != "other", owners[i].bytes))
    folded = set(order[: surplus + 1])
    size = sum(owners[i].bytes for i in folded)
    kept = [entry for i, entry in enumerate(owners) if i not in folded]
    return [*kept, OwnerBytes(owners[0].device, "other", size, source="estimate")]


def _text(text: str, size: int) -> bytes:
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _int(value: int | None) -> int:
    return -1 if value is None else value


def _back(value: int) -> int | None:
    return None if value == -1 else value

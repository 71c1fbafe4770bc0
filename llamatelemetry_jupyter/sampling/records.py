"""Samples as bytes of a fixed size, so that a slot of the ring always holds a whole one.

``None`` is -1 for integers and NaN for floats: no reading is negative, and 0 stays a reading. Names longer than their
field are cut at a whole character; of more than ``MAX_OWNERS`` owners the small ones of other processes become one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Literal, get_args

from ..values import OWNERS, ActivitySample, DeviceSample, OwnerBytes, ServerSample, ServerState

Sample = DeviceSample | ServerSample | ActivitySample
KIND: dict[type, int] = {DeviceSample: 1, ServerSample: 2, ActivitySample: 3}
_SOURCES: tuple[Literal["measured", "engine", "estimate"], ...] = ("measured", "engine", "estimate")
_STATES: tuple[ServerState, ...] = get_args(ServerState)
# A record begins with the tail of the slot's head (length, kind, t_ns) and the name, so that peek() needs no decoding.
_HEAD = struct.Struct("=HBxq")
_NAME = struct.Struct("=64s")
_DEVICE = struct.Struct("=qq5dqB7x")
OWNER = struct.Struct("=BB2xiqq20s")
_SERVER = struct.Struct("=B7x7q")
# µs before the record's time, milliwatts, per cent: what NVML has them in. All bits set is n/a.
_COUNT = struct.Struct("=H6x")
_POINT = struct.Struct("=IIB")
_NO_POWER, _NO_UTIL = 0xFFFFFFFF, 0xFF
NAME_BYTES, PROCESS_BYTES = 64, 20
MAX_OWNERS = 20


def split(sample: ActivitySample, room: int) -> list[ActivitySample]:
    """The points in as many samples as there are records to hold them."""
    fit = (room - _NAME.size - _COUNT.size) // _POINT.size
    parts = [sample.points[at : at + fit] for at in range(0, len(sample.points), fit)]
    return [ActivitySample(part[-1][0], sample.device, part) for part in parts]


def encode(sample: Sample, room: int) -> bytes:
    """The record of a sample, at most ``room`` bytes."""
    if isinstance(sample, ActivitySample):
        head = _NAME.pack(clipped(sample.device, NAME_BYTES)) + _COUNT.pack(len(sample.points))
        return b"".join([head, *(_POINT.pack(*_point(sample.t_ns, *point)) for point in sample.points)])
    if isinstance(sample, ServerSample):
        return _NAME.pack(clipped(sample.server, NAME_BYTES)) + _SERVER.pack(
            number_of(sample.state),
            *(_int(v) for v in (sample.slots_busy, sample.slots, sample.queued, sample.kv_tokens, sample.kv_capacity)),
            _int(sample.input_tokens_total),
            _int(sample.output_tokens_total),
        )
    fit = min(MAX_OWNERS, (room - _NAME.size - _DEVICE.size) // OWNER.size)
    owners = _fit(sample.owners, fit)
    floats = (sample.util, sample.mem_util, sample.power_w, sample.energy_j, sample.temp_c)
    head = _DEVICE.pack(
        _int(sample.used_bytes),
        _int(sample.total_bytes),
        *(math.nan if v is None else v for v in floats),
        _int(sample.since_ns),
        len(owners),
    )
    return b"".join([_NAME.pack(clipped(sample.device, NAME_BYTES)), head, *map(_owner, owners)])


def peek(body: bytes) -> tuple[int, int, str]:
    """``(kind, t_ns, device or server)`` of a record without decoding the rest."""
    _, kind, t_ns = _HEAD.unpack_from(body)
    return kind, t_ns, _name(body[_HEAD.size : _HEAD.size + NAME_BYTES])


def decode(body: bytes) -> Sample:
    """The sample of a record as the ring hands it out."""
    kind, t_ns, name = peek(body)
    at = _HEAD.size + NAME_BYTES
    if kind == KIND[ServerSample]:
        state, *numbers = _SERVER.unpack_from(body, at)
        return ServerSample(t_ns, name, state_of(state), *(_back(n) for n in numbers))
    if kind == KIND[ActivitySample]:
        (count,) = _COUNT.unpack_from(body, at)
        at += _COUNT.size
        found = _POINT.iter_unpack(body[at : at + count * _POINT.size])
        return ActivitySample(
            t_ns,
            name,
            tuple(
                (
                    t_ns - before_us * 1000,
                    None if percent == _NO_UTIL else percent / 100,
                    None if milliwatts == _NO_POWER else milliwatts / 1000,
                )
                for before_us, milliwatts, percent in found
            ),
        )
    used, total, *floats, since, count = _DEVICE.unpack_from(body, at)
    at += _DEVICE.size
    owners = decode_owners(name, body[at : at + count * OWNER.size])
    util, mem_util, power_w, energy_j, temp_c = (None if math.isnan(v) else v for v in floats)
    return DeviceSample(
        t_ns, name, _back(used), _back(total), util, mem_util, power_w, energy_j, temp_c, owners, _back(since)
    )


def decode_owners(device: str, raw: bytes) -> tuple[OwnerBytes, ...]:
    """The owners of a device's record."""
    return tuple(
        OwnerBytes(device, OWNERS[owner], size, _back(filled), _back(pid), _name(process) or None, _SOURCES[source])
        for owner, source, pid, size, filled, process in OWNER.iter_unpack(raw)
    )


def state_of(number: int) -> ServerState:
    """The state that a record names by its number."""
    return _STATES[number]


def number_of(state: ServerState) -> int:
    """The number by which records name a state."""
    return _STATES.index(state)


def _point(t_ns: int, at_ns: int, util: float | None, power_w: float | None) -> tuple[int, int, int]:
    return (
        min(max(0, t_ns - at_ns) // 1000, 0xFFFFFFFF),
        _NO_POWER if power_w is None else min(round(power_w * 1000), _NO_POWER - 1),
        _NO_UTIL if util is None else min(round(util * 100), _NO_UTIL - 1),
    )


def _owner(entry: OwnerBytes) -> bytes:
    return OWNER.pack(
        OWNERS.index(entry.owner),
        _SOURCES.index(entry.source),
        _int(entry.pid),
        entry.bytes,
        _int(entry.filled_bytes),
        clipped(entry.process or "", PROCESS_BYTES),
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


def clipped(text: str, size: int) -> bytes:
    """The text in at most ``size`` bytes, cut at a whole character."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _int(value: int | None) -> int:
    return -1 if value is None else value


def _back(value: int) -> int | None:
    return None if value == -1 else value

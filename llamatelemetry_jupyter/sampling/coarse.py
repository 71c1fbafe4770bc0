"""The ring's coarse part, as it is written: of each device and server one record for five seconds.

A record has the smallest and largest reading of each figure, the first and last of each counter, and the owners of the
moment when most memory was used. So a day fits into the file, and an hour is read in milliseconds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from ..values import OWNERS, DeviceSample, ServerSample
from . import records

BUCKET_NS = 5_000_000_000
NAME_BYTES = records.NAME_BYTES
# Name, first t_ns; used min max, total; energy first last; util, mem_util, power, temp min max; owners; KV filled.
DEVICE = struct.Struct(f"={NAME_BYTES}sqqqqdd8f{len(OWNERS)}qq")
# Name, first t_ns; state first last; busy min max, slots, queued min max; KV min max, capacity; totals in and out.
SERVER = struct.Struct(f"={NAME_BYTES}sqBB6x12q")


class Coarse:
    """Gathers samples and calls ``put(kind, t_ns, body)`` for each full bucket; one thread at a time."""

    def __init__(self, put: Callable[[int, int, bytes], None]) -> None:
        self.put = put
        self._gathered: list[DeviceSample | ServerSample] = []
        self._bucket = 0

    def add(self, sample: DeviceSample | ServerSample) -> None:
        """Take a sample in; writes the bucket before when it is the first of a new one."""
        bucket = sample.t_ns // BUCKET_NS
        if bucket > self._bucket:
            self.flush()
            self._bucket = bucket
        self._gathered.append(sample)  # one that comes a little late counts into the bucket that is open

    def flush(self) -> None:
        """Write what is gathered: its time is over, or the sampler ends."""
        devices: dict[str, list[DeviceSample]] = {}
        servers: dict[str, list[ServerSample]] = {}
        for one in self._gathered:
            if isinstance(one, ServerSample):
                servers.setdefault(one.server, []).append(one)
            else:
                devices.setdefault(one.device, []).append(one)
        for device in devices.values():
            self.put(records.KIND[DeviceSample], device[-1].t_ns, _device(device))
        for server in servers.values():
            self.put(records.KIND[ServerSample], server[-1].t_ns, _server(server))
        self._gathered = []


def _device(samples: Sequence[DeviceSample]) -> bytes:
    used = [s.used_bytes for s in samples if s.used_bytes is not None]
    most = max(samples, key=lambda s: -1 if s.used_bytes is None else s.used_bytes)
    sums = dict.fromkeys(OWNERS, 0 if most.owners else -1)
    filled = [o.filled_bytes for o in most.owners if o.filled_bytes is not None]
    for one in most.owners:
        sums[one.owner] += one.bytes
    figures: list[float] = []
    for name in ("util", "mem_util", "power_w", "temp_c"):
        values = [value for s in samples if (value := getattr(s, name)) is not None]
        figures += (min(values), max(values)) if values else (math.nan, math.nan)
    joules = [math.nan if s.energy_j is None else s.energy_j for s in (samples[0], samples[-1])]
    return DEVICE.pack(
        records.clipped(most.device, NAME_BYTES),
        samples[0].t_ns,
        *_range(used),
        _int(most.total_bytes),
        *joules,
        *figures,
        *sums.values(),
        sum(filled) if filled else -1,
    )


def _server(samples: Sequence[ServerSample]) -> bytes:
    last = samples[-1]
    columns = {
        name: [value for s in samples if (value := getattr(s, name)) is not None]
        for name in ("slots_busy", "queued", "kv_tokens", "input_tokens_total", "output_tokens_total")
    }
    return SERVER.pack(
        records.clipped(last.server, NAME_BYTES),
        samples[0].t_ns,
        records.number_of(samples[0].state),
        records.number_of(last.state),
        *_range(columns["slots_busy"]),
        _int(last.slots),
        *_range(columns["queued"]),
        *_range(columns["kv_tokens"]),
        _int(last.kv_capacity),
        *_ends(columns["input_tokens_total"]),
        *_ends(columns["output_tokens_total"]),
    )


def _range(values: Sequence[int]) -> tuple[int, int]:
    return (min(values), max(values)) if values else (-1, -1)


def _ends(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1]) if values else (-1, -1)


def _int(value: int | None) -> int:
    return -1 if value is None else value

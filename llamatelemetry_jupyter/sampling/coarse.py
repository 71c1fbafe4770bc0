"""The ring's coarse part, as it is written: of each device and server one record for five seconds.

A record has the smallest and largest reading of each figure, the first and last of each counter, and the owners of the
moment when most memory was used. So a day fits into the file, and an hour is read in milliseconds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from ..values import OWNERS, DeviceSample, ServerSample
from . import records

BUCKET_NS = 5_000_000_000
NAME_BYTES = records.NAME_BYTES
# Name, first t_ns; used min max, total; energy first last; util, mem_util, power, temp min max; owners; KV filled.
DEVICE = struct.Struct(f"={NAME_BYTES}sqqqqdd8f{len(OWNERS)}qq")
# Name, first t_ns; state first last; busy min max, slots, queued min max; KV min max, capacity; totals in and out.
SERVER = struct.Struct(f"={NAME_BYTES}sqBB6x12q")
_FIGURES = ("util", "mem_util", "power_w", "temp_c")


class Coarse:
    """Gathers samples and calls ``put(kind, t_ns, body)`` for each full bucket; one thread at a time."""

    def __init__(self, put: Callable[[int, int, bytes], None]) -> None:
        self.put = put
        self._open: dict[tuple[type, str], tuple[int, _Device | _Server]] = {}

    def add(self, sample: DeviceSample | ServerSample) -> None:
        """Take a sample in; writes the bucket before when it begins a new one."""
        key = (type(sample), sample.server if isinstance(sample, ServerSample) else sample.device)
        bucket = sample.t_ns // BUCKET_NS
        current = self._open.get(key)
        if current is None or current[0] != bucket:
            # With it the buckets of those that have fallen silent.
            self._write(lambda one, at: one == key or at < bucket - 1)
            made = _Server(sample) if isinstance(sample, ServerSample) else _Device(sample)
            current = self._open[key] = (bucket, made)
        current[1].add(sample)  # type: ignore[arg-type]  # its kind is part of the key

    def flush(self) -> None:
        """Write what is gathered: the sampler ends."""
        self._write(lambda _key, _at: True)

    def _write(self, due: Callable[[tuple[type, str], int], bool]) -> None:
        for key in [k for k, (at, _) in self._open.items() if due(k, at)]:
            gathered = self._open.pop(key)[1]
            self.put(records.KIND[key[0]], gathered.last.t_ns, gathered.pack())


class _Device:
    def __init__(self, first: DeviceSample) -> None:
        self.first = self.last = self.most = first
        self.least_used = first.used_bytes
        self.extremes = [(math.inf, -math.inf)] * len(_FIGURES)

    def add(self, sample: DeviceSample) -> None:
        self.last = sample
        if (used := sample.used_bytes) is not None:
            self.least_used = used if self.least_used is None else min(used, self.least_used)
            if self.most.used_bytes is None or used > self.most.used_bytes:
                self.most = sample
        for index, name in enumerate(_FIGURES):
            if (value := getattr(sample, name)) is not None:
                low, high = self.extremes[index]
                self.extremes[index] = (min(low, value), max(high, value))

    def pack(self) -> bytes:
        sums = dict.fromkeys(OWNERS, 0 if self.most.owners else -1)
        filled = [o.filled_bytes for o in self.most.owners if o.filled_bytes is not None]
        for one in self.most.owners:
            sums[one.owner] += one.bytes
        joules = [math.nan if s.energy_j is None else s.energy_j for s in (self.first, self.last)]
        figures = [math.nan if math.isinf(v) else v for pair in self.extremes for v in pair]
        return DEVICE.pack(
            records.clipped(self.first.device, NAME_BYTES),
            self.first.t_ns,
            _int(self.least_used),
            _int(self.most.used_bytes),
            _int(self.most.total_bytes),
            *joules,
            *figures,
            *sums.values(),
            sum(filled) if filled else -1,
        )


class _Server:
    def __init__(self, first: ServerSample) -> None:
        self.first = self.last = first
        self.busy: list[int] = []
        self.queued: list[int] = []
        self.kv: list[int] = []
        self.input: list[int] = []
        self.output: list[int] = []

    def add(self, sample: ServerSample) -> None:
        self.last = sample
        for column, value in (
            (self.busy, sample.slots_busy),
            (self.queued, sample.queued),
            (self.kv, sample.kv_tokens),
            (self.input, sample.input_tokens_total),
            (self.output, sample.output_tokens_total),
        ):
            if value is not None:
                column.append(value)

    def pack(self) -> bytes:
        return SERVER.pack(
            records.clipped(self.first.server, NAME_BYTES),
            self.first.t_ns,
            records.number_of(self.first.state),
            records.number_of(self.last.state),
            *_range(self.busy),
            _int(self.last.slots),
            *_range(self.queued),
            *_range(self.kv),
            _int(self.last.kv_capacity),
            *_ends(self.input),
            *_ends(self.output),
        )


def _range(values: list[int]) -> tuple[int, int]:
    return (min(values), max(values)) if values else (-1, -1)


def _ends(values: list[int]) -> tuple[int, int]:
    return (values[0], values[-1]) if values else (-1, -1)


def _int(value: int | None) -> int:
    return -1 if value is None else value

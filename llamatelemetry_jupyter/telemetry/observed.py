"""What the newest samples say, as metrics: nothing here asks a GPU or a server, the sampler has.

llama.cpp's own gauges of tokens per second start anew with each scrape of ``/metrics``: two readers spoil each other's.
Rates are left to whoever reads these counters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TypeAlias

from ..clock import now_ns
from ..errors import LlamaError
from ..values import DeviceSample, Samples, SampleSource, ServerSample
from . import semconv

Value: TypeAlias = "tuple[int | float, Mapping[str, str]]"

_STALE_NS = 10_000_000_000  # the sampler reads twice a second: older readings are not "now"
_KEPT_S = 0.2  # one collection asks for every metric, and reads the ring once


class Observed:
    """Values of the observed instruments by their id, from ``samples``."""

    def __init__(self, samples: SampleSource) -> None:
        self._samples = samples
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._latest: dict[str, list[Value]] = {}
        #: Of each server what its counters had reached when they began anew, and what they show since.
        self._totals: dict[tuple[str, str], tuple[int, int]] = {}

    def values(self, instrument: str) -> list[Value]:
        """The values now, with their attributes; empty when nothing recent was read."""
        with self._lock:
            if time.monotonic() - self._read_s > _KEPT_S:
                self._latest = self._read()
                self._read_s = time.monotonic()
            return self._latest.get(instrument, [])

    def settle(self) -> None:
        """A server has ended: take its counters' last reading before another of its name counts from 0."""
        with self._lock:
            self._read()

    def _read(self) -> dict[str, list[Value]]:
        try:
            latest = self._samples.latest()
        except (LlamaError, OSError):  # a ring that is damaged or gone
            latest = Samples()
        found: dict[str, list[Value]] = {}
        oldest = now_ns() - _STALE_NS
        described = getattr(self._samples, "devices", None)
        names = {one.device: one.name for one in described()} if callable(described) else {}
        for device in latest.devices:
            if device.t_ns and device.t_ns[-1] >= oldest:
                _device(found, device.row(-1), names)
        for server in latest.servers:
            if server.t_ns and server.t_ns[-1] >= oldest:
                self._server(found, server.row(-1))
        for (name, which), (base, seen) in self._totals.items():
            found.setdefault(which, []).append((base + seen, {semconv.SERVER_NAME: name}))
        return found

    def _server(self, found: dict[str, list[Value]], sample: ServerSample) -> None:
        for which, total in (("tokens_in", sample.input_tokens_total), ("tokens_out", sample.output_tokens_total)):
            if total is not None:
                base, seen = self._totals.get((sample.server, which), (0, 0))
                # A server that was started again counts from 0: a counter must not fall.
                self._totals[sample.server, which] = (base + (seen if total < seen else 0), total)
        levels = {
            "slots_busy": sample.slots_busy,
            "slots": sample.slots,
            "queued": sample.queued,
            "kv": sample.kv_tokens,
            "kv_limit": sample.kv_capacity,
        }
        for which, value in levels.items():
            if value is not None:
                found.setdefault(which, []).append((value, {semconv.SERVER_NAME: sample.server}))


def _device(found: dict[str, list[Value]], sample: DeviceSample, names: Mapping[str, str]) -> None:
    owners: dict[str, int] = {}
    for one in sample.owners:
        owners[one.owner] = owners.get(one.owner, 0) + one.bytes
    for owner, size in owners.items():
        found.setdefault("memory", []).append((size, {semconv.HW_ID: sample.device, semconv.MEMORY_OWNER: owner}))
    if sample.device == "host":
        return
    about = {semconv.HW_ID: sample.device, semconv.HW_TYPE: "gpu"}
    if sample.device in names:
        about[semconv.HW_MODEL] = names[sample.device]
    used, total = sample.used_bytes, sample.total_bytes
    values = {
        "gpu_used": used,
        "gpu_total": total,
        "gpu_filled": used / total if used is not None and total else None,
        "gpu_util": sample.util,
        "gpu_power": sample.power_w,
        "gpu_energy": sample.energy_j,
        "gpu_temp": sample.temp_c,
    }
    for which, value in values.items():
        if value is not None:
            found.setdefault(which, []).append((value, about))

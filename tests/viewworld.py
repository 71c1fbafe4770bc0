"""Spans and samples as a short session on one machine would leave them, for the tests of views."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from llamatelemetry_jupyter.values import (
    DeviceSample,
    ModelRef,
    OwnerBytes,
    Samples,
    ServerHandle,
    ServerSample,
    ServerStatus,
    SpanRow,
)

T0 = 1_790_000_000_000_000_000
MIB = 1024 * 1024


class Spans:
    """A SpanSource over rows in memory."""

    def __init__(self, rows: Sequence[SpanRow]) -> None:
        self.all = sorted(rows, key=lambda r: r.end_ns)

    def rows(
        self, last: int | None = None, trace_id: str | None = None, since_ns: int | None = None
    ) -> Sequence[SpanRow]:
        found = [r for r in self.all if trace_id in (None, r.trace_id) and (since_ns is None or r.end_ns >= since_ns)]
        return found if last is None else found[-last:]


class Memory:
    """A SampleSource over samples in memory."""

    def __init__(self, devices: Sequence[DeviceSample] = (), servers: Sequence[ServerSample] = ()) -> None:
        self.devices, self.servers = devices, servers

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        return Samples.of(
            [s for s in self.devices if t0_ns <= s.t_ns <= t1_ns], [s for s in self.servers if t0_ns <= s.t_ns <= t1_ns]
        )

    def latest(self) -> Samples:
        newest_device = {s.device: s for s in sorted(self.devices, key=lambda s: s.t_ns)}
        newest_server = {s.server: s for s in sorted(self.servers, key=lambda s: s.t_ns)}
        return Samples.of(list(newest_device.values()), list(newest_server.values()))


def trace(
    number: int, at_s: float, *, decode_s: float = 2.0, model: str = "smollm2-135m", calls: int = 1, status: str = "ok"
) -> list[SpanRow]:
    """One cell with ``calls`` requests, each with queue, prefill and decode."""
    trace_id = f"{number:032x}"
    start = T0 + int(at_s * 1e9)
    t = start + 5_000_000
    rows = []
    for call in range(calls):
        chat_id, end = f"{(number << 20) + call * 4 + 1:016x}", t + int((0.15 + decode_s) * 1e9)
        common = {"trace_id": trace_id, "server": "default", "model": model, "cell_id": f"cell-{number}"}
        rows.append(
            SpanRow(
                **common,
                span_id=chat_id,
                parent_id=f"{number:016x}",
                name=f"chat {model}",
                kind="client",
                start_ns=t,
                end_ns=end,
                status=status,
                error_type="ServerError" if status == "error" else None,
                input_tokens=34,
                output_tokens=96,
                cached_tokens=12,
                ttft_s=0.15,
                decode_tokens_per_s=95 / decode_s,
                energy_j=None,
                peak_bytes=310 * MIB,
            )
        )
        for n, (name, a, b) in enumerate(
            (("queue", 0, 0.002), ("prefill", 0.002, 0.15), ("decode", 0.15, 0.15 + decode_s)), start=2
        ):
            rows.append(
                SpanRow(
                    **common,
                    span_id=f"{(number << 20) + call * 4 + n:016x}",
                    parent_id=chat_id,
                    name=name,
                    kind="internal",
                    start_ns=t + int(a * 1e9),
                    end_ns=t + int(b * 1e9),
                )
            )
        t = end + 3_000_000
    root = SpanRow(
        trace_id, f"{number:016x}", None, "notebook cell", "internal", start, t, status=status, cell_id=f"cell-{number}"
    )
    return [root, *rows]


def host(seconds: float, hz: float = 2.0, device: str = "host") -> list[DeviceSample]:
    """An engine that loads at 4 s and fills its cache while it answers."""
    made = []
    for n in range(int(seconds * hz)):
        at = n / hz
        owners = [OwnerBytes(device, "kernel", 96 * MIB, pid=10, process="python")]
        if at >= 4:
            owners += [
                OwnerBytes(device, "weights", 98 * MIB, source="engine", pid=11),
                OwnerBytes(device, "kv", 90 * MIB, filled_bytes=int(min(1, at / seconds) * 60 * MIB), source="engine"),
                OwnerBytes(device, "compute", int(40 + 8 * (at % 7)) * MIB, source="engine"),
                OwnerBytes(device, "context", 22 * MIB, source="estimate"),
            ]
        owners += [OwnerBytes(device, "other", 3000 * MIB), OwnerBytes(device, "free", 9000 * MIB)]
        gpu = {"util": 0.4, "power_w": 61.0} if device != "host" else {}
        made.append(DeviceSample(T0 + int(at * 1e9), device, 3346 * MIB, 16000 * MIB, owners=tuple(owners), **gpu))
    return made


def server(seconds: float, hz: float = 2.0, busy: Sequence[tuple[float, float]] = ()) -> list[ServerSample]:
    """A server that writes 48 tokens/s in each of the ``busy`` intervals."""
    made = []
    for n in range(int(seconds * hz)):
        at = n / hz
        now = any(a <= at <= b for a, b in busy)
        tokens = int(sum(48 * max(0, min(at, b) - a) for a, b in busy if at > a))
        made.append(
            ServerSample(
                T0 + int(at * 1e9),
                "default",
                "generating" if now else "ready",
                int(now),
                4,
                0,
                tokens,
                4096,
                34,
                tokens,
            )
        )
    return made


def handle(model: str = "smollm2-135m") -> ServerHandle:
    return ServerHandle(
        "default",
        "http://127.0.0.1:41234",
        "secret-key",
        "llama.cpp",
        True,
        11,
        1.0,
        ModelRef(model, "/home/someone/private/model.gguf"),
        4,
        1024,
        engine="llama.cpp b6900 (xllamacpp)",
    )


def session() -> dict[str, Any]:
    """Three cells in 30 seconds, the arguments of :func:`snapshot`."""
    rows = [*trace(1, 8, decode_s=2.0), *trace(2, 14, decode_s=1.0, calls=2), *trace(3, 22, decode_s=3.0)]
    busy = [(8.1, 10.2), (14.1, 16.4), (22.1, 25.2)]
    return {
        "spans": Spans(rows),
        "samples": Memory(host(30), server(30, busy=busy)),
        "now_ns": T0 + 30 * 10**9,
        "width_px": 900,
        "handle": handle(),
        "status": ServerStatus("default", "ready"),
    }


def hostile(rows: Sequence[SpanRow], word: str) -> list[SpanRow]:
    """``rows`` with ``word`` in every text that comes from outside."""
    return [replace(r, name=word, model=word, server=word, error_type=word, cell_id=word, status="error") for r in rows]


def drawn(html: str) -> ElementTree.Element:
    """The SVG inside of the page's ``<img>``."""
    return ElementTree.fromstring(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]))


def words(html: str) -> str:
    """All text that is drawn."""
    return "\n".join(drawn(html).itertext())

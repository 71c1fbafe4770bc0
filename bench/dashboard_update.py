"""What an update of the dashboard costs the kernel, beside plotly's FigureWidget with the same history: CPU and bytes."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llamatelemetry_jupyter.feed import Feed
from llamatelemetry_jupyter.sampling.ring import RingReader, RingWriter
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import DeviceSample, OwnerBytes, ServerSample, SpanRow
from llamatelemetry_jupyter.views.model import snapshot, state

IDS = ("update_cpu", "update_bytes", "update_spans", "bundle_dashboard", "bundle_chat", "bundle_tokens")
_STATIC = Path(__file__).resolve().parents[1] / "llamatelemetry_jupyter" / "widgets" / "static"
_SECOND = 1_000_000_000
_POINTS = 3_000  # five minutes at 10 Hz
_UPDATES = 60
_HZ, _EVERY_S = 10, 0.5


def run() -> list[dict[str, object]]:
    """CPU of the calling thread and bytes on the websocket, per update, medians; and the size of the bundles."""
    cpu_ms, sent, columns = _ours(spans=False)
    busy_ms, busy_sent, _ = _ours(spans=True)
    peers = {name: _figure(columns, dtype) for name, dtype in (("float64", np.float64), ("float32", np.float32))}
    best_bytes = min(found[1] for found in peers.values())
    spread = ", ".join(f"{name} {found[0]:.2f} ms and {found[1] / 1e3:.1f} kB" for name, found in peers.items())
    how = (
        f"{_UPDATES} updates of {_EVERY_S} s of samples at {_HZ} Hz, medians; ours: {columns} series of host, two GPUs and a "
        f"server from the ring; FigureWidget: as many lines of {_POINTS:,} points, all of them again at each update, "
        f"inside batch_update: {spread}; bytes are those of a message's JSON and its buffers"
    )
    ratio = sent / best_bytes
    return [
        {
            "id": "update_cpu", "what": "an update of the live dashboard, CPU of the kernel", "unit": "ms", "ours": round(cpu_ms, 3),
            "peers": {f"FigureWidget, {name}": round(found[0], 3) for name, found in peers.items()}, "floor": None,
            "ratio": round(cpu_ms / min(found[0] for found in peers.values()), 3), "goal": "≤ 1.0 ms", "holds": cpu_ms <= 1.0,
            "method": how,
        },
        {
            "id": "update_bytes", "what": "an update of the live dashboard, bytes to the browser", "unit": "B", "ours": round(sent),
            "peers": {f"FigureWidget, {name}": round(found[1]) for name, found in peers.items()}, "floor": None,
            "ratio": round(ratio, 5), "goal": "≤ 1/100 of FigureWidget's best", "holds": ratio <= 0.01,
            "method": how,
        },
        {
            "id": "update_spans", "what": "an update that brings a new trace of five spans, too, CPU of the kernel", "unit": "ms",
            "ours": round(busy_ms, 3), "peers": {}, "floor": round(cpu_ms, 3), "ratio": round(busy_ms / cpu_ms, 3), "goal": "≤ 1.0 ms",
            "holds": busy_ms <= 1.0, "method": f"the same with a call in each update, {busy_sent:,.0f} bytes; floor: without it",
        },
        _bundle("dashboard", 120_000),
        _bundle("chat", 150_000),
        _bundle("tokens", 30_000),
    ]  # fmt: skip


def _bundle(name: str, most: int) -> dict[str, object]:
    script, style = (len((_STATIC / f"{name}.{ending}").read_bytes()) for ending in ("js", "css"))
    return {
        "id": f"bundle_{name}", "what": f"what the {name} widget sends to the browser once, minified", "unit": "B",
        "ours": script + style, "peers": {}, "floor": None, "ratio": None, "goal": f"≤ {most:,} B", "holds": script + style <= most,
        "method": f"script {script:,} B, style sheet {style:,} B, not compressed, as the kernel's websocket carries them",
    }  # fmt: skip


def _ours(*, spans: bool) -> tuple[float, float, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1-2.ring"
        writer, now = RingWriter(path), time.time_ns()
        start = now - 400 * _SECOND
        for n in range(_POINTS):
            _write(writer, start + n * _SECOND // _HZ, n)
        reader = RingReader(path)
        sizes: list[int] = []
        store = SpanStore()
        for k in range(60):
            _call(store, k, start)
        feed = Feed(
            lambda: snapshot(store, reader, now, 900, window_s=300),
            lambda most: state(store, reader, now, most_spans=most),
            reader,
            store,
            lambda content, buffers: sizes.append(_size(content, buffers)),
            hz=2,
        )
        feed.tick()  # the whole snapshot
        spent, sent = [], []
        for n in range(_UPDATES):
            at = start + (_POINTS + n * 5) * _SECOND // _HZ
            for k in range(int(_HZ * _EVERY_S)):
                _write(writer, at + k * _SECOND // _HZ, _POINTS + n * 5 + k)
            feed._sent_at.clear()  # the limits per second are not what is measured
            feed._spans_at = 0.0 if spans else time.monotonic()
            if spans:
                _call(store, 60 + n, at)
            sizes.clear()
            before = time.thread_time()
            feed.tick()
            spent.append((time.thread_time() - before) * 1e3)
            sent.append(sum(sizes))
            assert sizes, "nothing was sent"
        columns = len(feed._ids)
        writer.close()
    return statistics.median(spent), statistics.median(sent), columns


def _write(writer: RingWriter, t_ns: int, n: int) -> None:
    for device in ("host", "GPU-a", "GPU-b"):
        held = tuple(
            OwnerBytes(device, owner, (1 << 30) + (n * 7919 + k) % (1 << 20), pid=7)
            for k, owner in enumerate(("weights", "kv", "compute", "context", "other", "free"))
        )
        gpu = device != "host"
        writer.write(
            DeviceSample(t_ns, device, 6 << 30, 16 << 30, n % 100 / 100 if gpu else None, None, 70.0 if gpu else None, owners=held)
        )  # fmt: skip
    writer.write(ServerSample(t_ns, "default", "ready", n % 2, 4, 0, n % 4096, 4096, n * 3, n))


def _figure(lines: int, dtype: Any) -> tuple[float, float]:
    """Milliseconds of CPU and bytes of an update of plotly's widget."""
    import comm
    import plotly.graph_objects as go

    sizes: list[int] = []

    class Counting(comm.base_comm.BaseComm):  # type: ignore[misc]
        def publish_msg(
            self, _type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any
        ) -> None:
            sizes.append(_size(data, buffers or ()))

    made: Callable[..., Any] = comm.create_comm
    comm.create_comm = Counting
    try:
        x = np.arange(_POINTS, dtype=dtype)
        y = [np.random.default_rng(n).random(_POINTS).astype(dtype) for n in range(lines)]
        figure = go.FigureWidget([go.Scatter(x=x, y=one) for one in y])
        spent, sent = [], []
        for n in range(_UPDATES):
            sizes.clear()
            before = time.thread_time()
            with figure.batch_update():
                for line, one in zip(figure.data, y, strict=True):
                    line.y = np.roll(one, n + 1)
            spent.append((time.thread_time() - before) * 1e3)
            sent.append(sum(sizes))
    finally:
        comm.create_comm = made
    return statistics.median(spent), statistics.median(sent)


def _size(content: Any, buffers: Sequence[Any]) -> int:
    return len(json.dumps(content, default=str)) + sum(len(memoryview(one).cast("B")) for one in buffers)


def _call(store: SpanStore, number: int, at_ns: int) -> None:
    """A cell with one call and its phases, that ended just now."""
    trace_id, begin = f"{number + 1:032x}", at_ns - _SECOND
    for k, name in enumerate(("decode", "prefill", "queue", "chat smollm2-135m", "notebook cell")):
        parent = None if k == 4 else 4 if k == 3 else 3
        ids = [f"{number * 8 + one:016x}" if one is not None else None for one in (k, parent)]
        made = SpanRow(trace_id, ids[0] or "", ids[1], name, "internal", begin + k, at_ns + k, "ok")
        store.append(
            replace(made, input_tokens=40, output_tokens=32, ttft_s=0.1, model="smollm2-135m") if k == 3 else made
        )

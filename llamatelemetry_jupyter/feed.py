"""Live data for a dashboard: samples and spans coalesced into a few small messages a second.

The server of a notebook drops messages over 1,000 a second, and a message sent before a view exists is lost; so the
newest state is always also in the widget's snapshot, and every message carries a number.
"""

from __future__ import annotations

import array
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any

from .values import SampleSource, SpanSource

Send = Callable[[dict[str, Any], "list[bytes] | None"], None]

_INTERVAL_S = 0.5


class Feed:
    """Sends what is new to one widget, twice a second, from a thread of its own."""

    def __init__(
        self, snapshot: Callable[[], dict[str, Any]], samples: SampleSource, spans: SpanSource, send: Send
    ) -> None:
        self._snapshot, self._samples, self._send = snapshot, samples, send
        self._changed = threading.Event()
        self._end = threading.Event()
        self._unsubscribe = spans.subscribe(self._changed.set)
        self._lock = threading.Lock()
        self._seq = 0
        self._ids: list[str] = []
        self._last_ms = 0.0
        self._thread = threading.Thread(target=self._run, name="llamatelemetry-feed", daemon=True)

    def start(self) -> None:
        """Send from now on; does nothing on ipykernel 7.0, where a thread cannot send."""
        ipykernel = sys.modules.get("ipykernel")
        if ipykernel is None or tuple(ipykernel.version_info[:2]) != (7, 0):
            self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._end.set()
        self._unsubscribe()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2)

    def refresh(self, widget: Any, snapshot: dict[str, Any]) -> None:
        """Put ``snapshot`` into the widget's traits; on the main thread, because traits are not thread-safe."""
        with self._lock:
            self._seq += 1
            seq = self._seq
        widget.snapshot = snapshot
        widget.seq = seq

    def _run(self) -> None:
        while not self._end.wait(_INTERVAL_S):
            try:
                self._tick()
            except (ReferenceError, OSError, RuntimeError):
                # The session, the comm or its socket is gone: there is nobody left to send to.
                self._end.set()
        self._unsubscribe()

    def _tick(self) -> None:
        snapshot = self._snapshot()
        ids = [one["id"] for one in snapshot["series"]]
        with self._lock:
            self._seq += 1
            seq = self._seq
        if ids != self._ids:
            self._ids, self._last_ms = ids, max(snapshot["points"]["t_ms"], default=0.0)
            self._changed.clear()
            self._send({"type": "snapshot", "seq": seq, "snapshot": snapshot}, None)
            return
        # State travels with every tick: it is what makes the figures of the header live.
        known = {"totals": snapshot["totals"], "server": snapshot["server"], "devices": snapshot["devices"]}
        spans = snapshot["spans"] if self._changed.is_set() else []
        self._changed.clear()
        self._send({"type": "spans", "seq": seq, "spans": spans, **known}, None)
        rows = [i for i, t in enumerate(snapshot["points"]["t_ms"]) if t > self._last_ms]
        if not rows:
            return
        values = snapshot["points"]["values"]
        frame = array.array("d")
        for i in rows:
            frame.append(snapshot["points"]["t_ms"][i])
            frame.extend(float("nan") if column[i] is None else column[i] for column in values)
        if sys.byteorder == "big":
            frame.byteswap()
        self._last_ms = snapshot["points"]["t_ms"][rows[-1]]
        with self._lock:
            self._seq += 1
            seq = self._seq
        layout = zlib.crc32("\n".join(ids).encode())
        self._send({"type": "frame", "seq": seq, "rows": len(rows), "layout": layout}, [frame.tobytes()])

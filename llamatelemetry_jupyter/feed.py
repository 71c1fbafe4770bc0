"""Live data for a dashboard: samples and spans coalesced into a few small messages a second.

A notebook's server drops messages over 1,000 a second, and what is sent before a view exists is lost; so messages are
few, each has a number, a frame says to which list of series it belongs, and the whole state is in the widget's
``snapshot`` from the end of one cell to the next.
"""

from __future__ import annotations

import logging
import math
import struct
import sys
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from .clock import now_ns
from .values import Samples, SampleSource, SpanSource
from .views.series import columns, series_list

_log = logging.getLogger(__name__)
#: ``send(content, buffers)``: a widget's ``send``.
Send = Callable[[dict[str, Any], "list[bytes]"], None]
Snapshot = Callable[[], dict[str, Any]]
#: ``state(most_spans)``: what a snapshot says of now (``views.model.state``).
State = Callable[[int], dict[str, Any]]

#: Whatever happens, no more messages than these go out in a second.
MAX_PER_SECOND = 5
_SNAPSHOT_EVERY_S = 1.0
_SPANS_EVERY_S = 0.4
#: Figures that no series holds (filled part of the cache, a server that is gone) are at most this old.
_STATE_EVERY_S = 5.0
#: So long without a sample, and the front end is told that there are none.
_SILENT_S = 3.0
#: A round of readings is complete after this: host, GPUs and servers answer one after the other.
_SETTLE_MS = 100.0
#: So many of the newest spans are looked at for an update; when all are new, as many as a snapshot has.
_FEW_SPANS, _MANY_SPANS = 40, 200
#: Longer ids are cut in the snapshot: their columns stay empty.
_MAX_ID = 80


class Holder(Protocol):
    """A widget with the traits of :class:`.widgets.dashboard.Dashboard`."""

    snapshot: dict[str, Any]
    seq: int

    def hold_sync(self) -> AbstractContextManager[None]:
        """Both traits in one message."""
        ...


class Feed:
    """Sends to one widget what is new, ``hz`` times a second at most, from a daemon thread of its own.

    Where ``samples`` can be wished for (``want``, the ring of a sampler), as many are taken while that thread runs.

    ``snapshot`` and ``state`` are the session's. ``watch`` gives what else they show and no source tells of: when it is
    another, the state goes out at once. Functions that are methods are held weakly; the thread ends when their owner is
    gone, when the widget is closed, when sending fails, and at :meth:`stop`. Messages: ``frame`` (one buffer of
    little-endian doubles: rows of time in ms and a value per series, NaN = n/a), ``spans`` (spans that are new or
    changed, totals, server, devices) and ``snapshot`` (the list of series has grown, or the front end asked).
    """

    def __init__(
        self,
        snapshot: Snapshot,
        state: State,
        samples: SampleSource,
        spans: SpanSource,
        send: Send,
        hz: float = 2.0,
        watch: Callable[[], object] = lambda: None,
    ) -> None:
        self._snapshot, self._state = _weak(snapshot), _weak(state)
        self._send, self._watch = _weak(send), _weak(watch)
        self._samples = samples
        self._interval_s = 1 / min(max(hz, 0.1), MAX_PER_SECOND)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._spans_changed = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._seq = 0
        self._ids: list[str] = []
        self._sent_spans: dict[str, dict[str, Any]] = {}
        self._cursor, seen, _ = samples.since(0)
        self._recent = _after(seen, math.inf)
        self._last_ms = 0.0
        self._states: dict[str, object] = {}
        self._heard = time.monotonic()
        self._sent_at: deque[float] = deque(maxlen=MAX_PER_SECOND)
        self._snapshot_at = self._spans_at = -math.inf
        self._unsubscribe = spans.subscribe(self._spans_changed.set)
        weakref.finalize(self, self._unsubscribe)
        self._thread: threading.Thread | None = None

    @property
    def live(self) -> bool:
        """False on ipykernel 7.0.0 and 7.0.1, where a thread cannot send: only the end of a cell brings news there."""
        ipykernel = sys.modules.get("ipykernel")
        return ipykernel is None or tuple(ipykernel.version_info[:2]) != (7, 0)

    def start(self) -> None:
        """Send from now on; the first message is a whole snapshot unless :meth:`refresh` came before."""
        if self._thread is None and self.live:
            args = (weakref.ref(self), self._end, self._interval_s, getattr(self._samples, "want", None))
            self._thread = threading.Thread(target=_run, args=args, name="llamatelemetry-feed", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send no more; returns when the thread has ended."""
        self._end.set()
        self._unsubscribe()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2)

    def refresh(self, widget: Holder, snapshot: dict[str, Any] | None = None) -> None:
        """Put a whole snapshot into the widget's traits; at the end of a cell, on the main thread: traits need that."""
        with self._lock:
            made = snapshot if snapshot is not None else self._call(self._snapshot)()
            seq = self._take(made)
        with widget.hold_sync():
            widget.snapshot = made
            widget.seq = seq

    def now(self) -> dict[str, Any]:
        """Traits for a front end that comes later, on any thread; the others get what they would have got anyway."""
        try:
            with self._lock:
                return {"snapshot": self._call(self._snapshot)(), "seq": self._seq}
        except Exception:  # noqa: BLE001 (the host asks for all widgets of a notebook at once: others' must not be lost)
            _log.warning("a late page gets an older picture", exc_info=True)
            return {}

    def on_message(self, _widget: object, content: object, _buffers: object = None) -> None:
        """A request of the front end, on any thread: ``{"op": "snapshot"}`` asks for the whole state."""
        if isinstance(content, Mapping) and content.get("op") == "snapshot":
            self._wanted.set()

    def tick(self) -> None:
        """Send what is new now, as far as the limits allow; what they hold back goes out at a later tick."""
        with self._lock:
            self._cursor, fresh, _ = self._samples.since(self._cursor)
            self._recent = _joined(self._recent, fresh)
            found = {one["id"] for one in series_list(self._recent) if len(one["id"]) <= _MAX_ID}
            if found - set(self._ids):
                self._wanted.set()
            now = time.monotonic()
            if self._news(fresh, now):
                self._spans_changed.set()
            if self._wanted.is_set() and now - self._snapshot_at >= _SNAPSHOT_EVERY_S and self._may_send(now):
                self._send_snapshot(now)
            elif self._ids:
                self._send_frame(now)
                due = _SPANS_EVERY_S if self._spans_changed.is_set() else _STATE_EVERY_S
                if now - self._spans_at >= due and self._may_send(now):
                    self._send_spans(now)

    def _news(self, fresh: Samples, now: float) -> bool:
        """Whether a server's state, what is watched, or what is read at all, is another than before."""
        states: dict[str, object] = {one.server: one.state[-1] for one in fresh.servers if len(one.state)}
        states |= {one.device: one.used_bytes[-1] is None for one in fresh.devices if len(one.used_bytes)}
        if states:
            self._heard = now
        states["silent"] = now - self._heard > _SILENT_S
        watch = self._watch()
        states["watched"] = watch() if watch is not None else None
        changed = any(self._states.get(name, False) != state for name, state in states.items())
        self._states |= states
        return changed

    def _send_snapshot(self, now: float) -> None:
        self._wanted.clear()
        self._spans_changed.clear()
        made = self._call(self._snapshot)()
        self._snapshot_at = self._spans_at = now
        self._out(now, {"type": "snapshot", "seq": self._take(made), "snapshot": made})

    def _send_spans(self, now: float) -> None:
        self._spans_changed.clear()
        made = self._call(self._state)(_FEW_SPANS)
        if made["spans"] and not any(one["span_id"] in self._sent_spans for one in made["spans"]):
            made = self._call(self._state)(_MANY_SPANS)
        self._spans_at = now
        changed = [one for one in made["spans"] if self._sent_spans.get(one["span_id"]) != one]
        self._sent_spans |= {one["span_id"]: one for one in changed}
        for old in list(self._sent_spans)[: -2 * _MANY_SPANS]:
            del self._sent_spans[old]
        self._seq += 1
        state = {name: made[name] for name in ("totals", "server", "devices", "since_ms")}
        self._out(now, {"type": "spans", "seq": self._seq, "spans": changed, **state})

    def _send_frame(self, now: float) -> None:
        t_ms, values = columns(self._recent, [{"id": one} for one in self._ids])
        settled = now_ns() / 1e6 - _SETTLE_MS
        rows = [i for i, t in enumerate(t_ms) if self._last_ms < t <= settled]
        if not rows or not self._may_send(now):
            return
        self._last_ms = t_ms[rows[-1]]
        self._recent = _after(self._recent, self._last_ms)
        flat = [x for i in rows for x in (t_ms[i], *(math.nan if v[i] is None else v[i] for v in values))]
        self._seq += 1
        frame = {"type": "frame", "seq": self._seq, "rows": len(rows), "layout": layout(self._ids)}
        self._out(now, frame, [struct.pack(f"<{len(flat)}d", *flat)])

    def _take(self, snapshot: dict[str, Any]) -> int:
        """The front end will have ``snapshot``: what follows builds on it."""
        self._seq += 1
        self._ids = [one["id"] for one in snapshot["series"]]
        self._sent_spans = {one["span_id"]: one for one in snapshot["spans"]}
        self._last_ms = max([self._last_ms, *snapshot["points"]["t_ms"][-1:]])
        self._wanted.clear()
        return self._seq

    def _call(self, weak: Callable[[], Callable[..., dict[str, Any]] | None]) -> Callable[..., dict[str, Any]]:
        if (strong := weak()) is None:
            raise ReferenceError("the owner of this feed's data is gone")
        return strong

    def _may_send(self, now: float) -> bool:
        return len(self._sent_at) < MAX_PER_SECOND or now - self._sent_at[0] >= 1.0

    def _out(self, now: float, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        send: Send | None = self._send()
        # A closed widget sends nothing and says nothing: its comm tells.
        if send is None or getattr(getattr(send, "__self__", None), "comm", self) is None:
            self._end.set()
            return
        self._sent_at.append(now)
        try:
            send(content, list(buffers))
        except Exception:  # noqa: BLE001 (whatever a comm raises when its socket or kernel is gone: nobody is there)
            self._end.set()


def layout(ids: Sequence[str]) -> int:
    """CRC-32 of a list of series' ids: a frame names its list, so that a lost snapshot can't shift its columns."""
    return zlib.crc32("\n".join(ids).encode())


def _run(
    feed: weakref.ref[Feed],
    end: threading.Event,
    interval_s: float,
    want: Callable[[float], AbstractContextManager[object]] | None,
) -> None:
    with nullcontext() if want is None else want(1 / interval_s):
        while not end.wait(interval_s):
            alive = feed()
            if alive is None:
                return
            try:
                alive.tick()
            except ReferenceError:  # the session behind a weak proxy is gone
                return
            del alive  # while waiting, the thread holds nothing


def _weak(fn: Callable[..., Any]) -> Callable[[], Any]:
    return weakref.WeakMethod(fn) if hasattr(fn, "__self__") and hasattr(fn, "__func__") else lambda: fn


def _joined(one: Samples, other: Samples) -> Samples:
    both = (one, other)
    return Samples.of(
        [s.row(i) for part in both for s in part.devices for i in range(len(s.t_ns))],
        [s.row(i) for part in both for s in part.servers for i in range(len(s.t_ns))],
    )


def _after(samples: Samples, t_ms: float) -> Samples:
    """The rows after ``t_ms`` and the two before them: a token rate is a difference, and a gap carries a value on."""

    def kept(times: Sequence[int]) -> range:
        return range(max(0, sum(t / 1e6 <= t_ms for t in times) - 2), len(times))

    return Samples.of(
        [s.row(i) for s in samples.devices for i in kept(s.t_ns)],
        [s.row(i) for s in samples.servers for i in kept(s.t_ns)],
    )

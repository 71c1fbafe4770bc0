"""Spans sent to an OpenTelemetry receiver over OTLP/HTTP, only when asked for, without ever holding up a cell.

Rows are sent, not the SDK's span objects, so that energy and memory, which are known a moment after a span's end, are
there; that is why the SDK's exporter is not used. A thread of its own reads rows from the store when they are final and
sends them in batches. What cannot be sent stays where it was, in the store, and is sent when the receiver is back.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..values import JSON, SpanRow
from . import otlp_json, otlp_proto, privacy
from .destination import Destination
from .otlp_http import AT_FAULT, AWAY, TIMEOUT_S, Connection, Reply, said
from .wire import from_row

if TYPE_CHECKING:
    from .store import SpanStore

_log = logging.getLogger(__name__)
_FINAL_S = 5.0  # a row is joined with samples within 3.5 s; the SDK's batches wait as long
_ROUND_S = 1.0
_BATCH = 64  # 3 ms of CPU: a cell that runs meanwhile is later by no more
_BREATH = 16  # rows, 0.5 ms
_PAUSE_S = 2.0  # after the first failure; doubled by each further one
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """``waiting`` spans are not sent yet, ``refused`` were not taken by the receiver; ``error`` is the last one."""

    host: str
    sent: int
    waiting: int
    refused: int
    error: str | None
    running: bool


class Exporter:
    """Sends the rows of ``store`` to ``destination``, those that are there and those to come, until :meth:`close`.

    ``everything``: rows as they are; else without content, paths and names of hosts (:func:`.privacy.outgoing`).
    """

    def __init__(
        self, store: SpanStore, destination: Destination, resource: Mapping[str, JSON], *, everything: bool = False
    ) -> None:
        if destination.protocol == "http/protobuf":
            otlp_proto.require()
        self.destination = destination
        self.everything = everything
        self._store = store
        self._resource = dict(resource) if everything else privacy.public(resource)
        self._pid = os.getpid()
        self._done = 0  # rows before this number are sent or refused
        self._sent = self._refused = 0
        self._batch = _BATCH
        self._error: str | None = None
        self._failures = 0
        self._pause_s = 0.0
        self._seen: deque[tuple[float, int]] = deque()  # when how many rows were there
        self._http = Connection(destination)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._deadline_s = 0.0
        self._unsubscribe = store.subscribe(self._wake.set)
        self._wake.set()
        self._thread = threading.Thread(target=self._run, name="llamatelemetry-otlp", daemon=True)
        atexit.register(self.close)

    def start(self) -> Exporter:
        """Send from now on."""
        self._thread.start()
        return self

    def probe(self) -> str | None:
        """Why the receiver does not take spans now, ``None`` when it does; sends a request without spans.

        Before :meth:`start`: whoever asks tells it, and it is not told again until it has changed.
        """
        self._error = self._post([]).error
        return self._error

    def progress(self) -> Progress:
        """How far it is."""
        waiting = max(0, self._count() - self._done)
        return Progress(self.destination.host, self._sent, waiting, self._refused, self._error, not self._stop.is_set())

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send what is waiting, within ``timeout_s``, and end; a receiver that is away is not asked again."""
        self.end(timeout_s)
        self.join(timeout_s)

    def end(self, timeout_s: float) -> None:
        """Begin to :meth:`close`; returns at once."""
        atexit.unregister(self.close)
        if self._stop.is_set() or os.getpid() != self._pid:  # a forked child has no such thread
            return
        self._unsubscribe()
        self._deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended."""
        if os.getpid() == self._pid and self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # ----------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait()
                self._wake.clear()
                while self._done < self._look() and not self._stop.wait(max(_ROUND_S, self._pause_s)):
                    self._send(self._final(time.monotonic() - _FINAL_S))
            if not self._failures:
                self._store.flush()
                self._send(self._look())
        except Exception as error:  # noqa: BLE001 (a thread has nobody to raise to)
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self._stop.set()
            self._http.close()

    def _count(self) -> int:
        return self._store.totals()["spans"]

    def _look(self) -> int:
        count = self._count()
        if not self._seen or count > self._seen[-1][1]:
            self._seen.append((time.monotonic(), count))
        return count

    def _final(self, before_s: float) -> int:
        """How many rows were there at a moment."""
        while len(self._seen) > 1 and self._seen[1][0] <= before_s:
            self._seen.popleft()
        return self._seen[0][1] if self._seen and self._seen[0][0] <= before_s else 0

    def _send(self, stop: int) -> None:
        while self._done < stop:
            if self._stop.is_set() and time.monotonic() >= self._deadline_s:
                return
            # A receiver that was away is asked with an empty request: the batch is not made again and again.
            reply = self._post([]) if self._failures else None
            if reply is None or reply.status not in AWAY:
                rows = self._store.between(self._done, min(stop, self._done + self._batch))
                reply = self._post(rows)
            if reply.error is None:
                self._error, self._failures, self._pause_s = None, 0, 0.0
                refused, why = (0, "") if self._http.as_json else otlp_proto.refused(reply.content)
                self._sent += len(rows) - refused
                if refused:
                    self._refused += refused
                    self._failed(f"{refused} spans were refused{said(why)}")
            elif reply.status == 413 and len(rows) > 1:
                self._batch = max(1, len(rows) // 2)
                continue
            elif reply.status in AT_FAULT:
                self._failed(reply.error)
                self._refused += len(rows)
            else:
                self._failures += 1
                self._pause_s = max(reply.pause_s, min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(self._failures - 1, 5)))
                self._failed(reply.error)
                return
            self._done += len(rows)

    def _failed(self, error: str) -> None:
        if self._error is None:
            _log.warning("spans cannot be sent to %s: %s; they wait here", self.destination.host, error)
        self._error = error

    def _post(self, rows: list[SpanRow]) -> Reply:
        spans = []
        for number, row in enumerate(rows, 1):
            spans.append(from_row(row if self.everything else privacy.outgoing(row), self._resource))
            if number % _BREATH == 0:
                time.sleep(0)  # gives a waiting cell the GIL
        body = otlp_json.dumps(spans).encode() if self._http.as_json else otlp_proto.dumps(spans)
        return self._http.post(body, self._deadline_s - time.monotonic() if self._stop.is_set() else TIMEOUT_S)

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
from typing import TYPE_CHECKING, Any

from .. import escape
from ..values import JSON, SpanRow
from . import otlp_json, otlp_proto, privacy
from .destination import Destination
from .wire import from_row

if TYPE_CHECKING:
    from .store import SpanStore

_log = logging.getLogger(__name__)
TIMEOUT_S = 2.0
_FINAL_S = 5.0  # a row is joined with samples within 3.5 s; the SDK's batches wait as long
_ROUND_S = 1.0
_BATCH = 64  # 3 ms of CPU: a cell that runs meanwhile is later by no more
_BREATH = 16  # rows, 0.5 ms
_PAUSE_S = 2.0  # after the first failure; doubled by each further one
_LONGEST_PAUSE_S = 60.0
#: The batch itself is at fault and would be refused again; anything else may get better.
_AT_FAULT = frozenset({400, 413, 422})
_AWAY = frozenset({0, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Progress:
    """``waiting`` spans are not sent yet, ``refused`` were not taken by the receiver; ``error`` is the last one."""

    host: str
    sent: int
    waiting: int
    refused: int
    error: str | None
    running: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    """``status`` is 0 without an answer, ``error`` why the batch was not taken."""

    status: int
    error: str | None = None
    refused: int = 0
    said: str = ""
    pause_s: float = 0.0


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
        self._http: Any = None
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
        """Why the receiver does not take spans now, ``None`` when it does; sends a request without spans."""
        return self._post([]).error

    def progress(self) -> Progress:
        """How far it is."""
        waiting = max(0, self._count() - self._done)
        return Progress(self.destination.host, self._sent, waiting, self._refused, self._error, not self._stop.is_set())

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send what is waiting, within ``timeout_s``, and end; a receiver that is away is not asked again."""
        atexit.unregister(self.close)
        if self._stop.is_set() or os.getpid() != self._pid:  # a forked child has no such thread
            return
        self._unsubscribe()
        self._deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
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
            if self._http is not None:
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
            if reply is None or reply.status not in _AWAY:
                rows = self._store.between(self._done, min(stop, self._done + self._batch))
                reply = self._post(rows)
            if reply.error is None:
                self._error, self._failures, self._pause_s = None, 0, 0.0
                self._sent += len(rows) - reply.refused
                if reply.refused:
                    self._refused += reply.refused
                    self._failed(f"{reply.refused} spans were refused{reply.said}")
            elif reply.status == 413 and len(rows) > 1:
                self._batch = max(1, len(rows) // 2)
                continue
            elif reply.status in _AT_FAULT:
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

    def _post(self, rows: list[SpanRow]) -> _Reply:
        import requests

        spans = []
        for number, row in enumerate(rows, 1):
            spans.append(from_row(row if self.everything else privacy.outgoing(row), self._resource))
            if number % _BREATH == 0:
                time.sleep(0)  # gives a waiting cell the GIL
        as_json = self.destination.protocol == "http/json"
        body = otlp_json.dumps(spans).encode() if as_json else otlp_proto.dumps(spans)
        headers = {
            **self.destination.headers,
            "Content-Type": "application/json" if as_json else "application/x-protobuf",
            "User-Agent": "llamatelemetry-jupyter",
        }
        if self.destination.gzip:
            import gzip

            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        left_s = self._deadline_s - time.monotonic() if self._stop.is_set() else TIMEOUT_S
        try:
            answer = self._session().post(
                self.destination.url,
                data=body,
                headers=headers,
                timeout=max(0.05, min(TIMEOUT_S, left_s)),
                allow_redirects=False,  # to another host the headers would go, too
                verify=self.destination.verify,
                cert=self.destination.certificate,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            return _Reply(0, _why(error))
        if 200 <= answer.status_code < 300:
            refused, why = (0, "") if as_json or not answer.content else otlp_proto.refused(answer.content)
            return _Reply(answer.status_code, refused=refused, said=_said(why))
        html = "html" in answer.headers.get("Content-Type", "")
        return _Reply(
            answer.status_code,
            f"HTTP {answer.status_code}{_said('' if html else answer.text)}",
            pause_s=_seconds(answer.headers.get("Retry-After")),
        )

    def _session(self) -> Any:
        import requests

        if self._http is None:
            self._http = requests.Session()
            # A proxy is for the world outside.
            self._http.trust_env = not self.destination.here
        return self._http


def _said(text: str) -> str:
    words = " ".join(escape.plain(text).split())[:120]
    return f": {words}" if words else ""


def _why(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (OTEL_EXPORTER_OTLP_CERTIFICATE names a file of authorities)"
    if isinstance(error, requests.ConnectionError):
        return "nothing answers there"
    return type(error).__name__


def _seconds(header: str | None) -> float:
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(header or 0)))
    except ValueError:  # a date
        return _LONGEST_PAUSE_S

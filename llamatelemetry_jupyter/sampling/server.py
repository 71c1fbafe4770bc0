"""What a llama.cpp server says of itself, read so that the server does not notice.

Rules that the real engine taught (all checked against it):

* A request for ``/slots`` wakes a sleeping server, and on an idle one it restarts the timer after which it would
  sleep. ``/metrics`` and ``/props`` do neither. So ``/slots`` is asked only while requests run, and once after the
  last one ended; in between nothing in the slots can change.
* ``tokens_predicted_total`` moves when a request ends, cancelled ones included; ``n_decoded`` of its slot moves with
  every token and goes back to 0 in the same step. Counters are read *before* slots: so nothing is counted twice, and
  a request that ends in between is missing for one reading only, which the total bridges by never falling.
* ``prompt_tokens_total`` leaves out cached tokens, a response's ``usage`` does not: input here is that counter plus
  ``prompt_tokens_cached_total``, plus what a running prefill has done, and equals the sum of ``usage.prompt_tokens``.
  The cached ones are counted when a prefill begins, the others when it ends: only those are looked for in its slot.
* The gauges ``*_tokens_seconds`` start anew with each scrape and are never used.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from .. import clock
from ..environment import process_start
from ..values import ServerHandle, ServerSample, ServerState
from . import foreign, pace

LATE_S = 1.0
MAX_HZ = 5.0
# A server that computes answers late; the connection waits, so that questions do not pile up in its queue.
_GIVE_UP_S = 60.0
_MOST_BYTES = 4 << 20
_COUNTER = re.compile(
    rb"^llamacpp:(prompt_tokens_total|prompt_tokens_cached_total|tokens_predicted_total|n_decode_total"
    rb"|requests_processing|requests_deferred)(?:\{[^}\n]*\})? ([0-9.eE+-]+)",
    re.MULTILINE,
)


class _Refused(Exception):  # noqa: N818 (an answer, not a failure)
    """The server answered with a status other than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Slots:
    busy: int
    count: int
    kv_tokens: int
    kv_capacity: int
    decoding: int  # tokens that running requests have got
    prefilling: int  # prompt tokens that running requests have computed and that no counter has yet


class ServerProbe:
    """Asks one server; one thread at a time."""

    def __init__(self, handle: ServerHandle) -> None:
        self.handle = handle
        parts = urlsplit(handle.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80), timeout=LATE_S)
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {handle.api_key}"} if handle.api_key else {}
        self._slots: _Slots | None = None
        self._tasks: set[object] = set()
        self._decodes: int | None = None
        self._asked_slots = handle.backend == "llama.cpp"
        self._asked_metrics = handle.backend == "llama.cpp"
        self._counted = (0, 0)
        self._carry = (0, 0)
        self._shown = (0, 0)

    def read(self) -> ServerSample:
        """The server's state now. Blocks while the server computes; raises nothing."""
        try:
            sample = self._read()
        except _Refused as refused:
            self._slots = self._decodes = None
            # 503 is llama.cpp's "Loading model"; 401 and others: it lives but does not talk to us.
            sample = self._sample("loading" if refused.status == 503 else "unreachable")
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
            self.close()
            self._slots = self._decodes = None
            sample = self._sample("crashed" if self._process_is_gone() else "unreachable")
        return replace(sample, t_ns=clock.now_ns())

    def close(self) -> None:
        """Close the connection; the next :meth:`read` opens it again."""
        self._connection.close()

    def _read(self) -> ServerSample:
        if self.handle.backend != "llama.cpp":
            return self._read_other()
        metrics = self._metrics()
        if metrics is None or not metrics["requests_processing"]:
            # Some builds leave is_sleeping out.
            if json.loads(self._get("/props")).get("is_sleeping", False):
                self._slots = _Slots(0, *self._shape(), 0, 0) if (self.handle.slots or self._slots) else None
                return self._totals(self._sample("sleeping", self._slots), metrics, self._slots)
            if metrics is None or self._decodes != metrics["n_decode_total"] or self._slots is None:
                metrics = self._ask_slots(metrics)
        else:
            metrics = self._ask_slots(metrics)
        busy = self._slots.busy if self._slots else metrics["requests_processing"] if metrics else 0
        state: ServerState = "generating" if busy else "ready"
        sample = self._totals(self._sample(state, self._slots), metrics, self._slots)
        if metrics is not None:
            sample = replace(sample, slots_busy=busy, queued=metrics["requests_deferred"])
        return sample

    def _read_other(self) -> ServerSample:
        """What another server's own metrics hold; everything else stays n/a."""
        figures = None
        if self.handle.backend == "router":
            # A request for a model's metrics loads the model, unless it is told not to.
            listed = json.loads(self._get("/models"))["data"]
            loaded = [m["id"] for m in listed if _status(m) == "loaded"]
            path = "/metrics?autoload=false&model="
            figures = foreign.routed([self._get(path + quote(m, safe="")).decode("utf-8", "replace") for m in loaded])
        elif self.handle.backend in _READERS and "metrics" in self.handle.capabilities:
            figures = _READERS[self.handle.backend](self._get("/metrics").decode("utf-8", "replace"))
        else:
            self._get("/v1/models")
        if figures is None:
            return self._sample("ready")
        return replace(
            self._sample("generating" if figures.running else "ready"),
            slots_busy=figures.running,
            queued=figures.waiting,
            kv_tokens=figures.kv_tokens,
            kv_capacity=figures.kv_capacity,
            input_tokens_total=figures.input_tokens,
            output_tokens_total=figures.output_tokens,
        )

    def _ask_slots(self, metrics: dict[str, int] | None) -> dict[str, int] | None:
        """Read the slots; returns the counters that go with them."""
        if self._asked_slots:
            try:
                self._slots = self._parse_slots(json.loads(self._get("/slots")))
            except _Refused as refused:
                if refused.status == 503:
                    raise
                self._asked_slots = False  # started with --no-slots
        if metrics is None:
            return None
        if self._slots is not None and not self._slots.busy and metrics["requests_processing"]:
            # The last request ended between the two answers: its tokens are in the counters now.
            metrics = self._metrics() or metrics
        # While something runs there is more to come, whatever the count says.
        self._decodes = None if metrics["requests_processing"] else metrics["n_decode_total"]
        return metrics

    def _metrics(self) -> dict[str, int] | None:
        if not self._asked_metrics:
            return None
        try:
            text = self._get("/metrics")
        except _Refused as refused:
            if refused.status not in (404, 501):
                raise
            self._asked_metrics = False  # started without --metrics
            return None
        found = {name.decode(): int(float(value)) for name, value in _COUNTER.findall(text)}
        names = ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total", "n_decode_total")
        return dict.fromkeys((*names, "requests_processing", "requests_deferred"), 0) | found

    def _parse_slots(self, slots: list[dict[str, object]]) -> _Slots:
        busy = decoding = prefilling = held = cells = 0
        known, self._tasks = self._tasks, {slot.get("id_task") for slot in slots if slot.get("is_processing")}
        for slot in slots:
            cells += _number(slot.get("n_ctx"))
            held += _number(slot.get("n_prompt_tokens"))
            if not slot.get("is_processing"):
                continue
            busy += 1
            if slot.get("id_task") not in known:
                continue  # just begun: its slot may still show the figures of the request before
            following = slot.get("next_token")
            entries = following if isinstance(following, list) else [following]
            decoded = sum(_number(e.get("n_decoded")) for e in entries if isinstance(e, dict))
            decoding += decoded
            if not decoded:
                prefilling += _number(slot.get("n_prompt_tokens_processed"))
        if "kv_unified" in self.handle.capabilities and slots:
            cells = max(_number(s.get("n_ctx")) for s in slots)  # one pool that every slot may fill
        return _Slots(busy, len(slots), min(held, cells), cells, decoding, prefilling)

    def _totals(self, sample: ServerSample, metrics: dict[str, int] | None, slots: _Slots | None) -> ServerSample:
        if metrics is None:
            return sample
        counted = (
            metrics["prompt_tokens_total"] + metrics["prompt_tokens_cached_total"],
            metrics["tokens_predicted_total"],
        )
        if counted[0] < self._counted[0] or counted[1] < self._counted[1]:
            self._carry = self._shown = (0, 0)  # the server behind this address is a new one
        live = (slots.prefilling, slots.decoding) if slots is not None and slots.busy else (0, 0)
        seen = (counted[0] + live[0] + self._carry[0], counted[1] + live[1] + self._carry[1])
        missing = (max(0, self._shown[0] - seen[0]), max(0, self._shown[1] - seen[1]))
        if not metrics["requests_processing"] and not any(live):
            # At rest counters are complete: what is missing was computed for requests that were cancelled uncounted.
            self._carry = (self._carry[0] + missing[0], self._carry[1] + missing[1])
        self._counted = counted
        self._shown = (seen[0] + missing[0], seen[1] + missing[1])
        return replace(sample, input_tokens_total=self._shown[0], output_tokens_total=self._shown[1])

    def _sample(self, state: ServerState, slots: _Slots | None = None) -> ServerSample:
        if slots is None:
            return ServerSample(0, self.handle.name, state, slots=self.handle.slots)
        return ServerSample(
            0, self.handle.name, state, slots.busy, slots.count, None, slots.kv_tokens, slots.kv_capacity
        )

    def _shape(self) -> tuple[int, int, int]:
        """Slots, no tokens, cells: what is left of the slots of a server that gave its memory back."""
        if self._slots is not None:
            return self._slots.count, 0, self._slots.kv_capacity
        count = self.handle.slots or 0
        return count, 0, count * (self.handle.ctx_per_slot or 0)

    def _process_is_gone(self) -> bool:
        pid = self.handle.pid
        return self.handle.owned and pid is not None and process_start(pid) != self.handle.pid_start

    def _get(self, path: str) -> bytes:
        for attempt in (1, 2):
            fresh = self._connection.sock is None
            try:
                self._connection.timeout = LATE_S
                if fresh:
                    self._connection.connect()
                self._connection.sock.settimeout(_GIVE_UP_S)
                self._connection.request("GET", self._prefix + path, headers=self._headers)
                response = self._connection.getresponse()
                body = response.read(_MOST_BYTES)
                if response.will_close or not response.isclosed():
                    self._connection.close()
                break
            except (
                http.client.RemoteDisconnected,
                ConnectionResetError,
                BrokenPipeError,
                http.client.CannotSendRequest,
            ):
                # A kept connection that the server has closed since (its keep-alive limit): once more on a new one.
                self._connection.close()
                if fresh or attempt == 2:
                    raise
        if response.status != 200:
            raise _Refused(response.status)
        return body


def _status(model: dict[str, object]) -> object:
    status = model.get("status")
    return status.get("value") if isinstance(status, dict) else status


_READERS = {"vllm": foreign.vllm, "sglang": foreign.sglang}


def _number(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


class ServerWatch:
    """A thread that asks one server at most ``hz()`` (≤ 5) times a second and hands each answer to ``write``.

    While an answer is late, :meth:`late` gives the last known state with every figure n/a.
    """

    def __init__(self, handle: ServerHandle, hz: Callable[[], float], write: Callable[[ServerSample], None]) -> None:
        self.handle = handle
        self.latest: ServerSample | None = None
        self._hz = hz
        self._write = write
        self._probe = ServerProbe(handle)
        self._asked: float | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"server {handle.name}", daemon=True)
        self._thread.start()

    @property
    def kv_fill(self) -> float | None:
        """The part of the KV cache that holds tokens, 0..1, as last seen."""
        seen = self.latest
        if seen is None or seen.kv_tokens is None or not seen.kv_capacity:
            return None
        return min(1.0, seen.kv_tokens / seen.kv_capacity)

    def late(self) -> ServerSample | None:
        """A sample for now when the server has not answered for a second, else ``None``."""
        asked = self._asked
        if asked is None or time.monotonic() - asked < LATE_S:
            return None
        state: ServerState = self.latest.state if self.latest else "unreachable"
        return ServerSample(clock.now_ns(), self.handle.name, state)

    def stop(self) -> None:
        """End the thread after the answer it waits for; it writes nothing more."""
        self._stopped = True

    def _run(self) -> None:
        while not self._stopped:
            begun = self._asked = time.monotonic()
            sample = self._probe.read()
            self._asked = None
            if not self._stopped:
                if sample.state not in ("crashed", "unreachable", "loading") or self.latest is None:
                    self.latest = sample
                else:
                    self.latest = replace(self.latest, state=sample.state)
                self._write(sample)
            time.sleep(0.05)
            pace.wait(begun, lambda: min(MAX_HZ, self._hz()))
        self._probe.close()

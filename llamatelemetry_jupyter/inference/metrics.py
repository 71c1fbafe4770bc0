"""What an engine's requests came to: counts, tokens, rates and waiting times, kept in a bounded amount of memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..values import JSON, Call, CallObserver, Outcome, Step

_NEWEST = 1000


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Requests of one engine since it was made or reset; ``None``: nothing to say yet.

    ``requests`` counts all that have ended; of these ``failed`` were refused or broke off and ``interrupted`` were
    ended by the user. Tokens are sums (``cached_tokens`` are part of ``input_tokens``). ``decode_tokens_per_s`` is
    (output tokens − 1 per request) / decode time over all requests. ``ttft_*`` and ``duration_*`` are percentiles of
    the newest 1,000 requests: to the first token, and from sending to the end, on this machine's clock.
    """

    requests: int = 0
    failed: int = 0
    interrupted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    duration_p50_s: float | None = None
    duration_p95_s: float | None = None


class Meter:
    """An observer that counts and passes on to ``inner``."""

    def __init__(self, inner: CallObserver | None) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self._counts = dict.fromkeys(("requests", "failed", "interrupted"), 0)
            self._tokens = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), 0)
            self._decoded, self._decode_s = 0, 0.0
            self._ttft_s: deque[float] = deque(maxlen=_NEWEST)
            self._duration_s: deque[float] = deque(maxlen=_NEWEST)

    def start(self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]) -> Call:
        """A request is about to be sent."""
        call = self._inner.start(operation, model, address, port, request) if self._inner is not None else None
        return _MeteredCall(self, call)

    def step(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Step]:
        """Work around requests is about to begin."""
        return nullcontext(_Unseen()) if self._inner is None else self._inner.step(name, attributes)

    def add(self, outcome: Outcome | None, *, failed: bool) -> None:
        """Count one request that has ended."""
        with self._lock:
            self._counts["requests"] += 1
            self._counts["failed"] += failed
            if outcome is None:
                return
            self._counts["interrupted"] += outcome.finish_reason == "interrupted" and not failed
            times = outcome.timings
            self._tokens["input_tokens"] += outcome.input_tokens or 0
            self._tokens["output_tokens"] += outcome.output_tokens or 0
            self._tokens["cached_tokens"] += times.cached_tokens or 0
            if times.decode_s and (outcome.output_tokens or 0) > 1:
                self._decoded += (outcome.output_tokens or 0) - 1
                self._decode_s += times.decode_s
            if times.ttft_s is not None:
                self._ttft_s.append(times.ttft_s)
            if not failed:
                self._duration_s.append((outcome.end_ns - outcome.sent_ns) / 1e9)

    def read(self) -> EngineMetrics:
        """The figures now."""
        with self._lock:
            ttft_s, duration_s = sorted(self._ttft_s), sorted(self._duration_s)
            return EngineMetrics(
                **self._counts,
                **self._tokens,
                decode_tokens_per_s=self._decoded / self._decode_s if self._decode_s else None,
                ttft_p50_s=_percentile(ttft_s, 0.5),
                ttft_p95_s=_percentile(ttft_s, 0.95),
                duration_p50_s=_percentile(duration_s, 0.5),
                duration_p95_s=_percentile(duration_s, 0.95),
            )


class _Unseen:
    """A step that nobody observes."""

    def set(self, attributes: Mapping[str, Any], /) -> None:
        pass

    def error(self, kind: str, message: str = "") -> None:
        pass


class _MeteredCall:
    """One request, counted when it ends."""

    def __init__(self, meter: Meter, call: Call | None) -> None:
        self._meter, self._call = meter, call

    @property
    def headers(self) -> Mapping[str, str]:
        return self._call.headers if self._call is not None else {}

    @property
    def trace_id(self) -> str | None:
        return self._call.trace_id if self._call is not None else None

    @property
    def span_id(self) -> str | None:
        return self._call.span_id if self._call is not None else None

    def end(self, outcome: Outcome) -> None:
        self._meter.add(outcome, failed=outcome.finish_reason == "error")
        if self._call is not None:
            self._call.end(outcome)

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        self._meter.add(outcome, failed=True)
        if self._call is not None:
            self._call.fail(error, outcome)


def _percentile(ordered: Sequence[float], q: float) -> float | None:
    return ordered[round(q * (len(ordered) - 1))] if ordered else None

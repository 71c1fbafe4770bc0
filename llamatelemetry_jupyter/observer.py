"""What a session does around each call of its engines: a span for the running cell, and readings that are close."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .values import JSON, Call, Outcome, Step

if TYPE_CHECKING:
    from .sampling.ring import Wish
    from .session import Session
    from .telemetry.tracer import Observer

# While a call runs and a little longer the sampler reads as often as it can: a call's end lies between two readings.
_CALL_HZ, _LINGER_S = 10.0, 1.0


class CallObserver:
    """Sees to it that the running cell has a span before another's is started under it, and that the call is seen.

    The sampler reads more often until the call has ended, however it ends: a stream that nobody reads on is abandoned
    by its client, and a call that nobody holds any more lets go of its wish. ``apart``: no cell makes these calls,
    each is a trace of its own.
    """

    def __init__(self, session: Session, *, apart: bool = False) -> None:
        self._session = session
        self._apart = apart

    def start(self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]) -> Call:
        """A request is about to be sent."""
        call = self._observer.start(operation, model, address, port, request)
        if "sampler" not in self._session.__dict__:
            return call
        self._session.sampler.ensure()
        return _Seen(call, self._session.sampler.want(_CALL_HZ, _LINGER_S))

    def step(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Step]:
        """Work around requests is about to begin."""
        return self._observer.step(name, attributes)

    @property
    def _observer(self) -> Observer:
        return self._session.telemetry.apart if self._apart else self._session.tracing().observer


class _Seen:
    """A call, and the wish for readings that ends with it."""

    def __init__(self, call: Call, wish: Wish) -> None:
        self._call, self._wish = call, wish

    @property
    def headers(self) -> Mapping[str, str]:
        return self._call.headers

    @property
    def trace_id(self) -> str | None:
        return self._call.trace_id

    @property
    def span_id(self) -> str | None:
        return self._call.span_id

    def end(self, outcome: Outcome) -> None:
        self._wish.close()
        self._call.end(outcome)

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        self._wish.close()
        self._call.fail(error, outcome)

"""The token stream: what a user iterates while a model answers.

One event per token, made as cheaply as Python allows (the engine on a CPU needs every cycle that the client does not
take), and an ending that is always settled: finished, failed, cancelled, interrupted or dropped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType

from ..errors import LlamaError, LoadingError
from ..values import Answer, TokenEvent
from . import failures
from .address import pauses
from .exchange import Exchange
from .transport import Pool, Wire

_READ_BYTES = 65536


class TokenStream:
    """An answer as it comes: iterate :class:`TokenEvent` s, then read :attr:`answer`.

    ``progress`` events tell how far the prompt is (``progress`` 0..1), ``text``, ``reasoning`` and ``tool_call`` carry
    what the model said (``index`` counts them from 0), ``finish`` carries the reason as text, ``usage`` the number of
    output tokens as ``index``, ``error`` the message of the error that is raised next.

    The request is sent when the stream is made. Iterating raises :class:`RequestError` (refused, broken off by the
    server) or :class:`ServerError` (gone); :attr:`answer` then still holds what had arrived. Use it in a ``with``
    block: leaving it, :meth:`cancel`, an interrupt, or dropping the last reference ends the request on the server; one
    that was given a ``conversation`` goes on there, and only :meth:`cancel` ends it.
    """

    def __init__(
        self,
        pool: Pool,
        exchange: Exchange,
        *,
        timeout_s: float,
        loading_wait_s: float,
        on_cancel: Callable[[], None] | None = None,
    ) -> None:
        self._exchange = exchange
        self._on_cancel = on_cancel
        try:
            wire = _sent(pool, exchange, timeout_s)
        except LlamaError as exc:
            exchange.settle("error", exc)
            raise
        except KeyboardInterrupt:
            exchange.settle("interrupted")
            raise
        # The generator must not refer to this object: a loop over a stream without a name holds only the generator,
        # and breaking out of the loop has to end the request at once.
        self._events = _events(exchange, pool, wire, timeout_s, loading_wait_s)

    def __iter__(self) -> Iterator[TokenEvent]:
        return self._events

    def __next__(self) -> TokenEvent:
        return next(self._events)

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exchange.settle("interrupted", abandoned=kind is None or not issubclass(kind, KeyboardInterrupt))
        self.close()

    @property
    def answer(self) -> Answer:
        """The answer; while tokens still come, or after a broken stream, what has arrived (``interrupted``).

        A stream that broke before the server's figures has client-side ones: ``output_tokens`` is the number of
        deltas seen, ``decode_s`` runs from the first to the last of them.
        """
        return self._exchange.answer

    @property
    def id(self) -> str | None:
        """The server's name for the answer, once it has told it; :meth:`LlamaCppClient.end_reasoning` takes it."""
        return self._exchange.reception.response_id

    @property
    def ended(self) -> bool:
        """Whether the request is over, in whatever way."""
        return self._exchange.outcome is not None

    def cancel(self) -> None:
        """End the request now, from any thread; the iterator stops, ``finish_reason`` is ``interrupted``."""
        self._exchange.settle("interrupted")
        if self._on_cancel is not None:
            self._on_cancel()

    def close(self) -> None:
        """End the request as no longer wanted; nothing happens when it is over."""
        self._exchange.settle("interrupted", abandoned=True)
        # "generator already executing": another thread reads; the socket is shut down, so it closes by itself.
        with contextlib.suppress(ValueError):
            self._events.close()


def _sent(pool: Pool, exchange: Exchange, timeout_s: float) -> Wire:
    request = exchange.request
    exchange.sending()
    wire = pool.post(request.method, request.path, exchange.payload, exchange.headers, timeout_s, fresh=True)
    exchange.hang_up, exchange.close = wire.hang_up, wire.close
    return wire


def _events(
    exchange: Exchange, pool: Pool, wire: Wire, timeout_s: float, loading_wait_s: float
) -> Generator[TokenEvent, None, None]:
    broken: BaseException | None = None
    reader = exchange.reader
    try:
        if exchange.outcome is None:
            wire = _opened(exchange, pool, wire, timeout_s, loading_wait_s)
            read, feed = wire.read, reader.feed
            try:
                while not reader.over and (data := read(_READ_BYTES)):
                    events = feed(data)
                    if events:
                        yield from events
                    else:
                        exchange.waited()
            except failures.CONNECTION_ERRORS as exc:
                broken = exc
            exchange.ended(broken)
        exchange.settle()
    except LlamaError as exc:
        if exchange.outcome is not None:  # cancelled meanwhile: the broken connection is our own doing
            return
        if (told := exchange.lost(exc)) is not None:
            yield told
        raise
    except KeyboardInterrupt:
        exchange.settle("interrupted")
        raise
    finally:
        exchange.settle("interrupted", abandoned=True)
        if exchange.close is not None:
            exchange.close(exchange.complete and broken is None)


def _opened(exchange: Exchange, pool: Pool, wire: Wire, timeout_s: float, loading_wait_s: float) -> Wire:
    """The wire on which the answer begins; a loading server is asked again for ``loading_wait_s``."""
    waits = pauses(loading_wait_s)
    while True:
        try:
            try:
                status, kind = wire.open()
                if exchange.accepts(status, kind):
                    wire.stream(timeout_s)
                    return wire
                raise exchange.refusal(status, kind, wire.readable())
            except failures.CONNECTION_ERRORS as exc:
                raise failures.unreachable(exchange.endpoint.url, exc) from exc
        except LoadingError:
            pause = next(waits, None)
            if pause is None or exchange.outcome is not None:
                raise
            wire.close()
            time.sleep(pause)
            wire = _sent(pool, exchange, timeout_s)

"""The token stream of ``async`` code: the synchronous one's exchange, read through httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType, TracebackType
from typing import TYPE_CHECKING, cast

from ..errors import LlamaError, LoadingError, ServerError
from ..values import Answer, TokenEvent
from . import failures
from .address import pauses
from .exchange import Exchange

if TYPE_CHECKING:
    import httpx


class AsyncTokenStream:
    """An answer as it comes, for ``async for``; events, errors and :attr:`answer` as in :class:`TokenStream`.

    The request is sent when the stream is entered or first iterated. Leaving the ``async with`` block, :meth:`cancel`
    and cancelling the task that waits for an event end the request on the server.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        exchange: Exchange,
        *,
        timeout_s: float,
        loading_wait_s: float,
        on_cancel: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._exchange = exchange
        self._on_cancel = on_cancel
        # Neither the receiver nor its generator refers to this object: the last reference to it ends the request.
        self._receiver = _Receiver(http, timeout_s, loading_wait_s)
        self._events = cast("AsyncGeneratorType[TokenEvent, None]", self._receiver.events(exchange))

    def __aiter__(self) -> AsyncIterator[TokenEvent]:
        return self._events

    async def __anext__(self) -> TokenEvent:
        return await anext(self._events)

    async def __aenter__(self) -> AsyncTokenStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, asyncio.CancelledError | KeyboardInterrupt)
        self._exchange.settle("interrupted", abandoned=not stopped)
        await self.aclose()

    @property
    def answer(self) -> Answer:
        """The answer; while tokens still come, or after a broken stream, what has arrived (``interrupted``)."""
        return self._exchange.answer

    @property
    def id(self) -> str | None:
        """The server's name for the answer, once it has told it."""
        return self._exchange.reception.response_id

    @property
    def ended(self) -> bool:
        """Whether the request is over, in whatever way."""
        return self._exchange.outcome is not None

    async def cancel(self) -> None:
        """End the request now, from any task of the loop; the iteration stops, ``finish_reason`` is ``interrupted``."""
        self._exchange.settle("interrupted")
        await self._receiver.close()
        if self._on_cancel is not None:
            await self._on_cancel()

    async def aclose(self) -> None:
        """End the request as no longer wanted; nothing happens when it is over."""
        self._exchange.settle("interrupted", abandoned=True)
        await self._receiver.close()
        if not self._events.ag_running:  # another task that reads ends it by itself
            await self._events.aclose()


class _Receiver:
    """Sends the request of an exchange through httpx and feeds what comes to it."""

    def __init__(self, http: httpx.AsyncClient, timeout_s: float, loading_wait_s: float) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._loading_wait_s = loading_wait_s
        self._response: httpx.Response | None = None

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()

    async def events(self, exchange: Exchange) -> AsyncGenerator[TokenEvent, None]:
        reader = exchange.reader
        broken: BaseException | None = None
        try:
            if exchange.outcome is None:
                response = await self._opened(exchange)
                try:
                    async for data in response.aiter_raw():
                        events = reader.feed(data)
                        for event in events:
                            yield event
                        if not events:
                            exchange.waited()
                        if reader.over:
                            break
                except connection_errors() as exc:
                    broken = exc
                exchange.ended(TimeoutError() if _timed_out(broken) else broken)
            exchange.settle()
        except LlamaError as exc:
            if exchange.outcome is not None:  # cancelled meanwhile: the broken connection is our own doing
                return
            if (told := exchange.lost(exc)) is not None:
                yield told
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            exchange.settle("interrupted")
            raise
        finally:
            exchange.settle("interrupted", abandoned=True)
            await self.close()

    async def _opened(self, exchange: Exchange) -> httpx.Response:
        """The response whose body is the answer; a loading server is asked again."""
        waits = pauses(self._loading_wait_s)
        address = exchange.endpoint.url + exchange.request.path
        while True:
            try:
                exchange.sending()
                asked = self._http.build_request(
                    exchange.request.method, address, content=exchange.payload, headers=exchange.headers
                )
                self._response = response = await asyncio.wait_for(self._http.send(asked, stream=True), self._timeout_s)
                kind = response.headers.get("content-type")
                if exchange.accepts(response.status_code, kind):
                    return response
                raise exchange.refusal(response.status_code, kind, await self._refusal(response))
            except LoadingError:
                if (pause := next(waits, None)) is None or exchange.outcome is not None:
                    raise
                await asyncio.sleep(pause)
            except asyncio.TimeoutError as exc:
                raise failures.unreachable(exchange.endpoint.url, TimeoutError()) from exc
            except connection_errors() as exc:
                raise unreachable(exchange.endpoint.url, exc) from exc

    async def _refusal(self, response: httpx.Response) -> bytes:
        """As much of a refusal as comes, at most 64 KiB."""
        body = b""
        try:
            async for data in response.aiter_raw():
                body += data
                if len(body) >= 65536:
                    break
        except connection_errors():
            return body
        return body


def connection_errors() -> tuple[type[BaseException], ...]:
    """What reading from or writing to a server can raise when the connection is at fault."""
    import httpx

    return httpx.HTTPError, httpx.StreamError, OSError


def dropped(exc: BaseException) -> bool:
    """Whether the connection ended by the server's doing."""
    import httpx

    return isinstance(exc, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)


def _timed_out(exc: BaseException | None) -> bool:
    import httpx

    return isinstance(exc, httpx.TimeoutException | TimeoutError)


def unreachable(url: str, exc: BaseException) -> ServerError:
    """The synchronous client's words for the same: httpx hides the cause two errors deep."""
    if _timed_out(exc):
        return failures.unreachable(url, TimeoutError())
    found: OSError | None = None
    cause: BaseException | None = exc
    while cause is not None:  # the deepest says it: what lies above is httpx's and anyio's packing
        found = cause if isinstance(cause, OSError) else found
        several = getattr(cause, "exceptions", ())
        cause = several[0] if several else cause.__cause__ or cause.__context__
    return failures.unreachable(url, found or (ConnectionError() if dropped(exc) else exc))

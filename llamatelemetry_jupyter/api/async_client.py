"""The same client for ``async`` code: every method of :class:`.client.LlamaCppClient`, awaited, over httpx.

Requests, decoding, errors, accounts and observation are the synchronous client's own; only sending differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..errors import LoadingError
from ..values import Answer, CallObserver, ServerHandle
from . import ask, failures, generate
from .address import CONNECT_TIMEOUT_S, IDLE_S, Endpoint, pauses
from .async_stream import AsyncTokenStream, connection_errors, dropped, unreachable
from .bind import method
from .client import QUICK_S
from .exchange import Exchange, watched
from .request import Generation, Request
from .results import ModelEvent
from .sse import EventParser, EventSizeError

P = ParamSpec("P")
T = TypeVar("T")


def _whole(asked: Callable[P, Request[T]]) -> Callable[Concatenate[AsyncLlamaCppClient, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncLlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(asked(*args, **kwargs))

    return method(asked, call)  # type: ignore[no-any-return]


def _stream(asked: Callable[P, Generation]) -> Callable[Concatenate[AsyncLlamaCppClient, P], AsyncTokenStream]:
    def call(self: AsyncLlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> AsyncTokenStream:
        return self.stream(asked(*args, **kwargs))

    return method(asked, call, "Returns an :class:`AsyncTokenStream`: use it in an ``async with`` block.")  # type: ignore[no-any-return]


def _answer(
    asked: Callable[P, Generation],
) -> Callable[Concatenate[AsyncLlamaCppClient, P], Coroutine[Any, Any, Answer]]:
    async def call(self: AsyncLlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> Answer:
        async with self.stream(asked(*args, **kwargs)) as stream:
            async for _ in stream:
                pass
        return stream.answer

    return method(asked, call, "Returns the whole :class:`Answer`.")  # type: ignore[no-any-return]


class AsyncLlamaCppClient:
    """A client of one server for one event loop; parameters and methods as for :class:`LlamaCppClient`.

    Use it in an ``async with`` block, or call :meth:`aclose`. A task that is cancelled while it waits ends its request
    on the server.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        observer: CallObserver | None = None,
        timeout_s: float = 600.0,
        server: str | None = None,
        *,
        model: str | None = None,
        loading_wait_s: float = 60.0,
    ) -> None:
        import httpx

        self._endpoint = Endpoint.parse(url, api_key)
        self._http = httpx.AsyncClient(
            trust_env=False,
            headers={"Accept-Encoding": "identity"},  # events are read as they come
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            # As many connections as requests: a queue of llama.cpp's own is where they belong.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=IDLE_S),
        )
        self.observer = observer
        self.timeout_s = timeout_s
        self.loading_wait_s = loading_wait_s
        self.server = server
        self.model = model

    @classmethod
    def of(cls, handle: ServerHandle, observer: CallObserver | None = None) -> AsyncLlamaCppClient:
        """A client of a running server."""
        model = handle.model.id if handle.model is not None else None
        return cls(handle.url, handle.api_key, observer, server=handle.name, model=model)

    def __repr__(self) -> str:
        return f"AsyncLlamaCppClient({self.url!r})"

    async def __aenter__(self) -> AsyncLlamaCppClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """The server's base URL."""
        return self._endpoint.url

    chat = _answer(generate.chat)
    chat_stream = _stream(generate.chat)
    complete = _answer(generate.complete)
    complete_stream = _stream(generate.complete)
    infill = _answer(generate.infill)
    infill_stream = _stream(generate.infill)
    respond = _answer(generate.respond)
    respond_stream = _stream(generate.respond)
    message = _answer(generate.message)
    message_stream = _stream(generate.message)
    resume = _stream(generate.resume)
    conversations = _whole(ask.conversations)
    forget = _whole(ask.forget)
    end_reasoning = _whole(ask.end_reasoning)

    embed = _whole(ask.embed)
    embeddings = _whole(ask.embeddings)
    embed_tokens = _whole(ask.embed_tokens)
    rerank = _whole(ask.rerank)
    transcribe = _whole(ask.transcribe)
    decide = _whole(ask.decide)

    tokenize = _whole(ask.tokenize)
    pieces = _whole(ask.pieces)
    detokenize = _whole(ask.detokenize)
    apply_template = _whole(ask.apply_template)
    count_tokens = _whole(ask.count_tokens)
    count_response_tokens = _whole(ask.count_response_tokens)
    count_message_tokens = _whole(ask.count_message_tokens)

    health = _whole(ask.health)
    props = _whole(ask.props)
    set_props = _whole(ask.set_props)
    slots = _whole(ask.slots)
    metrics = _whole(ask.metrics)
    models = _whole(ask.models)
    slot_save = _whole(ask.slot_save)
    slot_restore = _whole(ask.slot_restore)
    slot_erase = _whole(ask.slot_erase)
    lora_adapters = _whole(ask.lora_adapters)
    set_lora = _whole(ask.set_lora)

    load_model = _whole(ask.load_model)
    unload_model = _whole(ask.unload_model)
    download_model = _whole(ask.download_model)
    delete_model = _whole(ask.delete_model)
    request = _whole(ask.request)

    async def model_events(self) -> AsyncGenerator[ModelEvent, None]:
        """What happens to a router's models, as it happens, for as long as it is iterated."""
        feed = EventParser().feed
        address = self._endpoint.url + ask.MODEL_EVENTS
        try:
            async with self._http.stream("GET", address, headers=self._endpoint.headers("application/json")) as got:
                if got.status_code >= 400:
                    raise failures.refused(got.status_code, await got.aread())
                async for data in got.aiter_raw():
                    for payload in feed(data):
                        yield ask.model_event(payload)
        except EventSizeError as exc:
            raise failures.malformed("the server sends no end of event", b"") from exc
        except connection_errors() as exc:
            raise unreachable(self.url, exc) from exc

    async def send(self, request: Request[T]) -> T:
        """The result of any :class:`Request`."""
        if request.known:
            return request.known[0]
        if request.first is not None:
            before, check = request.first
            check(await self.send(before))
        content_type, payload = request.payload(self.model)
        timeout_s = self.timeout_s if request.slow else min(QUICK_S, self.timeout_s)
        waits = pauses(self.loading_wait_s)
        with watched(self._endpoint, request, self.observer, self.model) as watch:
            headers = self._endpoint.headers(content_type, watch.headers)
            while True:
                status, content = await self._call(request, payload, headers, timeout_s)
                try:
                    return watch.answer(request, status, content)
                except LoadingError:
                    if request.while_loading:
                        return request.while_loading[0]
                    if (pause := next(waits, None)) is None:
                        raise
                    await asyncio.sleep(pause)

    async def _call(
        self, request: Request[T], payload: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        address = self._endpoint.url + request.path
        for last in (not request.repeatable, True):
            try:
                # Each read has httpx's own timeout; this one bounds them together.
                return await asyncio.wait_for(self._whole(request.method, address, payload, headers), timeout_s)
            except asyncio.TimeoutError as exc:
                raise failures.unreachable(self.url, TimeoutError()) from exc
            except connection_errors() as exc:
                # The server may have closed a kept connection in the moment in which it was used again.
                if last or not dropped(exc):
                    raise unreachable(self.url, exc) from exc
        raise AssertionError("the last attempt returns or raises")

    async def _whole(
        self, verb: str, address: str, payload: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        got = await self._http.request(verb, address, content=payload, headers=headers)
        return got.status_code, got.content

    def stream(self, generation: Generation) -> AsyncTokenStream:
        """The stream of any :class:`Generation`; it is sent when it is entered or first iterated."""
        exchange = Exchange(
            self._endpoint,
            generation,
            self.observer,
            model=self.model,
            server=self.server,
            timeout_s=self.timeout_s,
        )
        name = generation.conversation
        return AsyncTokenStream(
            self._http,
            exchange,
            timeout_s=self.timeout_s,
            loading_wait_s=self.loading_wait_s,
            on_cancel=None if name is None else lambda: self.send(ask.forget(name)),
        )

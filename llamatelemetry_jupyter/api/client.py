"""llama.cpp's HTTP server from Python: typed results, honest errors, every request observable.

A client may be used from any number of threads; each request has a connection of its own, kept for the next one.
Whole answers travel as streams, too: only then is there a time to first token, progress, and a partial answer when
something breaks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

from ..errors import LoadingError
from ..values import Answer, CallObserver, ServerHandle
from . import ask, failures, generate
from .address import Endpoint, pauses
from .bind import method
from .exchange import Exchange, watched
from .generate import DEFAULT_MAX_TOKENS, Message
from .request import Generation, Request
from .results import ModelEvent
from .sse import EventParser, EventSizeError
from .stream import TokenStream
from .transport import Pool

__all__ = ["DEFAULT_MAX_TOKENS", "QUICK_S", "LlamaCppClient", "Message", "TokenStream"]

P = ParamSpec("P")
T = TypeVar("T")

#: How long an answer may take that needs no model.
QUICK_S = 30.0


def _whole(asked: Callable[P, Request[T]]) -> Callable[Concatenate[LlamaCppClient, P], T]:
    def call(self: LlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(asked(*args, **kwargs))

    return method(asked, call)  # type: ignore[no-any-return]


def _stream(asked: Callable[P, Generation]) -> Callable[Concatenate[LlamaCppClient, P], TokenStream]:
    def call(self: LlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> TokenStream:
        return self.stream(asked(*args, **kwargs))

    return method(asked, call, "Returns a :class:`TokenStream`: use it in a ``with`` block.")  # type: ignore[no-any-return]


def _answer(asked: Callable[P, Generation]) -> Callable[Concatenate[LlamaCppClient, P], Answer]:
    def call(self: LlamaCppClient, *args: P.args, **kwargs: P.kwargs) -> Answer:
        with self.stream(asked(*args, **kwargs)) as stream:
            for _ in stream:
                pass
        return stream.answer

    return method(asked, call, "Returns the whole :class:`Answer`.")  # type: ignore[no-any-return]


class LlamaCppClient:
    """A client of one server at ``url``; ``observer`` is told of every request that generates or embeds.

    ``server`` and ``model`` are names for answers and traces; ``model`` is also sent where a request names none.
    ``timeout_s`` bounds the wait for each next event of an answer, not the whole answer; ``loading_wait_s`` how long a
    server that loads its model is asked again. All methods raise :class:`ServerError` when the server cannot be reached
    and :class:`RequestError` when it refuses: :class:`UnauthorizedError`, :class:`LoadingError`,
    :class:`ContextFullError` and :class:`NotSupportedError` are kinds of it.
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
        self._endpoint = Endpoint.parse(url, api_key)
        self._pool = Pool(self._endpoint)
        self.observer = observer
        self.timeout_s = timeout_s
        self.loading_wait_s = loading_wait_s
        self.server = server
        self.model = model

    @classmethod
    def of(cls, handle: ServerHandle, observer: CallObserver | None = None) -> LlamaCppClient:
        """A client of a running server."""
        model = handle.model.id if handle.model is not None else None
        return cls(handle.url, handle.api_key, observer, server=handle.name, model=model)

    def __repr__(self) -> str:
        return f"LlamaCppClient({self.url!r})"

    def __enter__(self) -> LlamaCppClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for later requests; the client stays usable."""
        self._pool.close()

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

    def model_events(self) -> Iterator[ModelEvent]:
        """What happens to a router's models, as it happens, for as long as it is iterated."""
        headers = self._endpoint.headers("application/json")
        wire = self._pool.post("GET", ask.MODEL_EVENTS, None, headers, self.timeout_s, fresh=True)
        try:
            status, _ = wire.open()
            if status >= 400:
                raise failures.refused(status, wire.readable())
            wire.stream(self.timeout_s)
            feed = EventParser().feed
            while data := wire.read(65536):
                for payload in feed(data):
                    yield ask.model_event(payload)
        except EventSizeError as exc:
            raise failures.malformed("the server sends no end of event", b"") from exc
        except failures.CONNECTION_ERRORS as exc:
            raise failures.unreachable(self.url, exc) from exc
        finally:
            wire.close()

    def send(self, request: Request[T]) -> T:
        """The result of any :class:`Request`."""
        if request.known:
            return request.known[0]
        if request.first is not None:
            before, check = request.first
            check(self.send(before))
        content_type, payload = request.payload(self.model)
        timeout_s = self.timeout_s if request.slow else min(QUICK_S, self.timeout_s)
        waits = pauses(self.loading_wait_s)
        with watched(self._endpoint, request, self.observer, self.model) as watch:
            headers = self._endpoint.headers(content_type, watch.headers)
            while True:
                status, content = self._pool.call(
                    request.method, request.path, payload, headers, timeout_s=timeout_s, repeatable=request.repeatable
                )
                try:
                    return watch.answer(request, status, content)
                except LoadingError:
                    if request.while_loading:
                        return request.while_loading[0]
                    if (pause := next(waits, None)) is None:
                        raise
                    time.sleep(pause)

    def stream(self, generation: Generation) -> TokenStream:
        """The stream of any :class:`Generation`."""
        exchange = Exchange(
            self._endpoint,
            generation,
            self.observer,
            model=self.model,
            server=self.server,
            timeout_s=self.timeout_s,
        )
        name = generation.conversation
        return TokenStream(
            self._pool,
            exchange,
            timeout_s=self.timeout_s,
            loading_wait_s=self.loading_wait_s,
            on_cancel=None if name is None else lambda: self.send(ask.forget(name)),
        )

"""The token stream: what a user iterates while a model answers.

One event per token, made as cheaply as Python allows (the engine on a CPU needs every cycle that the client does not
take), and an ending that is always settled: finished, failed, cancelled, interrupted or dropped.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Literal, cast

from .. import clock
from ..errors import LlamaError
from ..values import Answer, CallObserver, TokenEvent
from . import failures
from .exchange import Exchange, Request
from .sse import EventParser, EventSizeError
from .transport import Endpoint


def _decoder() -> Callable[[bytes], Any]:
    # Twice as fast where it is installed; json is always there.
    for name in ("orjson", "json"):
        with contextlib.suppress(ImportError):
            return cast("Callable[[bytes], Any]", importlib.import_module(name).loads)
    raise ImportError("json")


_loads = _decoder()
# recv of more than 128 KiB maps and unmaps memory on every call: five times the cost of parsing the token.
_READ_BYTES = 65536


class TokenStream:
    """An answer as it comes: iterate :class:`TokenEvent` s, then read :attr:`answer`.

    ``progress`` events tell how far the prompt is (``progress`` 0..1), ``text``, ``reasoning`` and ``tool_call`` carry
    what the model said (``index`` counts them from 0), ``finish`` carries the reason as text, ``usage`` the number of
    output tokens as ``index``, ``error`` the message of the error that is raised next.

    The request is sent when the stream is made. Iterating raises :class:`RequestError` (refused, broken off by the
    server) or :class:`ServerError` (gone); :attr:`answer` then still holds what had arrived. Use it in a ``with``
    block: leaving it, :meth:`cancel`, an interrupt, or dropping the last reference ends the request on the server.
    """

    def __init__(self, endpoint: Endpoint, request: Request, observer: CallObserver | None, timeout_s: float) -> None:
        self._exchange = Exchange(endpoint, request, observer, timeout_s)
        # The generator must not refer to this object: a loop over a stream without a name holds only the generator,
        # and breaking out of the loop has to end the request at once.
        self._events = _events(self._exchange)

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
    def ended(self) -> bool:
        """Whether the request is over, in whatever way."""
        return self._exchange.outcome is not None

    def cancel(self) -> None:
        """End the request now, from any thread; the iterator stops, ``finish_reason`` is ``interrupted``."""
        self._exchange.settle("interrupted")

    def close(self) -> None:
        """End the request as no longer wanted; nothing happens when it is over."""
        self._exchange.settle("interrupted", abandoned=True)
        # "generator already executing": another thread reads; the socket is shut down, so it closes by itself.
        with contextlib.suppress(ValueError):
            self._events.close()


def _events(exchange: Exchange) -> Generator[TokenEvent, None, None]:
    now_ns, loads, keep = clock.now_ns, _loads, exchange.request.keep_events
    texts, times, kept = exchange.texts, exchange.times, exchange.events
    try:
        for payload in _payloads(exchange):
            if payload == b"[DONE]":
                break
            now = now_ns()
            try:
                chunk = loads(payload)
            except ValueError as exc:
                raise failures.malformed("the stream holds something that is not JSON", payload) from exc
            text = _plain_text(chunk)
            if text:
                event = TokenEvent(now, "text", text, len(times))
                texts.append(text)
                times.append(now)
                if keep:
                    kept.append(event)
                yield event
                continue
            for event in _decoded(exchange, chunk, payload, now):
                if keep:
                    kept.append(event)
                yield event
            if chunk.get("stop") is True:  # the native format has no [DONE]
                break
        exchange.settle(exchange.finish_reason or "stop")
    except LlamaError as exc:
        if exchange.outcome is not None:  # cancelled meanwhile: the broken connection is our own doing
            return
        exchange.fail(exc)
        if times or exchange.progress:
            yield TokenEvent(now_ns(), "error", error=str(exc))
        raise
    except KeyboardInterrupt:
        exchange.settle("interrupted")
        raise
    finally:
        exchange.settle("interrupted", abandoned=True)
        exchange.close()


def _payloads(exchange: Exchange) -> Iterator[bytes]:
    if exchange.outcome is not None:
        return
    response = exchange.open()
    read, feed = response.read1, EventParser().feed
    broken: BaseException | None = None
    try:
        while data := read(_READ_BYTES):
            yield from feed(data)
    except failures.CONNECTION_ERRORS as exc:
        broken = exc
    except EventSizeError as exc:
        raise failures.malformed("the server sends no end of event", data) from exc
    if exchange.finish_reason is None:
        raise failures.broken(exchange.endpoint.url, broken, len(exchange.times)) from broken


def _plain_text(chunk: Any) -> str | None:
    """The text of a chunk that carries nothing else: nearly all of them."""
    try:
        choice = chunk["choices"][0]
        delta = choice["delta"]
        text = delta["content"]
        if (
            len(delta) == 1
            and len(choice) == 3
            and choice["finish_reason"] is None
            and type(text) is str
            and "usage" not in chunk
            and "timings" not in chunk
        ):
            return text
    except (KeyError, IndexError, TypeError):
        pass
    return None


def _decoded(exchange: Exchange, chunk: Any, payload: bytes, now: int) -> list[TokenEvent]:
    """All events of any chunk, its figures noted; raises what the server reports."""
    try:
        if error := chunk.get("error"):
            known = error if isinstance(error, dict) else {"message": error}
            raise failures.reported(known, wanted_tokens=exchange.request.max_tokens)
        exchange.note(chunk)
        events = []
        if progress := chunk.get("prompt_progress"):
            events.append(TokenEvent(now, "progress", progress=exchange.note_progress(progress)))
        elif "choices" not in chunk:
            events += _native(exchange, chunk, now)
        for choice in chunk.get("choices") or ():
            events += _choice(exchange, choice, now)
        if chunk.get("usage") or chunk.get("timings"):
            events.append(TokenEvent(now, "usage", index=exchange.answer.output_tokens))
        return events
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as exc:
        raise failures.malformed("the stream holds an event of unknown form", payload) from exc


def _choice(exchange: Exchange, choice: Any, now: int) -> Iterator[TokenEvent]:
    """Events of a choice of the chat or the OpenAI completion format."""
    delta = choice.get("delta") or {}
    # vLLM says reasoning where llama.cpp says reasoning_content.
    if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
        exchange.reasoning.append(_text(reasoning))
        yield _token(exchange, now, "reasoning", reasoning)
    if content := delta.get("content") or choice.get("text"):
        exchange.texts.append(_text(content))
        logprobs = (choice.get("logprobs") or {}).get("content") or [{}]
        known = logprobs[0]
        yield _token(exchange, now, "text", content, token_id=known.get("id"), logprob=known.get("logprob"))
    for part in delta.get("tool_calls") or ():
        function = part.get("function") or {}
        call = exchange.tools.setdefault(int(part.get("index", 0)), {"id": "", "name": "", "arguments": ""})
        call["id"] += part.get("id") or ""
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""
        yield _token(exchange, now, "tool_call", function.get("arguments") or function.get("name") or "")
    if reason := choice.get("finish_reason"):
        exchange.note_finish(_text(reason))
        yield TokenEvent(now, "finish", _text(reason))


def _native(exchange: Exchange, chunk: Any, now: int) -> Iterator[TokenEvent]:
    """Events of a chunk of llama.cpp's own ``/completion``."""
    if content := chunk.get("content"):
        exchange.texts.append(_text(content))
        tokens = chunk.get("tokens") or [None]
        probabilities = chunk.get("completion_probabilities") or [{}]
        yield _token(exchange, now, "text", content, token_id=tokens[0], logprob=probabilities[0].get("logprob"))
    if chunk.get("stop"):
        exchange.note_finish(_text(chunk.get("stop_type", "stop")))
        yield TokenEvent(now, "finish", exchange.finish_reason or "stop")


def _token(
    exchange: Exchange,
    now: int,
    kind: Literal["text", "reasoning", "tool_call"],
    text: str,
    *,
    token_id: int | None = None,
    logprob: float | None = None,
) -> TokenEvent:
    exchange.times.append(now)
    return TokenEvent(now, kind, text, len(exchange.times) - 1, token_id, logprob)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value

"""One decoded event of any of llama.cpp's streaming formats → token events; figures go to the :class:`Reception`.

Chat, OpenAI's completion, llama.cpp's own completion, Responses and Anthropic's Messages are told apart by their form,
so a stream that is resumed or comes from another server needs no format named. Fields of unknown form raise the usual
``TypeError`` or ``KeyError``, which the caller turns into an error that shows the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..values import Alternative, TokenEvent, TokenKind
from . import failures
from .reception import Reception, count

_FIGURES = frozenset(("error", "usage", "timings", "prompt_progress"))


def plain_text(chunk: Any) -> str | None:
    """The text of a chunk that carries nothing else: nearly all of them."""
    try:
        if not _FIGURES.isdisjoint(chunk):
            return None
        if "choices" in chunk:
            (choice,) = chunk["choices"]
            if choice["finish_reason"] is not None:
                return None
            delta = choice.get("delta")
            if delta is None:
                text = None if choice.get("logprobs") else choice["text"]
            else:
                text = delta["content"] if len(delta) == 1 and len(choice) == 3 else None
        elif chunk["type"] == "response.output_text.delta":
            text = chunk["delta"]
        elif chunk["type"] == "content_block_delta" and chunk["delta"]["type"] == "text_delta":
            text = chunk["delta"]["text"]
        else:
            return None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None
    return text if type(text) is str else None


def decoded(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    """All events of any chunk, its figures noted; raises what the server reports."""
    kind = chunk.get("type")
    if error := chunk.get("error"):
        raise failures.reported(error if isinstance(error, dict) else {"message": error}, wanted_tokens=into.limit)
    if isinstance(kind, str) and "choices" not in chunk:
        if kind == "error":
            raise failures.reported({"message": chunk.get("message"), "code": chunk.get("code")})
        into.note({"timings": chunk.get("timings")})
        if progress := chunk.get("prompt_progress"):
            yield into.note_progress(progress, now)
        if handler := _TYPED.get(kind):
            yield from handler(chunk, into, now)
        return
    into.note(chunk)
    if usage := chunk.get("usage"):
        into.usage = _openai_usage(usage)
    if progress := chunk.get("prompt_progress"):
        yield into.note_progress(progress, now)
    elif "choices" not in chunk:
        yield from _native(chunk, into, now)
    for choice in chunk.get("choices") or ():
        yield from _choice(choice, into, now)
    if chunk.get("usage") or chunk.get("timings"):
        yield _usage(into, now)


def _usage(into: Reception, now: int) -> TokenEvent:
    return TokenEvent(now, "usage", index=into.accounts(now)[2])


def _openai_usage(usage: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")), count(cached)


def _choice(choice: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    """Events of a choice of the chat or the OpenAI completion format."""
    delta = choice.get("delta") or {}
    content, known = delta.get("content") or choice.get("text"), (choice.get("logprobs") or {}).get("content") or []
    # vLLM says reasoning where llama.cpp says reasoning_content.
    if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
        yield from _tokens(_text(reasoning), [] if content else known, into, now, kind="reasoning")
    if content:
        yield from _tokens(_text(content), known, into, now)
    for part in delta.get("tool_calls") or ():
        function = part.get("function") or {}
        yield _tool(
            int(part.get("index", 0)), into, now, part.get("id"), function.get("name"), function.get("arguments")
        )
    if reason := choice.get("finish_reason"):
        yield into.note_finish(_text(reason), now)


def _tokens(
    content: str,
    known: list[Any],
    into: Reception,
    now: int,
    ids: list[Any] | None = None,
    kind: TokenKind = "text",
) -> Iterator[TokenEvent]:
    """One event per token where the server says which they are and they make up the text; one event otherwise."""
    pieces = [_text(one["token"]) for one in known]
    if len(known) > 1 and "".join(pieces) == content:
        for piece, one in zip(pieces, known, strict=True):
            yield _known(kind, piece, one, into, now)
    elif known:
        yield _known(kind, content, known[-1], into, now)
    else:
        yield into.token(now, kind, content, count(ids[-1]) if ids else None)


def _known(kind: TokenKind, text: str, token: Mapping[str, Any], into: Reception, now: int) -> TokenEvent:
    others = tuple(
        Alternative(_text(one["token"]), float(one["logprob"]), count(one.get("id")), _bytes(one.get("bytes")))
        for one in token.get("top_logprobs") or ()
        if one.get("logprob") is not None
    )
    logprob = token.get("logprob")
    return into.token(
        now, kind, text, count(token.get("id")), None if logprob is None else float(logprob), alternatives=others
    )


def _bytes(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, list) else None


def _tool(
    key: object,
    into: Reception,
    now: int,
    identity: str | None = None,
    name: str | None = None,
    arguments: str | None = None,
) -> TokenEvent:
    call = into.tools.setdefault(key, {"id": "", "name": "", "arguments": ""})
    call["id"] += identity or ""
    call["name"] += name or ""
    call["arguments"] += arguments or ""
    return into.token(now, "tool_call", _text(arguments or name or ""))


def _native(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    """Events of a chunk of llama.cpp's own ``/completion``, which has no ``[DONE]``."""
    if content := chunk.get("content"):
        yield from _tokens(_text(content), chunk.get("completion_probabilities") or [], into, now, chunk.get("tokens"))
    if chunk.get("stop"):
        into.done = True
        yield into.note_finish(_text(chunk.get("stop_type", "stop")), now)


# ------------------------------------------------------------------------------------------------- OpenAI's Responses


def _delta(kind: TokenKind) -> Callable[[Any, Reception, int], Iterator[TokenEvent]]:
    def handler(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
        if text := _text(chunk["delta"]):
            yield into.token(now, kind, text)

    return handler


def _response_began(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:  # noqa: ARG001 (one signature)
    into.note(chunk["response"])
    yield from ()


def _item_added(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    item = chunk["item"]
    if item.get("type") == "function_call":
        yield _tool(item.get("id") or item.get("call_id"), into, now, item.get("call_id"), item["name"])


def _arguments(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    key = chunk.get("item_id")
    # llama.cpp names the item of a call differently here and where it began: there is only one open at a time.
    yield _tool(key if key in into.tools else next(reversed(into.tools), key), into, now, arguments=chunk["delta"])


def _response_ended(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    response = chunk["response"]
    into.note(response)
    into.done = True
    if response.get("status") == "failed":
        raise failures.reported(response.get("error") or {"message": "the response failed"})
    usage = response.get("usage") or {}
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
    into.usage = count(usage.get("input_tokens")), count(usage.get("output_tokens")), count(cached)
    output_tokens = into.accounts(now)[2] or 0
    # llama.cpp says "completed" at the token limit, too.
    if response.get("status") == "incomplete" or 0 < into.limit <= output_tokens:
        reason = "length"
    else:
        reason = "tool_calls" if into.tools else "stop"
    yield into.note_finish(reason, now)
    yield _usage(into, now)


# ------------------------------------------------------------------------------------------------ Anthropic's Messages


def _message_start(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:  # noqa: ARG001 (one signature)
    message = chunk["message"]
    into.note(message)
    usage = message.get("usage") or {}
    new, cached = count(usage.get("input_tokens")), count(usage.get("cache_read_input_tokens"))
    into.usage = (None if new is None else new + (cached or 0), None, cached)
    yield from ()


def _block_start(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    block = chunk["content_block"]
    if block.get("type") == "tool_use":
        yield _tool(int(chunk["index"]), into, now, block["id"], block["name"])


def _block_delta(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    delta = chunk["delta"]
    kind = delta["type"]
    if kind == "text_delta" and delta["text"]:
        yield into.token(now, "text", _text(delta["text"]))
    elif kind == "thinking_delta" and delta["thinking"]:
        yield into.token(now, "reasoning", _text(delta["thinking"]))
    elif kind == "input_json_delta":
        yield _tool(int(chunk["index"]), into, now, arguments=delta["partial_json"])


def _message_delta(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:
    usage = chunk.get("usage") or {}
    into.usage = (into.usage[0], count(usage.get("output_tokens")), into.usage[2])
    if reason := (chunk.get("delta") or {}).get("stop_reason"):
        yield into.note_finish(_text(reason), now)
    if usage:
        yield _usage(into, now)


def _message_stop(chunk: Any, into: Reception, now: int) -> Iterator[TokenEvent]:  # noqa: ARG001 (one signature)
    into.done = True
    yield from ()


_TYPED: Mapping[str, Callable[[Any, Reception, int], Iterator[TokenEvent]]] = {
    "response.created": _response_began,
    "response.output_text.delta": _delta("text"),
    "response.reasoning_text.delta": _delta("reasoning"),
    "response.reasoning_summary_text.delta": _delta("reasoning"),
    "response.output_item.added": _item_added,
    "response.function_call_arguments.delta": _arguments,
    "response.completed": _response_ended,
    "response.incomplete": _response_ended,
    "response.failed": _response_ended,
    "message_start": _message_start,
    "content_block_start": _block_start,
    "content_block_delta": _block_delta,
    "message_delta": _message_delta,
    "message_stop": _message_stop,
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value

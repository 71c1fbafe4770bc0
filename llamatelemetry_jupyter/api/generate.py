"""Every request whose answer is streamed: its parameters and what is sent; see :mod:`.ask` for all others.

The limit of an answer is always sent: llama.cpp's own default is to go on until the context is full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import urlencode

from ..errors import CommandError
from ..values import JSON
from .request import Generation

Message = Mapping[str, JSON]

#: The answer's limit when none is given; llama.cpp's own default is to go on until the context is full.
DEFAULT_MAX_TOKENS = 512
# Other servers' and formats' names for the limit: one of them beside ours could lift it.
_LIMITS = ("n_predict", "max_completion_tokens", "max_output_tokens")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")


def chat(
    messages: Sequence[Message],
    *,
    model: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    parse_json: bool = False,
    keep_events: bool | None = None,
    conversation: JSON = None,
    **options: JSON,
) -> Generation:
    """The answer to ``messages`` (``{"role", "content"}``); ``options`` are the server's own.

    ``temperature``, ``top_p``, ``seed``, ``stop``, ``response_format``, ``grammar``, ``tools``, ``logprobs`` and every
    other field of llama.cpp's chat request pass as they are; ``None`` leaves the server's default. ``parse_json`` fills
    ``Answer.parsed``, ``keep_events`` fills ``Answer.tokens`` (left out: when ``logprobs`` are asked for).
    ``conversation`` names the answer so that it goes on when the connection ends: see ``resume`` and ``forget``.
    Content with pictures or sound: :mod:`llamatelemetry_jupyter.api.parts`.
    """
    body = _body({"messages": plain_messages(messages)}, options)
    body["max_tokens"] = _positive(max_tokens)
    body["stream_options"] = {"include_usage": True}
    keep = bool(options.get("logprobs")) if keep_events is None else keep_events
    named = None if conversation is None else conversation_name(conversation)
    return Generation("chat", "/v1/chat/completions", body, model, max_tokens, parse_json, keep, named)


def complete(
    prompt: str | Sequence[int],
    *,
    model: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    parse_json: bool = False,
    keep_events: bool | None = None,
    openai: bool = False,
    **options: JSON,
) -> Generation:
    """The continuation of raw text or token ids, without a chat template; events carry token ids.

    ``openai`` asks at ``/v1/completions``, which other servers have, too; ``n_probs`` (with ``openai``: ``logprobs``)
    asks for probabilities. Otherwise as for ``chat``.
    """
    if not isinstance(prompt, str) and not all(isinstance(one, int) for one in prompt):
        raise CommandError("a prompt is one text or a list of token ids", hint="one request per prompt")
    given: JSON = prompt if isinstance(prompt, str) else list(prompt)
    body = _body({"prompt": given}, options)
    keep = bool(options.get("n_probs") or options.get("logprobs")) if keep_events is None else keep_events
    if openai:
        body["max_tokens"] = _positive(max_tokens)
        body["stream_options"] = {"include_usage": True}
        return Generation("text_completion", "/v1/completions", body, model, max_tokens, parse_json, keep)
    body["n_predict"] = _positive(max_tokens)
    body.setdefault("return_tokens", True)
    return Generation("text_completion", "/completion", body, model, max_tokens, parse_json, keep)


def infill(
    prefix: str,
    suffix: str,
    *,
    prompt: str = "",
    extra: Sequence[Mapping[str, JSON]] = (),
    model: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    keep_events: bool = False,
    **options: JSON,
) -> Generation:
    """What belongs between ``prefix`` and ``suffix``, from a code model that was trained to fill in.

    ``prompt`` is the beginning of what is filled in; ``extra`` are other files: ``{"filename", "text"}``.
    """
    content: dict[str, JSON] = {"input_prefix": prefix, "input_suffix": suffix, "prompt": prompt}
    content["input_extra"] = [dict(one) for one in extra]
    body = _body(content, options)
    body["n_predict"] = _positive(max_tokens)
    return Generation("text_completion", "/infill", body, model, max_tokens, keep_events=keep_events)


def respond(
    input: str | Sequence[Message],  # noqa: A002 (OpenAI's word)
    *,
    model: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    parse_json: bool = False,
    keep_events: bool = False,
    **options: JSON,
) -> Generation:
    """The answer in OpenAI's Responses format: ``input`` is text or items, ``instructions`` the system prompt.

    The format does not tell the token limit from an end of the model's own: an answer of ``max_tokens`` is ``length``.
    """
    body = _body({"input": input if isinstance(input, str) else plain_messages(input)}, options)
    body["max_output_tokens"] = _positive(max_tokens)
    return Generation("chat", "/v1/responses", body, model, max_tokens, parse_json, keep_events)


def message(
    messages: Sequence[Message],
    *,
    model: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    parse_json: bool = False,
    keep_events: bool = False,
    **options: JSON,
) -> Generation:
    """The answer in Anthropic's Messages format; ``system`` is the system prompt, ``stop_sequences`` end it."""
    body = _body({"messages": plain_messages(messages)}, options)
    body["max_tokens"] = _positive(max_tokens)
    return Generation("chat", "/v1/messages", body, model, max_tokens, parse_json, keep_events)


def resume(conversation: str, *, offset: int = 0, keep_events: bool = False) -> Generation:
    """The answer of a ``conversation``, from its beginning (or from a byte ``offset``) and on until its end.

    The server keeps up to 4 MiB of it, for 5 minutes after its end. Nobody is told of this request a second time: it
    generates nothing.
    """
    query = urlencode({"conv_id": conversation_name(conversation), "from": offset})
    return Generation(None, f"/v1/stream?{query}", keep_events=keep_events, method="GET")


def _body(content: Mapping[str, JSON], options: Mapping[str, JSON]) -> dict[str, JSON]:
    if options.get("n", 1) not in (1, None):
        raise CommandError("a stream holds one answer", hint="one request per answer")
    for name in _LIMITS:
        if name in options:
            raise CommandError(f"the limit of an answer is max_tokens, not {name}", hint="max_tokens=512")
    body: dict[str, JSON] = {"cache_prompt": True, "return_progress": True}
    body.update({name: value for name, value in options.items() if value is not None})
    body.update(content)
    body["stream"] = True
    return body


def plain_messages(messages: Sequence[Message]) -> list[JSON]:
    """``messages`` as JSON; raises :class:`CommandError` for one message, or a text, in place of a list."""
    if isinstance(messages, str | Mapping):
        raise CommandError("messages are a list", hint='[{"role": "user", "content": "Hello"}]')
    return [dict(message) if isinstance(message, Mapping) else cast("JSON", message) for message in messages]


def _positive(max_tokens: int) -> int:
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise CommandError(f"max_tokens must be at least 1, not {max_tokens}", hint="--max-tokens 512")
    return max_tokens


def conversation_name(name: JSON) -> str:
    """``name``, when it can be sent as a header; raises :class:`CommandError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CommandError(f"a conversation's name is 1 to 200 visible ASCII characters, not {name!r}", hint='"cell-7"')
    return name

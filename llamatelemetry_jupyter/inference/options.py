"""The options of a request in the field's words, written once: every call that asks a model takes these.

llama.cpp passes over a field that it does not know, so a misspelt option would change nothing and say nothing. Here
every name is known and every value is checked before anything is sent; what has no name here goes through ``fields``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..errors import CommandError
from ..values import JSON


class Options(TypedDict, total=False):
    """Of every request. ``None`` or leaving an option out leaves the choice to the server."""

    #: The model to ask, where a server has several.
    model: str | None
    #: ≥ 0; 0 always takes the likeliest token.
    temperature: float | None
    #: 0..1: only the likeliest tokens whose probabilities add up to this.
    top_p: float | None
    #: ≥ 0: only so many of the likeliest tokens; 0 takes all.
    top_k: int | None
    #: 0..1: only tokens at least this likely, relative to the likeliest.
    min_p: float | None
    #: 0..2³²−1; the same seed repeats an answer.
    seed: int | None
    #: ≥ 1; 512 when left out: llama.cpp itself goes on until the context is full.
    max_tokens: int | None
    #: One text or several at which the answer ends; they are not part of it.
    stop: str | Sequence[str] | None
    #: A JSON schema that the answer follows; its value is then in ``Answer.parsed``.
    json_schema: Mapping[str, JSON] | None
    #: A grammar in llama.cpp's GBNF that the answer follows.
    grammar: str | None
    #: > 0; above 1, tokens that came lately are less likely.
    repeat_penalty: float | None
    #: −2..2, as OpenAI defines it.
    presence_penalty: float | None
    #: −2..2, as OpenAI defines it.
    frequency_penalty: float | None
    #: Go on until ``max_tokens`` whatever the model says (for measurements).
    ignore_eos: bool | None
    #: Whether the server may reuse what its slot knows of the prompt already (it does).
    cache_prompt: bool | None
    #: Keep the stream's events in ``Answer.tokens``.
    keep_events: bool
    #: Any other fields of the server's request, as they are.
    fields: Mapping[str, JSON] | None


class ChatOptions(Options, total=False):
    """Of a request that goes through the model's chat template."""

    #: Said before a prompt that brings no system message of its own.
    system: str | None
    #: Descriptions of functions that the model may ask for; :meth:`InferenceEngine.run_tools` writes them.
    tools: Sequence[Mapping[str, JSON]] | None
    #: ``auto``, ``none`` or ``required``.
    tool_choice: str | None
    #: Each token's id and log probability, in ``Answer.tokens``.
    logprobs: bool | None
    #: ≥ 1, with ``logprobs``: so many of the likeliest tokens at each place, too (20).
    top_logprobs: int | None
    #: Values for the model's chat template, such as ``{"enable_thinking": False}``.
    chat_template_kwargs: Mapping[str, JSON] | None


_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, math.inf),
    "top_p": (0, 1),
    "top_k": (0, math.inf),
    "min_p": (0, 1),
    "seed": (0, 2**32 - 1),
    "max_tokens": (1, math.inf),
    "top_logprobs": (1, math.inf),
    "repeat_penalty": (math.ulp(0.0), math.inf),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_WHOLE = frozenset({"top_k", "seed", "max_tokens", "top_logprobs"})


def chat_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for :meth:`LlamaCppClient.chat_stream`; raises CommandError for what cannot be meant."""
    asked = _checked(options, ChatOptions.__optional_keys__)
    schema = asked.pop("json_schema", None)
    if schema is not None:
        form = {"name": "answer", "strict": True, "schema": dict(schema)}
        asked |= {"response_format": {"type": "json_schema", "json_schema": form}, "parse_json": True}
    return asked


def completion_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for :meth:`LlamaCppClient.complete_stream`; raises CommandError for what cannot be meant."""
    asked = _checked(options, Options.__optional_keys__)
    if "json_schema" in asked:
        asked["parse_json"] = True
    return asked


def _checked(options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    for name in options:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            chat_only = name in ChatOptions.__optional_keys__
            said = "is for chat, which has a template" if chat_only else "is not known"
            raise CommandError(
                f"option {name!r} {said}", hint=f"{near[0]}=…" if near else f'fields={{"{name}": …}} sends it as it is'
            )
    asked = {name: value for name, value in options.items() if value is not None}
    for name, (low, high) in _RANGES.items():
        if name in asked:
            _in_range(name, asked[name], low, high)
    if isinstance(stop := asked.get("stop"), str):
        asked["stop"] = [stop]
    elif stop is not None:
        asked["stop"] = list(stop)
    for name in ("json_schema", "chat_template_kwargs", "fields"):
        if name in asked and not isinstance(asked[name], Mapping):
            kind = type(asked[name]).__name__
            raise CommandError(f"{name} must be a dict, not {kind}", hint=f'{name}={{"…": …}}')
    if "json_schema" in asked and "grammar" in asked:
        raise CommandError("an answer follows a JSON schema or a grammar, not both", hint="leave one of them out")
    return {**asked.pop("fields", {}), **asked}


def _in_range(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int if name in _WHOLE else int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        kind = "a whole number" if name in _WHOLE else "a number"
        allowed = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        if name == "repeat_penalty":
            allowed = "above 0"
        raise CommandError(f"{name} must be {kind} {allowed}, not {value!r}", hint="%llama chat --help")

"""A text as the model's tokenizer cuts it, and an answer as the model wrote it: token by token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import LlamaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..api.client import LlamaCppClient
    from ..api.results import Piece
    from ..values import Alternative, Answer, TokenEvent
    from .engine import InferenceEngine

# Every control token that a GGUF file in use has: <|im_end|>, <s>, [INST], <｜end｜>.
_BRACKETED = re.compile(r"[<\[].+[>\]]", re.DOTALL)
_MOST_NAMES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its id and bytes; ``text`` is ``None`` where these are no whole characters. ``special``: no text.

    Of an answer: ``logprob``, the natural logarithm of its probability, and ``alternatives``, the likeliest tokens at
    its place. ``whole`` is false where it is the last of several that make up ``text``, and the figures are its own.
    What the server does not tell is ``None``.
    """

    id: int | None
    bytes: bytes
    text: str | None
    special: bool = False
    logprob: float | None = None
    alternatives: tuple[Token, ...] = ()
    whole: bool = True


def cut(engine: InferenceEngine, text: str, *, chat: bool = False) -> tuple[Token, ...]:
    """The tokens of ``text``; with ``chat`` those of the whole prompt that the chat template makes of it.

    As the server reads a prompt: control tokens that are written out (``<|im_end|>``) are control tokens.
    """
    client = engine.client
    said = client.apply_template(engine.messages(text)) if chat else text
    if not said:
        return ()
    pieces = client.pieces(said, add_special=chat)
    special = _special(client, pieces)
    return tuple(Token(one.id, one.bytes, one.text, one.id in special) for one in pieces)


def _special(client: LlamaCppClient, pieces: Iterable[Piece]) -> frozenset[int]:
    """The ids that the same text, read as plain text, would not give: the server has no list of control tokens."""
    seen = {one.id: one.text for one in pieces if one.text and _BRACKETED.fullmatch(one.text)}
    return frozenset(i for i, text in seen.items() if client.tokenize(text, parse_special=False) != [i])


def written(answer: Answer, client: LlamaCppClient | None = None) -> tuple[Token, ...]:
    """The tokens of an answer whose events were kept: of its text, and of what it thought before.

    Control tokens among the alternatives have no text in an answer; ``client`` is asked for their names.
    """
    tokens = tuple(_written(one) for one in answer.tokens if one.kind in ("text", "reasoning"))
    return _named(tokens, client) if client is not None else tokens


def _written(event: TokenEvent) -> Token:
    others = tuple(_other(one) for one in event.alternatives)
    raw = event.text.encode("utf-8", "surrogatepass")
    own = next((one for one in others if one.id == event.token_id and event.token_id is not None), None)
    whole = own is None or own.bytes == raw
    return Token(event.token_id, raw, event.text, logprob=event.logprob, alternatives=others, whole=whole)


def _other(one: Alternative) -> Token:
    raw = one.text.encode("utf-8", "surrogatepass") if one.bytes is None else one.bytes
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return Token(one.token_id, raw, None, logprob=one.logprob)
    return Token(one.token_id, raw, text, logprob=one.logprob)


def _named(tokens: tuple[Token, ...], client: LlamaCppClient) -> tuple[Token, ...]:
    names: dict[int, str] = {}
    try:
        for token_id in _nameless(tokens):
            names[token_id] = client.detokenize([token_id])
    except LlamaError:  # another kind of server, or it has ended: the ids still say which they are
        return tokens

    def named(one: Token) -> Token:
        name = names.get(one.id) if one.id is not None and not one.bytes else None
        return replace(one, bytes=name.encode(), text=name, special=True) if name else one

    return tuple(replace(one, alternatives=tuple(map(named, one.alternatives))) for one in tokens)


def _nameless(tokens: tuple[Token, ...]) -> Iterator[int]:
    found = dict.fromkeys(o.id for one in tokens for o in one.alternatives if o.id is not None and not o.bytes)
    yield from list(found)[:_MOST_NAMES]

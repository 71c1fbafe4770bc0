"""A text as the model's tokenizer cuts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..api.client import LlamaCppClient
    from ..api.results import Piece
    from .engine import InferenceEngine

# Every control token that a GGUF file in use has: <|im_end|>, <s>, [INST], <｜end｜>.
_BRACKETED = re.compile(r"[<\[].+[>\]]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its id and bytes; ``text`` is ``None`` where these are no whole characters. ``special``: no text."""

    id: int
    bytes: bytes
    text: str | None
    special: bool = False


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

"""Prompts and answers as span attributes: only when the user says so, as valid JSON, and never more than 8 kB."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..values import JSON
from . import privacy, semconv

_MAX_CHARACTERS = 8192


def captured() -> bool:
    """Whether content goes on spans: see :mod:`.privacy`."""
    return privacy.captured()


def request(body: Mapping[str, JSON]) -> str | None:
    """A request's messages, or its prompt as one message of the user, in the conventions' form."""
    messages = body.get("messages")
    if isinstance(messages, list):
        said = [(str(m.get("role", "")), _said(m.get("content"))) for m in messages if isinstance(m, dict)]
        return _json(semconv.INPUT_MESSAGES, said)
    prompt = body.get("prompt", body.get("input"))
    return None if prompt is None else _json(semconv.INPUT_MESSAGES, [("user", _said(prompt))])


def answer(text: str) -> str:
    """The answer as one message of the assistant."""
    return _json(semconv.OUTPUT_MESSAGES, [("assistant", text)])


def tool(arguments: str, result: str) -> dict[str, str]:
    """What a tool was given and what came of it, as attributes."""
    said = {semconv.TOOL_CALL_ARGUMENTS: arguments, semconv.TOOL_CALL_RESULT: result}
    return {name: may for name, value in said.items() if (may := privacy.text(name, value)) is not None}


def _said(content: JSON) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [str(p["text"]) if isinstance(p, dict) and "text" in p else json.dumps(p) for p in content]
        return "\n".join(parts)
    return "" if content is None else json.dumps(content)


def _json(name: str, messages: list[tuple[str, str]]) -> str:
    """The messages as JSON; the newest are kept whole, older ones are cut when all would be too long.

    Secrets are masked before anything is cut: half a key is still half a key.
    """
    messages = [(role, privacy.text(name, text) or "") for role, text in messages]
    limit = _MAX_CHARACTERS
    while True:
        left = limit
        kept: list[dict[str, JSON]] = []
        for role, text in reversed(messages):
            cut = text if len(text) <= left else text[: max(0, left)] + "…truncated"
            kept.append({"role": role[:32], "parts": [{"type": "text", "content": cut}]})
            left -= len(text)
            if left <= 0:
                break
        encoded = json.dumps(kept[::-1], ensure_ascii=False)
        if len(encoded) <= _MAX_CHARACTERS or limit < 2:
            return encoded
        limit //= 2  # escapes and frames take room, too

"""A recorded request as a command for a shell: the same question to the same server, without its key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..telemetry import semconv
from ..telemetry.wire import plain
from ..values import JSON, SpanRow

_HOST = re.compile(r"[\w.:\[\]-]{1,260}", re.ASCII)
_TRUNCATED = "…truncated"
_PATHS = {
    "chat": "/v1/chat/completions",
    "text_completion": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
_OPTIONS = {"stream": semconv.REQUEST_STREAM} | {
    option: name for option, name in semconv.REQUEST_OPTIONS.items() if option not in ("n_predict", "max_output_tokens")
}


class Curl(NamedTuple):
    """``prompt``: ``whole``, ``part`` or ``none``, by how much of it was recorded; then a placeholder stands there."""

    command: str
    prompt: str


def curl(row: SpanRow) -> Curl | None:
    """The command that asks the same; ``None`` where the span is no request to a model.

    The key is ``$KEY``, for the reader to set. All of it is printable ASCII in single quotes, whatever the span says.
    """
    operation = str(row.attributes.get(semconv.OPERATION_NAME))
    path = _PATHS.get(operation)
    if path is None:
        return None
    said = _messages(row.attributes)
    options = {option: row.attributes[name] for option, name in _OPTIONS.items() if name in row.attributes}
    body = plain({"model": row.model or "MODEL", **_asked(operation, said), **options})
    data = json.dumps(body).replace("\x7f", "\\u007f")
    host = row.server if row.server and _HOST.fullmatch(row.server) else "HOST:PORT"
    command = " \\\n  ".join(
        (
            f"curl {_quoted(f'http://{host}{path}')}",
            "-H 'Content-Type: application/json'",
            '-H "Authorization: Bearer $KEY"',
            f"-d {_quoted(data)}",
        )
    )
    if operation == "rerank":
        return Curl(command, "none")
    cut = said is not None and any(one["content"].endswith(_TRUNCATED) for one in said)
    return Curl(command, "none" if said is None else "part" if cut else "whole")


def _asked(operation: str, said: list[dict[str, str]] | None) -> dict[str, object]:
    """What was asked, or words that stand for it."""
    if operation == "chat":
        return {"messages": said or [{"role": "user", "content": "PROMPT"}]}
    if operation == "rerank":
        return {"query": "QUERY", "documents": ["DOCUMENT"]}
    text = said[0]["content"] if said else "PROMPT"
    return {"input" if operation == "embeddings" else "prompt": text}


def _messages(attributes: Mapping[str, JSON]) -> list[dict[str, str]] | None:
    """The messages as they were sent, where they were recorded in the conventions' form."""
    recorded: Any = attributes.get(semconv.INPUT_MESSAGES)
    try:
        messages = json.loads(recorded) if isinstance(recorded, str) else recorded
        found = [
            {"role": str(one["role"]), "content": "\n".join(str(part["content"]) for part in one["parts"])}
            for one in messages
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found or None


def _quoted(text: str) -> str:
    """One word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"

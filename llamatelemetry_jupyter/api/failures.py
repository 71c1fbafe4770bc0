"""What a user reads when a server refuses, breaks off or cannot be reached: one place for messages and remedies.

llama.cpp answers errors as ``{"error": {"code", "message", "type"}}``, before the first token as an HTTP status and
afterwards as an event of the stream; other servers put plain text or HTML there. Whatever they say is shown escaped
and shortened.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping
from typing import TypeGuard

from .. import escape
from ..errors import (
    ContextFullError,
    LoadingError,
    NotSupportedError,
    RequestError,
    ServerError,
    UnauthorizedError,
)
from ..values import JSON

_SHOWN = 300
_FLAG = re.compile(r"`(--[a-z][a-z-]{1,40})`")

#: What reading from or writing to a server can raise when the connection is at fault.
CONNECTION_ERRORS = (OSError, http.client.HTTPException)


def quoted(text: object) -> str:
    """A server's words on one line, harmless and at most 300 characters."""
    line = " ".join(escape.plain(text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def refused(status: int, body: bytes, *, wanted_tokens: int = 0) -> RequestError:
    """The error of an HTTP status ≥ 400; ``wanted_tokens`` is the answer's limit, for a context that fits both."""
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    error = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(error, Mapping):
        return reported(error, status=status, wanted_tokens=wanted_tokens)
    text = error if isinstance(error, str) else body[:2000].decode("utf-8", "replace")
    return reported({"message": text}, status=status, wanted_tokens=wanted_tokens)


def reported(error: Mapping[str, JSON], *, status: int | None = None, wanted_tokens: int = 0) -> RequestError:
    """The error of a server's ``error`` object, from a status or from the middle of a stream."""
    code = error.get("code")
    if status is None and isinstance(code, int):
        status = code
    kind = error.get("type")
    kind = quoted(kind) if isinstance(kind, str) else None
    text = quoted(error.get("message") or f"status {status}")
    error_class, message, hint = _explained(status, kind, text, error, wanted_tokens)
    return error_class(message, hint=hint, status=status, kind=kind)


def _explained(
    status: int | None, kind: str | None, text: str, error: Mapping[str, JSON], wanted_tokens: int
) -> tuple[type[RequestError], str, str]:
    lowered = text.lower()
    if kind == "exceed_context_size_error":
        return ContextFullError, *_too_large(text, error, wanted_tokens)
    if "context size has been exceeded" in lowered:
        return (
            ContextFullError,
            "the context is full: requests that ran together needed more than the server holds",
            "%llama start --ctx 8192 --restart, or send fewer requests at a time",
        )
    if status == 401:
        return UnauthorizedError, "the server did not accept the API key", "%llama attach URL --api-key KEY"
    if status == 403:
        return (
            NotSupportedError,
            f"the server has this switched off: {text}",
            "use a server that offers it: %llama attach URL",
        )
    if status == 404:
        return (
            RequestError,
            f"the server does not know this address or model: {text}",
            "%llama status, and compare URL and model",
        )
    if status == 503 and "loading" in lowered:
        return (
            LoadingError,
            "the server is still loading its model",
            "wait until %llama status says ready, then run the cell again",
        )
    if status == 503:
        return (
            RequestError,
            f"the server is busy: {text}",
            "run the cell again, or %llama start --slots 4 --restart",
        )
    if status == 501:
        flag = _FLAG.search(text)
        remedy = f"%llama start {flag[1]} --restart" if flag else "use a model that can do it: %llama start MODEL"
        return NotSupportedError, f"this server cannot do that: {text}", remedy
    if "pooling" in lowered:
        return (
            RequestError,
            f"the server was started without pooling: {text}",
            "%llama start --embeddings --pooling mean --restart",
        )
    if "grammar" in lowered or "schema" in lowered:
        return (
            RequestError,
            f"the server cannot follow this JSON schema or grammar: {text}",
            "simplify the schema given as json_schema",
        )
    if status is not None and 400 <= status < 500:
        return RequestError, f"the server refused the request: {text}", "correct the option or message that it names"
    return RequestError, f"the server failed: {text}", "%llama logs"


def _too_large(text: str, error: Mapping[str, JSON], wanted_tokens: int) -> tuple[str, str]:
    prompt, context = error.get("n_prompt_tokens"), error.get("n_ctx")
    if not _count(prompt) or not _count(context):
        return f"the prompt is larger than a slot's context: {text}", "%llama start --ctx 8192 --restart"
    return (
        f"the prompt has {prompt} tokens, but a slot's context holds {context}",
        f"%llama start --ctx {fitting_context(prompt + wanted_tokens)} --restart",
    )


def _count(value: JSON) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def fitting_context(tokens: int) -> int:
    """The context to ask for so that ``tokens`` fit: the next power of two, at least 1024."""
    return max(1024, 1 << (tokens - 1).bit_length())


def unreachable(url: str, exc: BaseException) -> ServerError:
    """No connection, or one that ended before an answer began."""
    if isinstance(exc, ConnectionRefusedError):
        why = "connection refused"
    elif isinstance(exc, TimeoutError):
        why = "no answer in time"
    elif isinstance(exc, socket.gaierror):
        why = "unknown host"
    elif isinstance(exc, http.client.RemoteDisconnected | ConnectionError):
        why = "connection closed"
    else:
        why = quoted(exc) or type(exc).__name__
    return ServerError(f"server not reachable at {url} ({why})", hint="%llama start")


def broken(url: str, exc: BaseException | None, received: int) -> ServerError:
    """The connection ended in the middle of an answer of which ``received`` tokens had come."""
    if isinstance(exc, TimeoutError):
        what = f"no data from the server at {url} for too long"
    else:
        what = f"the server at {url} ended in the middle of the answer"
    return ServerError(f"{what}; the {received} tokens received are kept", hint="%llama logs, then %llama start")


def malformed(what: str, sample: bytes) -> RequestError:
    """An answer that does not follow the protocol."""
    shown = quoted(sample[:80].decode("utf-8", "replace"))
    return RequestError(f"{what}: {shown!r}", hint="%llama status (is a llama.cpp server there, or a proxy between?)")

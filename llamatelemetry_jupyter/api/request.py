"""What is asked of a server and how its answer is read, free of any transport: the clients differ in sending only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..errors import CommandError, LlamaError
from ..values import JSON
from . import failures

T = TypeVar("T")
Body = Mapping[str, JSON] | Sequence[JSON]


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """A request with one whole answer; ``decode`` makes the result of the answer's JSON (of its text: ``plain``).

    ``operation``: its GenAI name when it makes the model work, ``None`` for the rest. ``repeatable``: sending it twice
    does what sending it once does. ``slow``: it takes as long as it takes. ``routed``: the body names a model.
    ``first``: a request to send before, and a check of its result. ``known``: the result, when there is nothing to ask.
    ``while_loading``: the result while the server loads; without it the client waits.
    """

    method: str
    path: str
    decode: Callable[[Any], T]
    body: Body | None = None
    upload: tuple[str, bytes] | None = None
    plain: bool = False
    operation: str | None = None
    repeatable: bool = True
    slow: bool = False
    routed: bool = False
    first: tuple[Request[Any], Callable[[Any], None]] | None = None
    known: tuple[T, ...] = ()
    while_loading: tuple[T, ...] = ()

    def payload(self, model: str | None) -> tuple[str, bytes | None]:
        """Content type and bytes to send; ``model`` is the client's own, for requests that name none."""
        if self.upload is not None:
            return self.upload
        return "application/json", None if self.body is None else encode(self.named(model))

    def named(self, model: str | None) -> Body:
        """The body, with the client's model where the request names none."""
        if self.routed and model and isinstance(self.body, Mapping) and "model" not in self.body:
            return {**self.body, "model": model}
        return {} if self.body is None else self.body

    def result(self, status: int, content: bytes) -> tuple[T, Any]:
        """The result and the decoded answer behind it; raises what the server refused or a malformed answer."""
        if status >= 400:
            raise failures.refused(status, content)
        where = self.path.partition("?")[0]
        try:
            data = content.decode("utf-8", "replace") if self.plain else json.loads(content) if content else None
        except (ValueError, RecursionError) as exc:
            raise failures.malformed(f"the answer of {where} is not JSON", content) from exc
        try:
            return self.decode(data), data
        except LlamaError:
            raise
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as exc:
            raise failures.malformed(f"the answer of {where} is not what is expected of it", content) from exc


@dataclass(frozen=True, slots=True)
class Generation:
    """A request with a streamed answer: GenAI ``operation``, route, body, and what to keep of the answer.

    ``conversation`` names a stream that goes on when the connection ends. ``operation`` is ``None`` for a replay, which
    nobody is told of a second time.
    """

    operation: str | None
    path: str
    body: Mapping[str, JSON] = field(default_factory=dict)
    model: str | None = None
    max_tokens: int = 0
    parse_json: bool = False
    keep_events: bool = False
    conversation: str | None = None
    method: str = "POST"

    def named(self, model: str | None) -> Mapping[str, JSON]:
        """The body, with the client's model where the request names none."""
        return {**self.body, "model": name} if (name := self.model or model) else self.body


def encode(body: Body) -> bytes:
    """``body`` as JSON; raises :class:`CommandError` when it holds something that JSON cannot say."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise CommandError(
            f"a message or option cannot be sent as JSON: {exc}", hint="use text, numbers, lists and dicts"
        ) from exc

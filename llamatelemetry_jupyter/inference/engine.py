"""The engine that users talk to: a prompt and options in the field's words, an :class:`Answer` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..api.client import DEFAULT_MAX_TOKENS, LlamaCppClient, Message
from ..api.stream import TokenStream
from ..errors import CommandError
from ..values import JSON, Answer, CallObserver, ServerHandle, TokenEvent


class InferenceEngine:
    """Chat with the model of a server: ``InferenceEngine(handle).chat("Why is the sky blue?")``.

    ``server`` is a :class:`ServerHandle` (kept as :attr:`handle`), a URL or a :class:`LlamaCppClient`; ``system`` is
    said before every prompt that brings no system message of its own. :attr:`last` keeps the newest answer of
    :meth:`chat`, also the part that had come when it was interrupted or broke.
    """

    def __init__(
        self,
        server: ServerHandle | LlamaCppClient | str,
        observer: CallObserver | None = None,
        system: str | None = None,
    ) -> None:
        if isinstance(server, LlamaCppClient):
            self.client = server
        elif isinstance(server, ServerHandle):
            self.client = LlamaCppClient.of(server, observer)
        else:
            self.client = LlamaCppClient(server, observer=observer)
        self.handle = server if isinstance(server, ServerHandle) else None
        self.system = system
        self.last: Answer | None = None

    def chat(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        seed: int | None = None,
        json_schema: Mapping[str, JSON] | None = None,
        stop: str | Sequence[str] | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        on_event: Callable[[TokenEvent], None] | None = None,
        keep_events: bool = False,
        **options: JSON,
    ) -> Answer:
        """The whole answer; ``on_event`` sees each event as it comes, in this thread.

        An interrupt ends the request on the server and is raised again; an error is raised; :attr:`last` then holds
        the partial answer. Options as for :meth:`stream`.
        """
        self.last = None
        stream = self.stream(
            prompt,
            model=model,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            json_schema=json_schema,
            stop=stop,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            keep_events=keep_events,
            **options,
        )
        try:
            with stream:
                for event in stream:
                    if on_event is not None:
                        on_event(event)
        finally:
            self.last = answer = stream.answer
        return answer

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        seed: int | None = None,
        json_schema: Mapping[str, JSON] | None = None,
        stop: str | Sequence[str] | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        keep_events: bool = False,
        **options: JSON,
    ) -> TokenStream:
        """The answer as a stream of events.

        ``prompt`` is text or a list of ``{"role", "content"}``; ``temperature`` ≥ 0 (0: always the likeliest token);
        ``seed`` repeats an answer; ``json_schema`` forces the form of the answer, which is then in ``Answer.parsed``;
        ``stop`` ends it at these texts; further ``options`` are fields of llama.cpp's chat request. ``None`` leaves the
        server's default. Raises :class:`CommandError` for a value that cannot be meant.
        """
        _in_range("temperature", temperature, 0, math.inf)
        _in_range("top_p", top_p, 0, 1)
        _in_range("min_p", min_p, 0, 1)
        _in_range("top_k", top_k, 0, math.inf)
        _in_range("seed", seed, 0, 2**32 - 1)
        _in_range("max_tokens", max_tokens, 1, math.inf)
        return self.client.chat_stream(
            self._messages(prompt, system),
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            seed=seed,
            stop=[stop] if isinstance(stop, str) else list(stop) if stop is not None else None,
            response_format=_response_format(json_schema),
            parse_json=json_schema is not None,
            keep_events=keep_events,
            **options,
        )

    def _messages(self, prompt: str | Sequence[Message], system: str | None) -> list[Message]:
        messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise CommandError(
                    f"a message needs a role and a content, this one is a {type(message).__name__}",
                    hint='engine.chat([{"role": "user", "content": "Hello"}])',
                )
        if not any(_says_something(message) for message in messages):
            raise CommandError("the prompt is empty", hint="%%llama, and the prompt in the lines below")
        spoken = system if system is not None else self.system
        if spoken and messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": spoken})
        return messages


def _says_something(message: Message) -> bool:
    content = message.get("content")
    return bool(content.strip()) if isinstance(content, str) else bool(content or message.get("tool_calls"))


def _in_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high):
        return
    allowed = f"at least {low}" if high == math.inf else f"between {low} and {high}"
    raise CommandError(f"{name} must be a number {allowed}, not {value!r}", hint="%llama chat --help")


def _response_format(schema: Mapping[str, JSON] | None) -> JSON:
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise CommandError(
            f"json_schema must be a dict, not {type(schema).__name__}", hint='json_schema={"type": "object", …}'
        )
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}

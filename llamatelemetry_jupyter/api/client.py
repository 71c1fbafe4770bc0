"""llama.cpp's HTTP server from Python: typed results, honest errors, every request observable.

Each call opens its own connection, so a client may be used from any number of threads. Whole answers travel as streams
too: only then is there a time to first token, progress, and a partial answer when something breaks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from .. import clock
from ..errors import CommandError, RequestError
from ..values import JSON, Answer, CallObserver, Outcome, ServerHandle, Timings
from . import failures
from .exchange import Request
from .results import Metrics, ModelInfo, Props, Slot
from .stream import TokenStream
from .transport import Endpoint

Message = Mapping[str, JSON]

#: The answer's limit when none is given; llama.cpp's own default is to go on until the context is full.
DEFAULT_MAX_TOKENS = 512
_QUICK_S = 30.0


class LlamaCppClient:
    """A client of one server at ``url``; ``observer`` is told of every request that generates or embeds.

    ``server`` and ``model`` are names for answers and traces. ``timeout_s`` bounds the wait for each next byte of an
    answer, not the whole answer. All methods raise :class:`ServerError` when the server cannot be reached and
    :class:`RequestError` when it refuses.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        observer: CallObserver | None = None,
        timeout_s: float = 600.0,
        server: str | None = None,
        *,
        model: str | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(url, api_key)
        self.observer = observer
        self.timeout_s = timeout_s
        self.server = server
        self.model = model

    @classmethod
    def of(cls, handle: ServerHandle, observer: CallObserver | None = None) -> LlamaCppClient:
        """A client of a running server."""
        model = handle.model.id if handle.model is not None else None
        return cls(handle.url, handle.api_key, observer, server=handle.name, model=model)

    def __repr__(self) -> str:
        return f"LlamaCppClient({self.url!r})"

    @property
    def url(self) -> str:
        """The server's base URL."""
        return self._endpoint.url

    # ------------------------------------------------------------------------------------------------ text generation

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        parse_json: bool = False,
        keep_events: bool = False,
        **options: JSON,
    ) -> TokenStream:
        """The answer to ``messages`` (``{"role", "content"}``) as a stream; ``options`` are the server's own.

        ``temperature``, ``top_p``, ``seed``, ``stop``, ``response_format``, ``tools``, ``logprobs`` and every other
        field of llama.cpp's chat request pass as they are; ``None`` leaves the server's default. ``parse_json`` fills
        ``Answer.parsed``, ``keep_events`` fills ``Answer.tokens``.
        """
        body = self._body({"messages": _plain(messages)}, options, model)
        body["max_tokens"] = _positive(max_tokens)
        body["stream_options"] = {"include_usage": True}
        return self._stream("chat", "/v1/chat/completions", body, parse_json=parse_json, keep_events=keep_events)

    def chat(self, messages: Sequence[Message], **options: Any) -> Answer:
        """The whole answer to ``messages``; options as for :meth:`chat_stream`."""
        return _drained(self.chat_stream(messages, **options))

    def complete_stream(
        self,
        prompt: str | Sequence[int],
        *,
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        parse_json: bool = False,
        keep_events: bool = False,
        **options: JSON,
    ) -> TokenStream:
        """The continuation of raw text or token ids as a stream, without a chat template; events carry token ids."""
        given: JSON = prompt if isinstance(prompt, str) else list(prompt)
        body = self._body({"prompt": given}, options, model)
        body["n_predict"] = _positive(max_tokens)
        body.setdefault("return_tokens", True)
        return self._stream("text_completion", "/completion", body, parse_json=parse_json, keep_events=keep_events)

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Answer:
        """The whole continuation of ``prompt``; options as for :meth:`complete_stream`."""
        return _drained(self.complete_stream(prompt, **options))

    def _body(self, content: Mapping[str, JSON], options: Mapping[str, JSON], model: str | None) -> dict[str, JSON]:
        body: dict[str, JSON] = {"cache_prompt": True, "return_progress": True}
        body.update({name: value for name, value in options.items() if value is not None})
        body.update(content)
        body["stream"] = True
        body.setdefault("timings_per_token", False)
        if name := model or self.model:
            body["model"] = name
        return body

    def _stream(
        self, operation: str, path: str, body: dict[str, JSON], *, parse_json: bool, keep_events: bool
    ) -> TokenStream:
        model = cast("str | None", body.get("model"))
        limit = cast("int", body.get("max_tokens") or body.get("n_predict"))
        request = Request(operation, path, body, model, self.server, limit, parse_json, keep_events)
        return TokenStream(self._endpoint, request, self.observer, self.timeout_s)

    # ------------------------------------------------------------------------------------------------------ embeddings

    def embeddings(self, texts: str | Sequence[str], *, model: str | None = None) -> list[list[float]]:
        """One vector per text, in order; the server must have been started for embeddings."""
        given: list[JSON] = [texts] if isinstance(texts, str) else list(texts)
        if not given:
            return []
        body: dict[str, JSON] = {"input": given, "encoding_format": "float"}
        if name := model or self.model:
            body["model"] = name
        call = None
        if self.observer is not None:
            host, port = self._endpoint.host, self._endpoint.port
            call = self.observer.start("embeddings", model or self.model, host, port, body)
        sent_ns = clock.now_ns()
        try:
            data = self._json("POST", "/v1/embeddings", body, self.timeout_s, call.headers if call else None)
            vectors, used = _vectors(data)
        except BaseException as exc:
            if call is not None:
                call.fail(exc)
            raise
        if call is not None:
            call.end(Outcome(sent_ns, None, clock.now_ns(), None, None, data.get("model"), used, None, Timings()))
        return vectors

    # ---------------------------------------------------------------------------------------------- tokens, templates

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``."""
        body: dict[str, JSON] = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return [int(token) for token in self._field("POST", "/tokenize", "tokens", body)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self._field("POST", "/detokenize", "content", {"tokens": list(tokens)}))

    def apply_template(self, messages: Sequence[Message], **options: JSON) -> str:
        """The prompt that the model's chat template makes of ``messages``."""
        body: dict[str, JSON] = {**options, "messages": _plain(messages)}
        return str(self._field("POST", "/apply-template", "prompt", body))

    def count_tokens(self, messages: Sequence[Message], **options: JSON) -> int:
        """How many input tokens ``messages`` will cost, chat template included."""
        body: dict[str, JSON] = {**options, "messages": _plain(messages)}
        return int(self._field("POST", "/v1/chat/completions/input_tokens", "input_tokens", body))

    # ------------------------------------------------------------------------------------------------------ the server

    def health(self) -> bool:
        """Whether the server is ready: ``False`` while it loads."""
        try:
            self._endpoint.call("GET", "/health", timeout_s=_QUICK_S)
        except RequestError as exc:
            if exc.status == 503:
                return False
            raise
        return True

    def props(self) -> Props:
        """The loaded model and the server's set-up."""
        return Props.of(self._json("GET", "/props"))

    def slots(self) -> tuple[Slot, ...]:
        """The state of every slot. Wakes a sleeping server: look at ``props().sleeping`` first."""
        return tuple(Slot.of(row) for row in self._json("GET", "/slots"))

    def metrics(self) -> Metrics:
        """Counters and gauges of the server."""
        return Metrics.parse(self._endpoint.call("GET", "/metrics", timeout_s=_QUICK_S).decode("utf-8", "replace"))

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server offers."""
        return tuple(ModelInfo.of(row) for row in self._field("GET", "/v1/models", "data"))

    def _field(self, method: str, path: str, name: str, body: Mapping[str, JSON] | None = None) -> Any:
        data = self._json(method, path, body)
        if not isinstance(data, dict) or name not in data:
            raise failures.malformed(f"the answer of {path} has no {name!r}", json.dumps(data).encode())
        return data[name]

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, JSON] | None = None,
        timeout_s: float = _QUICK_S,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        content = self._endpoint.call(method, path, body, timeout_s=min(timeout_s, self.timeout_s), headers=headers)
        try:
            return json.loads(content)
        except ValueError as exc:
            raise failures.malformed(f"the answer of {path} is not JSON", content) from exc


def _vectors(data: Any) -> tuple[list[list[float]], int | None]:
    try:
        rows = sorted(data["data"], key=lambda row: int(row["index"]))
        used = (data.get("usage") or {}).get("prompt_tokens")
        return [[float(x) for x in row["embedding"]] for row in rows], used
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise failures.malformed("the answer of /v1/embeddings has no vectors", json.dumps(data).encode()) from exc


def _plain(messages: Sequence[Message]) -> list[JSON]:
    return [dict(message) for message in messages]


def _drained(stream: TokenStream) -> Answer:
    with stream:
        for _ in stream:
            pass
    return stream.answer


def _positive(max_tokens: int) -> int:
    if max_tokens < 1:
        raise CommandError(f"max_tokens must be at least 1, not {max_tokens}", hint="--max-tokens 512")
    return max_tokens

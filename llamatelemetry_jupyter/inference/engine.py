"""The engine that users talk to: a prompt and options in the field's words, an :class:`Answer` out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..api.client import LlamaCppClient, Message
from ..errors import CommandError, ServerError
from ..progress import Progress, silent
from ..values import JSON, Answer, CallObserver, ServerHandle, TokenEvent
from .metrics import EngineMetrics, Meter
from .options import chat_request, completion_request

if TYPE_CHECKING:
    from typing import Unpack

    from ..api.stream import TokenStream
    from ..server.process import ServerManager
    from .batch import BatchResult
    from .options import ChatOptions, Options
    from .tools import Approve, Tool, ToolRun

T = TypeVar("T")
_names = (f"engine{number}" for number in itertools.count(1))


class InferenceEngine:
    """Answers of the model of a server: ``InferenceEngine(handle).chat("Why is the sky blue?")``.

    ``server`` is a :class:`ServerHandle` (kept as :attr:`handle`), a URL or a :class:`LlamaCppClient`; without one,
    :meth:`load_model` starts a server that this engine owns, and ends with it: use it in a ``with`` block then.
    ``observer`` is told of every request; ``system`` is said before every prompt that brings no system message of its
    own. :attr:`last` keeps the newest answer, also the part that had come when it was interrupted or broke, and
    :attr:`last_batch` the newest batch. Calls take the options of :class:`~.options.ChatOptions`.
    """

    def __init__(
        self,
        server: ServerHandle | LlamaCppClient | str | None = None,
        observer: CallObserver | None = None,
        system: str | None = None,
    ) -> None:
        self.handle: ServerHandle | None = None
        self.system = system
        self.last: Answer | None = None
        self.last_batch: BatchResult | None = None
        self._client: LlamaCppClient | None = None
        self._manager: ServerManager | None = None
        self._meter = Meter(observer)
        if isinstance(server, LlamaCppClient):
            self._meter = Meter(observer or server.observer)
            self._client = copy.copy(server)  # the user's own goes on telling only the observer that it was given
            self._client.observer = self._meter
        elif server is not None:
            self._connect(server)

    @property
    def client(self) -> LlamaCppClient:
        """The client that sends this engine's requests; raises ServerError while no model is loaded."""
        if self._client is None:
            raise ServerError("no model is loaded", hint='engine.load_model("smollm2-135m")')
        return self._client

    @property
    def observer(self) -> CallObserver:
        """Who is told of this engine's requests, and of the work around them."""
        return self._meter

    # ---------------------------------------------------------------------------------------------- a server of its own

    def load_model(
        self,
        model: str = "smollm2-135m",
        *,
        on_progress: Progress = silent,
        timeout_s: float = 120.0,
        **settings: Any,
    ) -> ServerHandle:
        """The running server, started with ``model`` (a known name or a .gguf file) when it was not.

        ``settings`` are those of :class:`~..server.settings.ServerSettings`. Another model or other settings replace
        the server; the same ones change nothing. Raises CommandError on an engine whose server is somebody else's.
        """
        from ..server.process import ServerManager
        from ..server.settings import ServerSettings

        if self._client is not None and self._manager is None:
            raise CommandError("this engine speaks to a server that it did not start", hint="InferenceEngine()")
        if self._manager is None:
            self._manager = ServerManager(next(_names))
        try:
            wanted = ServerSettings(model=model, **settings)
        except TypeError as error:
            raise CommandError(f"load_model: {error}", hint="help(lt.ServerSettings)") from error
        running = self._manager.start(wanted, on_progress=on_progress, timeout_s=timeout_s)
        if running != self.handle:
            self._connect(running)
        return running

    def unload_model(self) -> None:
        """Stop the server that :meth:`load_model` started; nothing happens when there is none."""
        if self._manager is None:
            if self._client is not None:
                raise CommandError("this engine's server is not its own to stop", hint="%llama stop")
            return
        self._manager.stop()
        self._manager = self._client = self.handle = None

    def __enter__(self) -> InferenceEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._manager is not None:
            self.unload_model()

    def _connect(self, server: ServerHandle | str) -> None:
        if isinstance(server, ServerHandle):
            self.handle = server
            self._client = LlamaCppClient.of(server, self._meter)
        else:
            self._client = LlamaCppClient(server, observer=self._meter)

    # ------------------------------------------------------------------------------------------------------- one answer

    def chat(
        self,
        prompt: str | Sequence[Message],
        *,
        on_event: Callable[[TokenEvent], None] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """The whole answer; ``on_event`` sees each event as it comes, in this thread.

        An interrupt ends the request on the server and is raised again; an error is raised; :attr:`last` then holds
        the partial answer. Prompt and options as for :meth:`stream`.
        """
        self.last = None
        return self._drained(self.stream(prompt, **options), on_event)

    #: The seed's name of :meth:`chat`.
    infer = chat

    def stream(self, prompt: str | Sequence[Message], **options: Unpack[ChatOptions]) -> TokenStream:
        """The answer as a stream of events.

        ``prompt`` is text or a list of ``{"role", "content"}``. Raises :class:`CommandError` for an option that is not
        known or a value that cannot be meant, before anything is sent.
        """
        request = chat_request(options)
        return self.client.chat_stream(self.messages(prompt, request.pop("system", None)), **request)

    def generate(
        self, text: str, *, on_event: Callable[[TokenEvent], None] | None = None, **options: Unpack[Options]
    ) -> Answer:
        """The continuation of raw text, without a chat template: for base models and prompts written token by token."""
        self.last = None
        return self._drained(self.generate_stream(text, **options), on_event)

    def generate_stream(self, text: str, **options: Unpack[Options]) -> TokenStream:
        """The continuation of raw text as a stream of events; each carries its token's id."""
        if not text:
            raise CommandError("there is no text to go on with", hint='engine.generate("Once upon a time")')
        return self.client.complete_stream(text, **completion_request(options))

    def _drained(self, stream: TokenStream, on_event: Callable[[TokenEvent], None] | None) -> Answer:
        try:
            with stream:
                for event in stream:
                    if on_event is not None:
                        on_event(event)
        finally:
            self.last = answer = stream.answer
        return answer

    # --------------------------------------------------------------------------------------------------- many, and more

    def batch_infer(
        self,
        prompts: Sequence[str | Sequence[Message]],
        *,
        parallel: int | None = None,
        progress: bool | Progress = True,
        **options: Unpack[ChatOptions],
    ) -> BatchResult:
        """The answers to many prompts, in their order; see :func:`.batch.run`."""
        from .batch import run

        return run(self, prompts, parallel=parallel, progress=progress, **options)

    @overload
    def structured(
        self, prompt: str | Sequence[Message], form: type[T], *, retries: int = 2, **options: Unpack[ChatOptions]
    ) -> T: ...

    @overload
    def structured(
        self,
        prompt: str | Sequence[Message],
        form: Mapping[str, JSON],
        *,
        retries: int = 2,
        **options: Unpack[ChatOptions],
    ) -> JSON: ...

    def structured(
        self, prompt: str | Sequence[Message], form: Any, *, retries: int = 2, **options: Unpack[ChatOptions]
    ) -> Any:
        """The answer as an object of type ``form``, or as the value of a JSON schema; see :func:`.structured.ask`."""
        from .structured import ask

        return ask(self, prompt, form, retries=retries, **options)

    def run_tools(
        self,
        prompt: str | Sequence[Message],
        functions: Sequence[Tool],
        *,
        max_rounds: int = 8,
        approve: Approve | None = None,
        **options: Unpack[ChatOptions],
    ) -> ToolRun:
        """The answer of a model that may call ``functions``, and the calls that it made; see :func:`.tools.run`."""
        from .tools import run

        return run(self, prompt, functions, max_rounds=max_rounds, approve=approve, **options)

    def get_metrics(self) -> EngineMetrics:
        """Requests, tokens, rates and waiting times of this engine, from whatever thread they came."""
        return self._meter.read()

    def reset_metrics(self) -> None:
        """Count from zero."""
        self._meter.reset()

    # -------------------------------------------------------------------------------------------------------- the parts

    def messages(self, prompt: str | Sequence[Message], system: str | None = None) -> list[Message]:
        """What is sent for ``prompt``, the system prompt first; raises CommandError when it says nothing."""
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

    @property
    def speaks_llama(self) -> bool:
        """Whether the server has llama.cpp's own routes; a URL or a client is taken for one that has."""
        return self.handle is None or self.handle.backend in ("llama.cpp", "router")

    def context(self) -> int | None:
        """Tokens of context that one request gets; ``None`` where the server does not say."""
        if self.handle is not None and self.handle.ctx_per_slot is not None:
            return self.handle.ctx_per_slot
        return self.client.props().ctx_per_slot if self.speaks_llama else None

    def slots(self) -> int:
        """Requests that the server answers at the same time; 1 where it does not say."""
        if self.handle is not None and self.handle.slots is not None:
            return self.handle.slots
        return (self.client.props().slots if self.speaks_llama else None) or 1


def _says_something(message: Message) -> bool:
    content = message.get("content")
    return bool(content.strip()) if isinstance(content, str) else bool(content or message.get("tool_calls"))

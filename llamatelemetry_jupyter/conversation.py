"""A chat as a widget shows it: what was said, and the thread on which the answer of now is written.

Python owns the transcript: a view that comes late, a page that is loaded again and a second tab begin from it. An
answer is written on a thread of its own: the cell that shows the chat has ended, and a kernel that is interrupted goes
on with it; only :meth:`Conversation.stop` ends it. Each answer is a trace of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

from . import escape
from .errors import CommandError, LlamaError
from .observer import CallObserver

if TYPE_CHECKING:
    from .api.stream import TokenStream
    from .inference.chat import Turn
    from .inference.engine import InferenceEngine
    from .session import Session
    from .values import Answer, ServerHandle, TokenEvent

_log = logging.getLogger(__name__)
#: Text is sent this often while it comes: at most this old on its way, and fewer than ten messages a second.
INTERVAL_S = 0.12
#: The synchronised transcript holds about so much text: the oldest turns beyond are left out.
MAX_SHOWN = 200_000
MAX_PROMPT = 100_000
_STOP_S = 2.0

Role = Literal["user", "assistant"]
State = Literal["done", "running", "stopped", "failed"]


@dataclass(slots=True)
class Said:
    """One turn of the transcript; figures are ``None`` while they are not known.

    ``seq`` counts the pieces that ``text`` and ``reasoning`` are made of, ``dropped`` the turns before it that did not
    fit into the context. ``text`` is free of control characters.
    """

    id: int
    role: Role
    text: str
    state: State = "done"
    seq: int = 0
    reasoning: str = ""
    model: str | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    seconds: float | None = None
    ttft_s: float | None = None
    tokens_per_s: float | None = None
    finish_reason: str | None = None
    trace_id: str | None = None
    dropped: int = 0
    error: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Characters of all that is shown of it."""
        return len(self.text) + len(self.reasoning)


class Listener(Protocol):
    """Who shows a conversation; told on any thread, one thing at a time."""

    def changed(self) -> None:
        """Turns were added, have ended or are gone."""
        ...

    def piece(self, message: dict[str, Any]) -> None:
        """Text came: ``{type, turn, seq, text, reasoning, tokens, progress}``; ``seq`` is that of the turn with it."""
        ...


class Conversation:
    """A transcript that is written on with the server ``server`` (a name), or the one that runs ``model``."""

    def __init__(
        self,
        session: Session,
        *,
        model: str | None = None,
        server: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.session = session
        self.turns: list[Said] = []
        self.parameters = {name: value for name, value in (parameters or {}).items() if value is not None}
        self.listener: Listener | None = None
        self._model, self._server = model, server
        self._engine: InferenceEngine | None = None
        self._writing: _Writing | None = None
        self._ids = 0
        self.lock = threading.RLock()

    # ---------------------------------------------------------------------------------------------------- what there is

    def shown(self) -> list[dict[str, Any]]:
        """The newest turns as JSON-safe dicts, as many as fit into the widget's state; questions stay with answers."""
        with self.lock:
            size, first = 0, len(self.turns)
            while first and (size := size + self.turns[first - 1].size) <= MAX_SHOWN:
                first -= 1
            first = min(first, max(0, len(self.turns) - 2))
            if first < len(self.turns) and self.turns[first].role == "assistant":
                first += 1
            return [asdict(one) for one in self.turns[first:]]

    def about(self) -> dict[str, Any]:
        """Who answers, with which parameters: ``{server, model, hint, parameters, omitted}``."""
        with self.lock:
            found: dict[str, Any] = {"server": None, "model": None, "hint": None, "omitted": 0}
            try:
                handle = self._handle()
                found |= {"server": handle.name, "model": escape.plain(handle.model.id) if handle.model else None}
            except LlamaError as error:
                found["hint"] = {"what": escape.plain(error), "hint": error.hint or ""}
            found["omitted"] = len(self.turns) - len(self.shown())
            return found | {"parameters": dict(self.parameters)}

    def turn(self, turn: int) -> dict[str, Any]:
        """The turn of that id as it is now, for a view that has missed a piece."""
        with self.lock:
            return asdict(self.turns[self._position(turn)])

    @property
    def running(self) -> bool:
        """Whether an answer is being written."""
        return self._writing is not None

    # ------------------------------------------------------------------------------------------------------- what to do

    def send(self, text: str, *, at: int | None = None, parameters: Mapping[str, Any] | None = None) -> int:
        """Have ``text`` answered, and return the id of the answer at once.

        ``at``: the id of a turn of the user's, which this one replaces, with all that came after it. Raises
        CommandError for what cannot be meant, and while an answer is being written.
        """
        if not isinstance(text, str) or not text.strip():
            raise CommandError("the prompt is empty", hint="write something first")
        if len(text) > MAX_PROMPT:
            raise CommandError(
                f"the prompt has {len(text):,} characters, {MAX_PROMPT:,} can be sent", hint="shorten it"
            )
        options = _options(self.parameters if parameters is None else parameters)
        with self.lock:
            if self._writing is not None:
                raise CommandError("an answer is being written", hint="stop it first")
            handle = self._handle()
            keep = len(self.turns) if at is None else self._position(at)
            if at is not None and self.turns[keep].role != "user":
                raise CommandError("only what you wrote can be sent again", hint="edit your own turn")
            before = _exchanges(self.turns[:keep])
            del self.turns[keep:]
            self.parameters = options
            model = escape.plain(handle.model.id) if handle.model else None
            self._add("user", text)
            answer = self._add("assistant", "", state="running", model=model)
            self._writing = _Writing(self, answer, self._on(handle), before, text, options)
            self._writing.start()
            self._changed()
            return answer.id

    def stop(self) -> bool:
        """End the answer of now, on the server too; false when there is none."""
        writing = self._writing
        if writing is not None:
            writing.stop()
        return writing is not None

    def clear(self) -> None:
        """Forget what was said; an answer that is being written is ended first."""
        self.close()
        with self.lock:
            self.turns.clear()
            self._changed()

    def close(self) -> None:
        """End the answer of now and wait until its thread has ended, 2 s at most."""
        writing = self._writing
        if writing is not None:
            writing.stop()
            writing.join(_STOP_S)

    # -------------------------------------------------------------------------------------------------------- the parts

    def settled(self, writing: _Writing) -> None:
        """That answer has ended, however."""
        with self.lock:
            if self._writing is writing:
                self._writing = None
            self._changed()

    def _changed(self) -> None:
        if self.listener is not None:
            self.listener.changed()

    def _add(self, role: Role, text: str, **more: Any) -> Said:
        self._ids += 1
        made = Said(self._ids, role, escape.plain(text), **more)
        self.turns.append(made)
        return made

    def _position(self, turn: int) -> int:
        found = next((i for i, one in enumerate(self.turns) if one.id == turn), None)
        if found is None:
            raise CommandError("that turn is not there any more", hint="%llama chat")
        return found

    def _handle(self) -> ServerHandle:
        handle = self.session.engine(self._model, server=self._server).handle
        assert handle is not None  # the session's engines all speak to a server of its own
        return handle

    def _on(self, handle: ServerHandle) -> InferenceEngine:
        """An engine of this conversation's own: what it keeps of the last answer is nobody else's."""
        from .inference.engine import InferenceEngine

        if self._engine is None or self._engine.handle != handle:
            self._engine = InferenceEngine(handle, observer=CallObserver(self.session, apart=True))
        return self._engine


class _Writing(threading.Thread):
    """An answer that is being written: this thread reads, another one sends what came."""

    def __init__(
        self,
        conversation: Conversation,
        turn: Said,
        engine: InferenceEngine,
        before: tuple[Turn, ...],
        text: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(name="llamatelemetry-chat", daemon=True)
        self._conversation, self._turn, self._engine = conversation, turn, engine
        self._before, self._text, self._options = before, text, dict(options)
        self._lock = threading.Lock()
        self._stream: TokenStream | None = None
        self._stopping = False
        self._ended = threading.Event()
        self._news = _News()

    def stop(self) -> None:
        """From any thread: the connection is shut down, which frees the server's slot."""
        with self._lock:
            self._stopping = True
            stream = self._stream
        if stream is not None:
            stream.cancel()

    def run(self) -> None:
        """The whole life of the answer."""
        sender = threading.Thread(target=self._send_on, name="llamatelemetry-chat-sender", daemon=True)
        sender.start()
        begun = time.monotonic()
        answer, error = None, None
        try:
            answer = self._read()
        except LlamaError as refused:
            error = {"what": escape.plain(refused), "hint": refused.hint or ""}
        except Exception as bug:  # noqa: BLE001 (a thread has nobody to raise to; the widget shows it)
            _log.exception("an answer of a chat failed")
            error = {"what": escape.plain(f"{type(bug).__name__}: {bug}"), "hint": "%llama doctor"}
        self._ended.set()
        sender.join()
        if answer is None and self._stream is not None:
            answer = self._stream.answer  # what had come before it broke
        with self._conversation.lock:
            self._flush()
            self._settle(answer, error, time.monotonic() - begun)
            self._conversation.settled(self)

    def _read(self) -> Answer | None:
        from .inference.chat import Chat

        chat = Chat(self._engine)
        chat.turns = self._before
        stream = chat.stream(self._text, **self._options)
        with self._lock:
            self._stream, stopped = stream, self._stopping
        if stopped:
            stream.cancel()
        self._turn.dropped = chat.dropped
        with stream:
            for event in stream:
                self._news.take(event)
        return stream.answer

    def _send_on(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            with self._conversation.lock:
                self._flush()

    def _flush(self) -> None:
        """Under the conversation's lock: a view never gets a piece before the turn, or out of order."""
        if (message := self._news.given()) is None:
            return
        turn = self._turn
        turn.seq += 1
        turn.text += message["text"]
        turn.reasoning += message["reasoning"]
        turn.tokens = message["tokens"]
        if self._conversation.listener is not None:
            self._conversation.listener.piece({"type": "piece", "turn": turn.id, "seq": turn.seq, **message})

    def _settle(self, answer: Answer | None, error: dict[str, str] | None, seconds: float) -> None:
        turn = self._turn
        turn.seconds = seconds
        turn.error = None if self._stopping else error  # a connection that we shut down ourselves may say so
        turn.state = "stopped" if self._stopping else "failed" if error else "done"
        if answer is None:
            return
        turn.tokens, turn.input_tokens = answer.output_tokens, answer.input_tokens
        turn.ttft_s, turn.tokens_per_s = answer.timings.ttft_s, answer.timings.decode_tokens_per_s
        turn.finish_reason, turn.trace_id = answer.finish_reason, answer.trace_id


@dataclass(slots=True)
class _News:
    """What came since it was last given away."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tokens: int = 0
    progress: float | None = None
    _lock: Any = field(default_factory=threading.Lock)
    _new: bool = False

    def take(self, event: TokenEvent) -> None:
        with self._lock:
            if event.kind in ("text", "reasoning"):
                (self.text if event.kind == "text" else self.reasoning).append(event.text)
                self.tokens += 1
            elif event.kind == "progress":
                self.progress = event.progress
            else:
                return
            self._new = True

    def given(self) -> dict[str, Any] | None:
        with self._lock:
            if not self._new:
                return None
            text, reasoning = (escape.plain("".join(parts)) for parts in (self.text, self.reasoning))
            self.text.clear()
            self.reasoning.clear()
            self._new = False
            return {"text": text, "reasoning": reasoning, "tokens": self.tokens or None, "progress": self.progress}


def _options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are set; raises CommandError for one that is not known or cannot be meant."""
    from .inference.options import chat_request

    known = ("temperature", "top_p", "max_tokens", "seed", "system")
    if (strange := sorted(set(parameters) - set(known))) or not isinstance(parameters.get("system", ""), str):
        raise CommandError(f"parameter {(strange or ['system'])[0]!r} cannot be set here", hint=", ".join(known))
    options = {name: value for name, value in parameters.items() if value not in (None, "")}
    chat_request(options)
    return options


def _exchanges(turns: list[Said]) -> tuple[Turn, ...]:
    """Questions with their answers, as far as there are any: half an answer was said, too."""
    from .inference.chat import Turn
    from .values import Answer

    return tuple(
        Turn(asked.text, Answer(said.text, finish_reason="stop"))
        for asked, said in pairwise(turns)
        if asked.role == "user" and said.role == "assistant" and said.text
    )

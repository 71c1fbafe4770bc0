"""A conversation: what was said is kept, and as much of it is sent as the model's context holds.

A turn counts when its answer has ended: an error or an interrupt leaves the conversation as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .. import escape
from ..api.client import DEFAULT_MAX_TOKENS, Message
from ..errors import CommandError
from ..values import JSON, Answer, FinishReason, TokenEvent

if TYPE_CHECKING:
    from typing import Unpack

    from ..api.stream import TokenStream
    from .engine import InferenceEngine
    from .options import ChatOptions

_FORMAT = "llamatelemetry.chat"
_VERSION = 1
_SAVED = ("text", "reasoning", "finish_reason", "input_tokens", "output_tokens", "model", "trace_id", "span_id")


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said (text, or a list of content parts) and what the model answered."""

    user: str | list[JSON]
    answer: Answer


class Chat:
    """A conversation with the model of ``engine``: ``Chat(engine, system="Be brief.").ask("Hello")``.

    ``budget`` bounds the input tokens of a request; otherwise the context does, less the room for the answer. When
    the conversation has outgrown it, the system prompt and the newest turns are sent: :attr:`dropped` says how many of
    the oldest were left out last time. They stay in :attr:`turns` and in what :meth:`save` writes.
    """

    def __init__(self, engine: InferenceEngine, system: str | None = None, *, budget: int | None = None) -> None:
        if budget is not None and (type(budget) is not int or budget < 1):
            raise CommandError(f"budget must be at least 1 token, not {budget!r}", hint="Chat(engine, budget=2048)")
        self.engine = engine
        self.system = system
        self.budget = budget
        self.turns: tuple[Turn, ...] = ()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self.turns)

    def __repr__(self) -> str:
        return f"Chat({len(self)} turn{'s' if len(self) != 1 else ''})"

    def _repr_markdown_(self) -> str:
        said = [("system", self.system)] if self.system else []
        for turn in self.turns:
            user = turn.user if isinstance(turn.user, str) else json.dumps(turn.user, ensure_ascii=False)
            said += [("user", user), ("assistant", turn.answer.text)]
        return "\n\n".join(f"**{role}**\n\n{escape.markdown(text)}" for role, text in said) or "*nothing said yet*"

    @property
    def messages(self) -> list[Message]:
        """The whole conversation as the messages of a request."""
        return self._messages(self.turns)

    # ------------------------------------------------------------------------------------------------------- talking

    def ask(
        self,
        text: str | list[JSON],
        *,
        on_event: Callable[[TokenEvent], None] | None = None,
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """The answer to ``text`` after all that was said before; options as for :meth:`InferenceEngine.chat`."""
        return self._turn(self.turns, text, on_event, options)

    def stream(self, text: str | list[JSON], **options: Unpack[ChatOptions]) -> TokenStream:
        """The answer to ``text`` as a stream, which any thread may end; it becomes no turn by itself."""
        messages, self.dropped = self._request(self.turns, text, options)
        return self.engine.stream(messages, **options)

    def regenerate(
        self, *, on_event: Callable[[TokenEvent], None] | None = None, **options: Unpack[ChatOptions]
    ) -> Answer:
        """Another answer to the newest question; the old one is replaced once the new one has ended."""
        last = self._last()
        return self._turn(self.turns[:-1], last.user, on_event, options)

    def undo(self) -> str | list[JSON]:
        """Take the newest turn back; returns what the user had said."""
        last = self._last()
        self.turns = self.turns[:-1]
        return last.user

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns, self.dropped = (), 0

    def _last(self) -> Turn:
        if not self.turns:
            raise CommandError("nothing was said yet", hint='chat.ask("Hello")')
        return self.turns[-1]

    def _turn(
        self,
        before: tuple[Turn, ...],
        text: str | list[JSON],
        on_event: Callable[[TokenEvent], None] | None,
        options: ChatOptions,
    ) -> Answer:
        self.engine.last = None
        messages, dropped = self._request(before, text, options)
        answer = self.engine.chat(messages, on_event=on_event, **options)
        # Counts from here on: chat() raises for what broke off or was interrupted.
        self.turns = (*before, Turn(text, answer))
        self.dropped = dropped
        return answer

    def _request(
        self, before: tuple[Turn, ...], text: str | list[JSON], options: ChatOptions
    ) -> tuple[list[Message], int]:
        """What is sent, and how many of the oldest turns are left out; takes ``options``' system prompt."""
        if not (text.strip() if isinstance(text, str) else text):
            raise CommandError("the prompt is empty", hint='chat.ask("Hello")')
        if (system := options.pop("system", None)) is not None:
            self.system = system
        now: Message = {"role": "user", "content": text}
        dropped = self._too_many(before, now, options.get("max_tokens") or DEFAULT_MAX_TOKENS)
        return [*self._messages(before[dropped:]), now], dropped

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        said: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in turns:
            said.append({"role": "user", "content": turn.user})
            said.append({"role": "assistant", "content": turn.answer.text})
        return said

    # ------------------------------------------------------------------------------------------------------ the budget

    def _too_many(self, turns: tuple[Turn, ...], now: Message, max_tokens: int) -> int:
        """How many of the oldest turns have to be left out; the server's own tokenizer and template count."""
        if not self.engine.speaks_llama or (not turns and self.budget is None):
            return 0  # nothing can be counted, or nothing left out: the server's own error says it better
        context = self.engine.context()
        limits = [limit for limit in (self.budget, context and context - max_tokens) if limit is not None]
        if not limits:
            return 0
        limit = min(limits)

        def cost(dropped: int) -> int:
            return self.engine.client.count_tokens([*self._messages(turns[dropped:]), now])

        if cost(0) <= limit:
            return 0
        least = cost(len(turns))
        if least > limit:
            raise CommandError(
                f"the prompt is {least:,} tokens, there is room for {max(limit, 0):,}"
                + (f" beside {max_tokens:,} for the answer" if self.budget is None or limit < self.budget else ""),
                hint="a shorter prompt, a smaller max_tokens, or %llama start --ctx N --restart",
            )
        low, high = 1, len(turns)  # the fewest that have to go: fewer turns never cost more
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(middle) <= limit else (middle + 1, high)
        return low

    # -------------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | Path) -> Path:
        """Write the conversation as JSON; an existing file is replaced only when all is written."""
        target = Path(path).expanduser()
        turns = [
            {"user": turn.user, "answer": {name: getattr(turn.answer, name) for name in _SAVED}} for turn in self.turns
        ]
        data = {"format": _FORMAT, "version": _VERSION, "system": self.system, "turns": turns}
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            beside.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            beside.replace(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CommandError(
                f"{target} cannot be written: {error.strerror}", hint='chat.save("chat.json")'
            ) from error
        return target

    @classmethod
    def load(cls, path: str | Path, engine: InferenceEngine, *, budget: int | None = None) -> Chat:
        """The conversation that :meth:`save` wrote, to go on with; raises CommandError for a file that is none."""
        source = Path(path).expanduser()
        try:
            data = json.loads(source.read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandError(
                f"{source} cannot be read: {error.strerror}", hint='Chat.load("chat.json", engine)'
            ) from error
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{source} is not JSON: {error}", hint="a file that chat.save wrote") from error
        chat = cls(engine, budget=budget)
        try:
            chat.system, chat.turns = _checked(data)
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{source} is not a saved conversation: {error}", hint="a file that chat.save wrote"
            ) from error
        return chat


def _checked(data: Any) -> tuple[str | None, tuple[Turn, ...]]:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT}")
    if data.get("version") != _VERSION:
        raise ValueError(f"it has version {data.get('version')!r}, this release reads {_VERSION}")
    system = _of("system", data["system"], str, type(None))
    return system, tuple(_turn(one) for one in _of("turns", data["turns"], list))


def _turn(data: Mapping[str, Any]) -> Turn:
    saved = _of("answer", data["answer"], dict)
    reason: FinishReason = saved["finish_reason"]
    if reason not in get_args(FinishReason):
        raise ValueError(f"finish_reason {reason!r}")
    answer = Answer(
        text=_of("text", saved["text"], str),
        finish_reason=reason,
        reasoning=_of("reasoning", saved.get("reasoning", ""), str),
        **{name: _of(name, saved.get(name), int, type(None)) for name in ("input_tokens", "output_tokens")},
        **{name: _of(name, saved.get(name), str, type(None)) for name in ("model", "trace_id", "span_id")},
    )
    return Turn(_of("user", data["user"], str, list), answer)


def _of(name: str, value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}")
    return value

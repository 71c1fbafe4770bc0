"""Python functions that a model may call: only those that were handed in, with arguments that were checked.

A function's signature and docstring are all that is needed: they become the description that the model reads. What
goes wrong in a call (an unknown name, arguments that do not fit, an exception) goes back to the model as text, so that
it can do better; the number of rounds is bounded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import escape
from ..errors import CommandError, LlamaError
from ..telemetry import content, semconv
from ..values import JSON, Answer
from ._signature import Signature

if TYPE_CHECKING:
    from typing import Unpack

    from ..api.client import Message
    from .engine import InferenceEngine
    from .options import ChatOptions

Tool: TypeAlias = Callable[..., Any]
_MAX_RESULT = 16_384  # characters of one result: a DataFrame by accident must not fill the context


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that a model asked for; ``result`` is the text that it was given, ``failed`` whether that is an error.

    ``arguments`` are ``None`` when what the model wrote is no JSON object. ``duration_s`` is the function's own time.
    """

    name: str
    arguments: Mapping[str, JSON] | None
    result: str = ""
    failed: bool = False
    duration_s: float | None = None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in (self.arguments or {}).items())
        mark = "failed: " if self.failed else ""
        return escape.plain(f"{self.name}({arguments}) → {mark}{self.result[:80]}")


#: ``approve(call)`` before each call: false refuses it.
Approve: TypeAlias = Callable[[ToolCall], bool]


@dataclass(frozen=True, slots=True)
class ToolRun:
    """The answer, the calls that led to it, and the whole conversation; shows itself as the answer."""

    answer: Answer
    calls: tuple[ToolCall, ...]
    messages: tuple[Message, ...]

    def __str__(self) -> str:
        return self.answer.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002 (IPython's signature)
        made = self.answer._repr_mimebundle_()
        if self.calls:
            listed = [repr(call) for call in self.calls]
            made["text/markdown"] += "".join(f"<br><sub>{escape.html(one)}</sub>" for one in listed)
            made["text/plain"] = "\n".join([made["text/plain"], *listed])
        return made


class Toolbox:
    """Functions by name, with the descriptions that a model reads; :meth:`call` runs one of them."""

    def __init__(self, functions: Sequence[Tool]) -> None:
        self._known: dict[str, Signature] = {}
        for function in functions:
            signature = Signature.of(function)
            if signature.name in self._known:
                raise CommandError(f"two functions are called {signature.name!r}", hint="def another_name(…): …")
            self._known[signature.name] = signature

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    @property
    def schemas(self) -> list[Mapping[str, JSON]]:
        """The functions as the ``tools`` of a chat request."""
        return [{"type": "function", "function": known.schema} for known in self._known.values()]

    def call(self, name: str, arguments: str, approve: Approve | None = None) -> ToolCall:
        """Run the function ``name`` with JSON text for arguments; whatever goes wrong is the result's text."""
        try:
            given = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return ToolCall(name, None, f"error: the arguments are not JSON: {error}", failed=True)
        if not isinstance(given, dict):
            return ToolCall(name, None, "error: the arguments must be a JSON object", failed=True)
        known = self._known.get(name)
        if known is None:
            said = f"error: no function {name!r}; there are: {', '.join(self._known)}"
            return ToolCall(name, given, said, failed=True)
        try:
            values = known.bind(given)
        except ValueError as error:
            return ToolCall(name, given, f"error: {error}", failed=True)
        if approve is not None and not approve(ToolCall(name, given)):
            return ToolCall(name, given, "error: the user did not allow this call", failed=True)
        begin_s = time.monotonic()
        try:
            result = _as_text(known.function(**values))
        except Exception as error:  # noqa: BLE001 (the function is the user's: the model is told, the user sees the call)
            said = f"error: {type(error).__name__}: {error}"[:_MAX_RESULT]
            return ToolCall(name, given, said, failed=True, duration_s=time.monotonic() - begin_s)
        return ToolCall(name, given, result, duration_s=time.monotonic() - begin_s)


def run(
    engine: InferenceEngine,
    prompt: str | Sequence[Message],
    functions: Sequence[Tool],
    *,
    max_rounds: int = 8,
    approve: Approve | None = None,
    **options: Unpack[ChatOptions],
) -> ToolRun:
    """The answer of the model after at most ``max_rounds`` rounds of calls to ``functions``.

    After the last round it is asked once more without a right to call. ``approve(call)`` is asked before each call. An
    option ``tool_choice="required"`` holds for the first round. Raises CommandError when a function cannot be described
    or the model's chat template has no place for tools, and LlamaError when a call is cut off at ``max_tokens``.
    """
    if type(max_rounds) is not int or max_rounds < 1:
        raise CommandError(f"max_rounds must be at least 1, not {max_rounds!r}", hint="max_rounds=8")
    box = Toolbox(functions)
    if not box.schemas:
        raise CommandError("there is no function to call", hint="engine.run_tools(prompt, [function])")
    _require_tools(engine)
    messages = engine.messages(prompt, options.pop("system", None))
    with engine.observer.step(semconv.INVOKE_AGENT, {semconv.OPERATION_NAME: semconv.INVOKE_AGENT}):
        answer, calls = _rounds(engine, messages, box, max_rounds, approve, options)
    messages.append({"role": "assistant", "content": answer.text})
    return ToolRun(answer, tuple(calls), tuple(messages))


def _rounds(
    engine: InferenceEngine,
    messages: list[Message],
    box: Toolbox,
    max_rounds: int,
    approve: Approve | None,
    options: ChatOptions,
) -> tuple[Answer, list[ToolCall]]:
    """The last answer and all calls; ``messages`` grows by what was said in between."""
    first_choice = options.pop("tool_choice", None) or "auto"
    calls: list[ToolCall] = []
    for number in range(max_rounds + 1):
        options["tools"] = box.schemas
        options["tool_choice"] = "none" if number == max_rounds else first_choice if number == 0 else "auto"
        answer = engine.chat(messages, **options)
        if not answer.tool_calls or number == max_rounds:
            break
        if answer.finish_reason == "length":
            # What is cut off may still be JSON, of another meaning: never run it.
            raise LlamaError("the model's call is cut off at the token limit; nothing was run", hint="max_tokens=2048")
        wanted: list[JSON] = [dict(call) for call in answer.tool_calls]
        messages.append({"role": "assistant", "content": answer.text, "tool_calls": wanted})
        for asked in answer.tool_calls:
            done = _called(engine, box, asked, approve)
            calls.append(done)
            messages.append({"role": "tool", "tool_call_id": asked.get("id"), "content": done.result})
    return answer, calls


def _called(engine: InferenceEngine, box: Toolbox, asked: Mapping[str, JSON], approve: Approve | None) -> ToolCall:
    """One call as a span of its own; what it was given and what came of it only where content is recorded."""
    function = asked["function"]
    assert isinstance(function, dict)
    name, arguments = str(function["name"]), str(function["arguments"])
    known = name if name in box else "unknown"  # what the model made up must not become a span's name
    attributes = {
        semconv.OPERATION_NAME: semconv.EXECUTE_TOOL,
        semconv.TOOL_NAME: known,
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: str(asked.get("id") or ""),
    }
    with engine.observer.step(f"{semconv.EXECUTE_TOOL} {known}", attributes) as step:
        done = box.call(name, arguments, approve)
        if content.captured():
            step.set(content.tool(arguments, done.result))
        if done.failed:
            step.error("tool_call_failed", done.result if content.captured() else "")
    return done


def _require_tools(engine: InferenceEngine) -> None:
    """llama.cpp leaves tools out without a word when the model's template has no place for them."""
    if engine.handle is not None and engine.handle.backend not in ("llama.cpp", "router"):
        return
    caps = engine.client.props().raw.get("chat_template_caps")
    if isinstance(caps, dict) and caps.get("supports_tools") is False:
        model = engine.handle.model.id if engine.handle and engine.handle.model else "this model"
        raise CommandError(
            f"the chat template of {model} has no place for tools, the server would leave them out",
            hint="a model whose template has tools, such as a Qwen3 GGUF file: %llama start FILE",
        )


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError):  # keys that are no text, or a circle
            value = str(value)
    return value if len(value) <= _MAX_RESULT else f"{value[:_MAX_RESULT]}… (cut, {len(value)} characters)"

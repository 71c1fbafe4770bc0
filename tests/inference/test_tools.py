"""Functions that a model calls: their description, the calls, and the loop with the real engine.

The demo model was not trained to call functions, but it goes on with a pattern that it is shown; its own chat template
has no place for tools, so these tests bring one that has. llama.cpp's grammar, parser and stream are the real ones.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Optional

import pytest
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, LlamaError
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.inference.tools import Toolbox, ToolCall

FIXED = {"temperature": 0, "seed": 1}


class Unit(enum.Enum):
    CELSIUS = "C"
    KELVIN = "K"


def weather(
    city: str,
    days: int = 1,
    unit: Unit = Unit.CELSIUS,
    detail: Literal["short", "long"] = "short",
    places: Optional[list[Annotated[str, "a place"]]] = None,  # noqa: UP045 (the older spelling is read, too)
    limit: float | None = None,
) -> dict:
    """The weather of the coming days.

    More words about it.

    Args:
        city: where,
            in any language
        days (int): how many

    Returns:
        unknown: not a parameter
    """
    return {"city": city, "days": days, "unit": unit.name, "places": places, "limit": limit}


# ------------------------------------------------------------------------------------------------- without an engine


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    (tool,) = Toolbox([weather]).schemas
    assert tool == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of the coming days. More words about it.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "where,"},
                    "days": {"type": "integer", "default": 1, "description": "how many"},
                    "unit": {"enum": ["C", "K"]},
                    "detail": {"enum": ["short", "long"], "default": "short"},
                    "places": {
                        "anyOf": [
                            {"type": "array", "items": {"type": "string", "description": "a place"}},
                            {"type": "null"},
                        ],
                        "default": None,
                    },
                    "limit": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                },
                "required": ["city"],
            },
        },
    }


def test_arguments_become_what_the_function_wants() -> None:
    call = Toolbox([weather]).call("weather", '{"city": "Oslo", "days": 2.0, "unit": "K", "places": ["a"], "limit": 3}')
    assert json.loads(call.result) == {"city": "Oslo", "days": 2, "unit": "KELVIN", "places": ["a"], "limit": 3.0}
    assert not call.failed
    assert call.duration_s >= 0


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("wether", "{}", "no function 'wether'; there are: weather"),
        ("weather", "{city:", "the arguments are not JSON"),
        ("weather", "[" * 100_000, "the arguments are not JSON"),
        ("weather", "[1]", "must be a JSON object"),
        ("weather", "{}", "argument 'city' is missing; arguments of weather: city, days"),
        ("weather", '{"city": "x", "day": 1}', "unknown argument 'day'"),
        ("weather", '{"city": 7}', "argument city must be string, not 7"),
        ("weather", '{"city": "x", "days": true}', "argument days must be integer, not True"),
        ("weather", '{"city": "x", "days": 1.5}', "argument days must be integer, not 1.5"),
        ("weather", '{"city": "x", "days": Infinity}', "argument days must be integer, not inf"),
        ("weather", '{"city": "x", "unit": "F"}', "'F' is not a valid Unit"),
        ("weather", '{"city": "x", "detail": "none"}', "argument detail must be"),
        ("weather", '{"city": "x", "places": ["a", 1]}', "argument places must be"),
        ("", "", "no function ''"),
    ],
)
def test_a_call_that_does_not_fit_is_text_for_the_model(name: str, arguments: str, says: str) -> None:
    call = Toolbox([weather]).call(name, arguments)
    assert call.failed
    assert call.result.startswith("error: ")
    assert says in call.result


def test_an_exception_and_a_long_result_are_text_for_the_model() -> None:
    def broken(n: int) -> str:
        raise ZeroDivisionError("no way")

    def long() -> str:
        return "x" * 100_000

    def odd() -> object:
        return {("a", 1): {2}}

    box = Toolbox([broken, long, odd])
    assert box.call("broken", '{"n": 1}').result == "error: ZeroDivisionError: no way"
    assert box.call("long", "").result.endswith("… (cut, 100000 characters)")
    assert box.call("odd", "{}").result == "{('a', 1): {2}}"


def test_a_refused_call_is_not_run() -> None:
    ran = []

    def delete(path: str) -> None:
        ran.append(path)

    asked = []
    call = Toolbox([delete]).call("delete", '{"path": "/"}', lambda call: asked.append(call) or False)
    assert ran == []
    assert asked == [ToolCall("delete", {"path": "/"})]
    assert "did not allow" in call.result
    with pytest.raises(KeyboardInterrupt):
        Toolbox([delete]).call("delete", '{"path": "/"}', lambda call: (_ for _ in ()).throw(KeyboardInterrupt))


def starred(*args: int) -> None: ...
def keywords(**given: int) -> None: ...
def positional(a: int, /) -> None: ...
def typed(a: Path) -> None: ...
async def later(a: int) -> None: ...
def unread(a: "NoSuchType") -> None: ...  # noqa: F821, UP037


@pytest.mark.parametrize("function", [starred, keywords, positional, typed, later, unread, lambda a: a, 3, "weather"])
def test_what_cannot_be_described_is_refused_at_once(function: object) -> None:
    with pytest.raises(CommandError):
        Toolbox([function])
    with pytest.raises(CommandError, match="two functions"):
        Toolbox([weather, weather])


# --------------------------------------------------------------------------------------------------- with the engine


@pytest.fixture(scope="module")
def with_tools() -> Iterator[Engine]:
    with running_engine(str(Path(__file__).with_name("tools.jinja"))) as running:
        yield running


@pytest.fixture
def caller(with_tools: Engine, recorder: Recorder) -> InferenceEngine:
    return InferenceEngine(LlamaCppClient(with_tools.url, with_tools.key, recorder, timeout_s=60))


def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


def shown(a: int, b: int) -> list[dict]:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": json.dumps({"a": a, "b": b})}}
    return [
        {"role": "user", "content": f"add {a} {b}"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": str(a + b)},
        {"role": "assistant", "content": f"The sum is {a + b}."},
    ]


ADD = [*shown(2, 3), *shown(7, 1), *shown(4, 4), {"role": "user", "content": "add 5 2"}]


@pytest.mark.engine
def test_model_call_result_answer(caller: InferenceEngine, recorder: Recorder) -> None:
    done = caller.run_tools(ADD, [add, weather], max_tokens=60, **FIXED)
    assert [(call.name, call.arguments, call.result) for call in done.calls] == [("add", {"a": 5, "b": 2}, "7")]
    assert "7" in done.answer.text
    assert str(done) == done.answer.text
    asked, given, answered = done.messages[len(ADD) :]
    assert (asked["role"], given["role"], answered["role"]) == ("assistant", "tool", "assistant")
    assert given == {"role": "tool", "tool_call_id": asked["tool_calls"][0]["id"], "content": "7"}
    assert [tool["function"]["name"] for tool in recorder.last.request["tools"]] == ["add", "weather"]
    assert len(recorder.calls) == 2
    assert "add(a=5, b=2) → 7" in done._repr_mimebundle_()["text/plain"]
    agent, tool = recorder.steps
    assert (agent.name, tool.name, tool.failed) == ("invoke_agent", "execute_tool add", None)
    assert tool.attributes["gen_ai.tool.call.id"] == given["tool_call_id"]
    assert "gen_ai.tool.call.result" not in tool.attributes  # content is not recorded unless asked for


@pytest.mark.engine
def test_rounds_are_bounded_and_the_last_may_not_call(caller: InferenceEngine, recorder: Recorder) -> None:
    done = caller.run_tools(ADD, [add], max_rounds=1, tool_choice="required", max_tokens=60, **FIXED)
    assert [call.request["tool_choice"] for call in recorder.calls] == ["required", "none"]
    assert len(done.calls) == 1
    assert not done.answer.tool_calls


@pytest.mark.engine
def test_a_refusal_reaches_the_model(caller: InferenceEngine, recorder: Recorder) -> None:
    done = caller.run_tools(ADD, [add], approve=lambda call: False, max_rounds=1, max_tokens=60, **FIXED)
    assert done.calls[0].failed
    said = [m["content"] for m in recorder.last.request["messages"] if m["role"] == "tool"]
    assert said[-1] == "error: the user did not allow this call"


@pytest.mark.engine
def test_a_call_that_was_cut_off_is_not_run(caller: InferenceEngine) -> None:
    ran = []

    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        ran.append((a, b))
        return a + b

    lengths = [n for n in range(12, 28, 3) if _is_cut(caller, add, n)]
    assert lengths, "no length cuts a call in two"
    assert not ran


def _is_cut(caller: InferenceEngine, function: object, max_tokens: int) -> bool:
    answer = caller.chat(ADD, tools=Toolbox([function]).schemas, max_tokens=max_tokens, **FIXED)
    if not (answer.tool_calls and answer.finish_reason == "length"):
        return False
    with pytest.raises(LlamaError, match="cut off at the token limit; nothing was run"):
        caller.run_tools(ADD, [function], max_tokens=max_tokens, **FIXED)
    return True


@pytest.mark.engine
def test_a_template_without_tools_is_said_and_not_passed_over(llm: InferenceEngine, recorder: Recorder) -> None:
    with pytest.raises(CommandError, match="has no place for tools"):
        llm.run_tools("x", [add])
    assert not recorder.calls


@pytest.mark.engine
def test_what_cannot_be_meant(caller: InferenceEngine, recorder: Recorder) -> None:
    for bad in ({"max_rounds": 0}, {"max_tokens": 0}):
        with pytest.raises(CommandError):
            caller.run_tools("x", [add], **bad)
    with pytest.raises(CommandError, match="no function"):
        caller.run_tools("x", [])
    assert not recorder.calls

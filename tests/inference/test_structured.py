"""Typed answers: the form, the retries, the honest end."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from recorder import Recorder

from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.inference.structured import StructuredError

pydantic = pytest.importorskip("pydantic", reason="an extra: not part of the environment with Kaggle's versions")
pytestmark = pytest.mark.engine
FIXED = {"temperature": 0, "seed": 1}


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    inhabitants: int


@dataclasses.dataclass
class Point:
    x: int
    y: int


def test_a_pydantic_model(llm: InferenceEngine, recorder: Recorder) -> None:
    city = llm.structured("A city and its inhabitants.", City, max_tokens=80, **FIXED)
    assert type(city) is City
    assert recorder.last.request["response_format"]["json_schema"]["schema"] == City.model_json_schema()
    assert City.model_validate_json(llm.last.text) == city


def test_a_dataclass_a_list_and_a_schema(llm: InferenceEngine) -> None:
    assert type(llm.structured("A point.", Point, max_tokens=40, **FIXED)) is Point
    few = llm.structured("Some numbers.", list[bool], max_tokens=40, fields={"logit_bias": [["]", 8]]}, **FIXED)
    assert all(type(one) is bool for one in few)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert type(llm.structured("Fine?", schema, max_tokens=20, **FIXED)["ok"]) is bool


class Even(pydantic.BaseModel):
    number: int = pydantic.Field(ge=0, le=99)

    @pydantic.field_validator("number")
    @classmethod
    def never(cls, value: int) -> int:
        raise ValueError("no number is good enough")


def test_what_does_not_fit_goes_back_with_the_reason_and_ends(llm: InferenceEngine, recorder: Recorder) -> None:
    with pytest.raises(StructuredError, match=r"does not fit after 3 tries: number: .*good enough") as caught:
        llm.structured("A number.", Even, retries=2, max_tokens=40, **FIXED)
    assert len(recorder.calls) == len(caught.value.answers) == 3
    said = recorder.last.request["messages"]
    assert [one["role"] for one in said] == ["user", "assistant", "user", "assistant", "user"]
    assert "no number is good enough" in said[-1]["content"]
    assert said[1]["content"] == caught.value.answers[0].text


class Second(pydantic.BaseModel):
    number: int = pydantic.Field(ge=0, le=99)

    @pydantic.model_validator(mode="after")
    def only_when_told(self) -> Second:
        tried.append(self.number)
        if len(tried) < 2:
            raise ValueError("not the first one")
        return self


tried: list[int] = []


def test_a_second_try_that_fits_is_the_answer(llm: InferenceEngine) -> None:
    tried.clear()
    found = llm.structured("A number.", Second, max_tokens=40, **FIXED)
    assert found.number == tried[1]


STORY = {"type": "string", "minLength": 30, "maxLength": 40}
LONG = {"type": "object", "properties": {"story": STORY}, "required": ["story"]}


def test_what_was_cut_off_gets_more_room_once(llm: InferenceEngine, recorder: Recorder) -> None:
    story = llm.structured("A short story.", LONG, max_tokens=10, **FIXED)
    assert len(story["story"]) >= 30
    assert [call.request["max_tokens"] for call in recorder.calls] == [10, 40]
    assert [len(call.request["messages"]) for call in recorder.calls] == [1, 1]


def test_what_is_cut_off_again_is_an_error_that_holds_the_text(llm: InferenceEngine, recorder: Recorder) -> None:
    with pytest.raises(StructuredError, match="incomplete after 8 tokens") as caught:
        llm.structured("A long story.", LONG, max_tokens=2, **FIXED)
    assert [call.request["max_tokens"] for call in recorder.calls] == [2, 8]
    assert caught.value.text.startswith("{")


def test_a_schema_is_checked_where_the_servers_grammar_is_not(llm: InferenceEngine) -> None:
    impossible = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "minProperties": 2}
    pytest.importorskip("jsonschema")
    with pytest.raises(StructuredError, match=r"does not fit after 1 tries"):
        llm.structured("x", impossible, retries=0, max_tokens=40, **FIXED)


@pytest.mark.parametrize("form", ["City", None, 3])
def test_what_is_no_form(llm: InferenceEngine, recorder: Recorder, form: object) -> None:
    with pytest.raises(CommandError):
        llm.structured("x", form)
    with pytest.raises(CommandError, match="retries"):
        llm.structured("x", City, retries=-1)
    assert not recorder.calls


def test_without_pydantic_a_schema_still_works(llm: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(CommandError, match="types need pydantic") as caught:
        llm.structured("x", City)
    assert caught.value.hint == "%pip install pydantic"
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert "ok" in llm.structured("x", schema, max_tokens=20, **FIXED)

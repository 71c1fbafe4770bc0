"""The same calls through OpenAI's own package, to the same engine: the same answers."""

from __future__ import annotations

import json

import pytest
from realengine import Engine

from llamatelemetry_jupyter.api.client import LlamaCppClient

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name two colours."}]
FIXED = {"temperature": 0, "seed": 1, "max_tokens": 12}
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def theirs(engine: Engine):
    openai = pytest.importorskip("openai", reason="OpenAI's package is not part of Kaggle's versions")
    with openai.OpenAI(base_url=engine.url + "/v1", api_key=engine.key, max_retries=0) as client:
        yield client


def test_chat(theirs, client: LlamaCppClient) -> None:
    other = theirs.chat.completions.create(model="smol", messages=HELLO, **FIXED)
    answer = client.chat(HELLO, model="smol", **FIXED)
    assert answer.text == other.choices[0].message.content
    assert answer.finish_reason == other.choices[0].finish_reason
    assert answer.output_tokens == other.usage.completion_tokens
    assert answer.input_tokens == other.usage.prompt_tokens
    assert answer.model == other.model


def test_streamed_chat(theirs, client: LlamaCppClient) -> None:
    chunks = list(theirs.chat.completions.create(model="smol", messages=HELLO, stream=True, **FIXED))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    with client.chat_stream(HELLO, **FIXED) as stream:
        assert [event.text for event in stream if event.kind == "text"] == texts


def test_logprobs(theirs, client: LlamaCppClient) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, **FIXED}
    told = theirs.chat.completions.create(model="smol", messages=HELLO, **asked).choices[0].logprobs.content
    other = [one for one in told if one.token]  # the end of the answer is a token, too, but no text
    events = [event for event in client.chat(HELLO, **asked).tokens if event.kind == "text"]
    assert [event.text for event in events] == [one.token for one in other]
    assert [event.logprob for event in events] == pytest.approx([one.logprob for one in other], abs=1e-2)


def test_json_schema(theirs, client: LlamaCppClient) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fixed = {**FIXED, "max_tokens": 40}
    other = theirs.chat.completions.create(model="smol", messages=HELLO, response_format=wanted, **fixed)
    answer = client.chat(HELLO, response_format=wanted, parse_json=True, **fixed)
    assert answer.parsed == json.loads(other.choices[0].message.content)


def test_completion_and_responses(theirs, client: LlamaCppClient) -> None:
    other = theirs.completions.create(model="smol", prompt="One, two,", **FIXED)
    assert client.complete("One, two,", openai=True, **FIXED).text == other.choices[0].text
    response = theirs.responses.create(model="smol", input="Name two colours.", max_output_tokens=12, temperature=0)
    answer = client.respond("Name two colours.", max_tokens=12, temperature=0)
    assert answer.text == response.output_text
    assert answer.output_tokens == response.usage.output_tokens

"""InferenceEngine against the real engine."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from faultproxy import fault_proxy
from realengine import Engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, ServerError
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.values import ModelRef, ServerHandle, TokenEvent

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "size": {"type": "integer"}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


@pytest.fixture
def llm(client: LlamaCppClient) -> InferenceEngine:
    return InferenceEngine(client)


def test_chat_with_a_server_handle(engine: Engine, recorder: Recorder) -> None:
    model = ModelRef("smollm2-135m", "/models/x.gguf")
    handle = ServerHandle("default", engine.url, engine.key, "llama.cpp", True, None, None, model, 2, 1024)
    llm = InferenceEngine(handle, recorder)
    assert llm.handle is handle
    answer = llm.chat("Say hello.", max_tokens=8)
    assert answer.text
    assert answer.server == "default"
    assert recorder.last.model == "smollm2-135m"
    assert (answer.trace_id, answer.span_id) == (recorder.last.trace_id, recorder.last.span_id)


def test_events_come_to_the_callback(llm: InferenceEngine) -> None:
    events: list[TokenEvent] = []
    answer = llm.chat("Say hello.", max_tokens=8, on_event=events.append)
    assert "".join(event.text for event in events if event.kind == "text") == answer.text
    assert llm.last == answer


def test_system_prompt_and_messages(client: LlamaCppClient, recorder: Recorder) -> None:
    llm = InferenceEngine(client, system="Speak like a pirate.")
    llm.chat("Hello", max_tokens=2)
    assert recorder.last.request["messages"] == [
        {"role": "system", "content": "Speak like a pirate."},
        {"role": "user", "content": "Hello"},
    ]
    llm.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], max_tokens=2)
    assert recorder.last.request["messages"][0] == {"role": "system", "content": "Be brief."}
    llm.chat("Hello", system="Whisper.", max_tokens=2)
    assert recorder.last.request["messages"][0]["content"] == "Whisper."


def test_schema_gives_a_parsed_answer(llm: InferenceEngine) -> None:
    answer = llm.chat("Which city, and its size as a number?", json_schema=SCHEMA, max_tokens=60, temperature=0, seed=1)
    assert answer.finish_reason == "stop"
    assert answer.parsed["city"] in ("Paris", "Rome")
    assert isinstance(answer.parsed["size"], int)


def test_schema_cut_by_the_token_limit(llm: InferenceEngine) -> None:
    answer = llm.chat("Which city?", json_schema=SCHEMA, max_tokens=3)
    assert answer.parsed is None
    assert answer.finish_reason == "length"
    assert "incomplete" in (answer.error or "")
    assert "incomplete" in answer.footer()


def test_stop_ends_the_answer(llm: InferenceEngine) -> None:
    answer = llm.chat("Say: one, two, three, four", stop=",", max_tokens=60, temperature=0)
    assert answer.finish_reason == "stop"
    assert "," not in answer.text


def test_interrupt_keeps_the_partial_answer(llm: InferenceEngine, recorder: Recorder) -> None:
    def interrupt_at_fifth(event: TokenEvent) -> None:
        if event.index == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        llm.chat("Tell me about llamas.", max_tokens=800, ignore_eos=True, on_event=interrupt_at_fifth)
    assert llm.last is not None
    assert llm.last.finish_reason == recorder.last.outcome.finish_reason == "interrupted"
    assert llm.last.text
    assert not recorder.last.errors
    deadline = time.monotonic() + 20
    while any(slot.busy for slot in llm.client.slots()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interrupt_during_prefill(llm: InferenceEngine, recorder: Recorder) -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        llm.chat("llama " * 300, max_tokens=50, cache_prompt=False, ignore_eos=True)
    timer.join()
    assert llm.last is not None
    assert llm.last.finish_reason == "interrupted"
    assert recorder.last.outcome.finish_reason == "interrupted"


def test_broken_server_keeps_the_partial_answer(engine: Engine, recorder: Recorder) -> None:
    with fault_proxy(engine.url, cut_after=4000) as proxy:
        llm = InferenceEngine(LlamaCppClient(proxy.url, engine.key, recorder))
        with pytest.raises(ServerError):
            llm.chat("Tell me about llamas.", max_tokens=200, ignore_eos=True)
    assert llm.last is not None
    assert llm.last.finish_reason == "error"
    assert llm.last.text
    assert "broke off" in llm.last.footer()


@pytest.mark.parametrize("prompt", ["", "  \n", [], [{"role": "user", "content": ""}], [{"content": "x"}], ["x"]])
def test_empty_and_shapeless_prompts(llm: InferenceEngine, recorder: Recorder, prompt: object) -> None:
    with pytest.raises(CommandError):
        llm.chat(prompt)
    assert not recorder.calls


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"top_p": 1.5},
        {"min_p": -1},
        {"top_k": -1},
        {"seed": -5},
        {"json_schema": "{}"},
    ],
)
def test_values_that_cannot_be_meant(llm: InferenceEngine, recorder: Recorder, option: dict[str, object]) -> None:
    with pytest.raises(CommandError) as caught:
        llm.chat("Hello", **option)
    assert next(iter(option)) in str(caught.value)
    assert not recorder.calls

"""InferenceEngine against the real engine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from faultproxy import fault_proxy
from realengine import Engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, RequestError, ServerError
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.inference.metrics import EngineMetrics
from llamatelemetry_jupyter.values import ModelRef, ServerHandle, TokenEvent

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "size": {"type": "integer"}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


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


def test_a_misspelt_option_is_named_before_anything_is_sent(llm: InferenceEngine, recorder: Recorder) -> None:
    with pytest.raises(CommandError, match="option 'temprature' is not known") as caught:
        llm.chat("Hello", temprature=0)
    assert caught.value.hint == "temperature=…"
    with pytest.raises(CommandError, match="'system' is for chat"):
        llm.generate("Hello", system="x")
    assert not recorder.calls


def test_other_fields_of_the_server_pass_as_they_are(llm: InferenceEngine, recorder: Recorder) -> None:
    llm.chat("Hello", max_tokens=2, fields={"mirostat": 2})
    assert recorder.last.request["mirostat"] == 2
    assert "fields" not in recorder.last.request


def test_generate_goes_on_with_raw_text(llm: InferenceEngine, recorder: Recorder) -> None:
    answer = llm.generate("One, two, three, four,", max_tokens=3, temperature=0)
    assert answer.text.strip().startswith("five")
    assert recorder.last.operation == "text_completion"
    assert llm.last == answer
    ids = [event.token_id for event in llm.generate_stream("Once", max_tokens=3) if event.kind == "text"]
    assert all(isinstance(one, int) for one in ids)
    with pytest.raises(CommandError, match="no text to go on with"):
        llm.generate("")


def test_a_grammar_forces_the_answer(llm: InferenceEngine) -> None:
    assert llm.chat("Yes or no?", grammar='root ::= "maybe"', max_tokens=8).text == "maybe"


def test_metrics_count_what_ended_and_how(llm: InferenceEngine, engine: Engine) -> None:
    assert llm.get_metrics() == EngineMetrics()
    answers = [llm.chat("Say hello.", max_tokens=4, ignore_eos=True) for _ in range(3)]
    stream = llm.stream("Say hello.", max_tokens=50, ignore_eos=True)
    next(event for event in stream if event.kind == "text")
    stream.cancel()
    with pytest.raises(RequestError):
        llm.chat("Hello", max_tokens=4, grammar="not a grammar")
    found = llm.get_metrics()
    assert (found.requests, found.failed, found.interrupted) == (5, 1, 1)
    assert found.output_tokens >= 13
    assert found.input_tokens >= sum(a.input_tokens for a in answers)
    assert 0 < found.ttft_p50_s <= found.ttft_p95_s <= found.duration_p95_s
    assert found.decode_tokens_per_s > 1
    llm.reset_metrics()
    assert llm.get_metrics() == EngineMetrics()


def test_the_clients_own_calls_are_not_counted(client: LlamaCppClient, recorder: Recorder) -> None:
    llm = InferenceEngine(client)
    client.chat([{"role": "user", "content": "Hi"}], max_tokens=1)
    assert llm.get_metrics().requests == 0
    llm.infer("Hi", max_tokens=1)
    assert llm.get_metrics().requests == 1
    assert len(recorder.calls) == 2


def test_an_engine_with_a_server_of_its_own(model_path: Path) -> None:
    with InferenceEngine() as llm:
        with pytest.raises(ServerError, match="no model is loaded"):
            llm.chat("Hello")
        handle = llm.load_model(str(model_path), ctx=512, slots=2)
        assert llm.load_model(str(model_path), ctx=512, slots=2).pid == handle.pid
        assert (llm.context(), llm.slots()) == (512, 2)
        assert llm.chat("Hello", max_tokens=3).server == handle.name
        other = llm.load_model(str(model_path), ctx=1024)
        assert other.pid != handle.pid
        assert not psutil.pid_exists(handle.pid)
        assert llm.chat("Hello", max_tokens=3).output_tokens == 3
        with pytest.raises(CommandError, match="ctxx"):
            llm.load_model(str(model_path), ctxx=1)
    assert not psutil.pid_exists(other.pid)
    assert llm.handle is None
    llm.unload_model()


def test_a_server_of_somebody_else_is_neither_replaced_nor_stopped(llm: InferenceEngine) -> None:
    for refused in (llm.load_model, llm.unload_model):
        with pytest.raises(CommandError, match=r"own|did not start"):
            refused()
    with llm:
        pass
    assert llm.client.health()

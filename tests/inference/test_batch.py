"""Many prompts at once, against the real engine."""

from __future__ import annotations

import os
import re
import signal
import threading

import pytest
from faultproxy import fault_proxy
from opentelemetry import context, trace
from realengine import Engine
from recorder import Recorder

from llamatelemetry_jupyter import progressline
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, RequestError, ServerError
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.inference.interrupt import Interrupted
from llamatelemetry_jupyter.progress import Step

pytestmark = [pytest.mark.floor, pytest.mark.engine]
QUIET = {"progress": False, "max_tokens": 6, "temperature": 0}


def batch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("llamatelemetry-batch")]


def test_answers_are_in_order_and_as_many_run_as_there_are_slots(llm: InferenceEngine, recorder: Recorder) -> None:
    prompts = [f"Repeat the number {n}." for n in range(5)]
    result = llm.batch_infer(prompts, **QUIET)
    spans = [(call.outcome.sent_ns, call.outcome.end_ns) for call in recorder.calls]
    assert max(sum(begin <= at < end for begin, end in spans) for at, _ in spans) == 2 == llm.slots()
    asked = {call.request["messages"][0]["content"]: call.outcome.output for call in recorder.calls}
    assert result.texts == [asked[prompt] for prompt in prompts]
    assert len(recorder.calls) == 5
    assert llm.last_batch is result
    assert batch_threads() == []
    frame = result.frame()
    assert list(frame["prompt"]) == prompts
    assert frame["output_tokens"].tolist() == [answer.output_tokens for answer in result]
    assert frame["error"].isna().all()


def test_single_failures_are_reported_and_the_rest_goes_on(llm: InferenceEngine) -> None:
    result = llm.batch_infer(["Hello", "", "word " * 3000, [{"role": "user", "content": "Hi"}]], **QUIET)
    assert [answer is not None for answer in result] == [True, False, False, True]
    assert isinstance(result.errors[1], CommandError)
    assert isinstance(result.errors[2], RequestError)
    assert "2 of 4 answers; 2 failed, the first at 1: the prompt is empty" in repr(result)
    assert result.frame()["error"].notna().tolist() == [False, True, True, False]


def test_a_server_that_is_gone_fails_each_prompt(engine: Engine) -> None:
    with fault_proxy(engine.url) as proxy:
        llm = InferenceEngine(LlamaCppClient(proxy.url, engine.key))
    result = llm.batch_infer(["a", "b", "c"], parallel=2, **QUIET)
    assert sorted(result.errors) == [0, 1, 2]
    assert all(isinstance(error, ServerError) for error in result.errors.values())


def test_an_interrupt_ends_the_rest_and_keeps_what_is_there(llm: InferenceEngine, recorder: Recorder) -> None:
    def interrupt(step: Step) -> None:
        if step.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    prompts = ["Say hello."] + ["Tell me a long story."] * 6
    with pytest.raises(Interrupted) as caught:
        llm.batch_infer(prompts, progress=interrupt, max_tokens=400, parallel=2, seed=1, stop=None)
    result = llm.last_batch
    assert result is not None
    assert result.interrupted
    done = [answer for answer in result if answer is not None]
    assert len(done) >= 1
    assert all(answer.finish_reason in ("stop", "length") for answer in done)
    assert not result.errors
    assert batch_threads() == []
    assert len(recorder.calls) < len(prompts)
    assert all(call.outcomes for call in recorder.calls), "every request has ended"
    assert caught.value._render_traceback_()[1] == "  try: engine.last_batch.frame()"


def test_nothing_to_do_and_what_cannot_be_meant(llm: InferenceEngine, recorder: Recorder) -> None:
    assert list(llm.batch_infer([])) == []
    assert llm.batch_infer([]).frame().empty
    for bad in ({"parallel": 0}, {"temperature": -1}, {"temprature": 0}):
        with pytest.raises(CommandError):
            llm.batch_infer(["Hello"], **bad)
    with pytest.raises(CommandError, match="one text"):
        llm.batch_infer("Hello")
    assert not recorder.calls


def test_the_callers_context_reaches_the_threads(llm: InferenceEngine, recorder: Recorder) -> None:
    seen = []
    tell = recorder.start
    recorder.start = lambda *given: seen.append(trace.get_current_span().get_span_context().span_id) or tell(*given)
    parent = trace.NonRecordingSpan(trace.SpanContext(7, 9, is_remote=False))
    token = context.attach(trace.set_span_in_context(parent))
    try:
        llm.batch_infer(["a", "b", "c"], **QUIET)
    finally:
        context.detach(token)
    assert seen == [9, 9, 9]


def test_its_line_is_one_last_line_where_nobody_watches(
    llm: InferenceEngine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progressline, "_FIRST_S", 0.0)
    llm.batch_infer(["a", "b"], max_tokens=1)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert re.match(r"done in .*s: answering, 2 prompts", said.err)

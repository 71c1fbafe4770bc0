"""LlamaCppClient against the real engine."""

from __future__ import annotations

import socket
import threading

import pytest
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.api.metrics import Metrics
from llamatelemetry_jupyter.errors import CommandError, RequestError, ServerError
from llamatelemetry_jupyter.values import Answer

HELLO = [{"role": "user", "content": "Say hello."}]
pytestmark = pytest.mark.engine


def test_chat_tells_text_tokens_and_times(client: LlamaCppClient, recorder: Recorder) -> None:
    answer = client.chat(HELLO, max_tokens=16, temperature=0, seed=1, ignore_eos=True)
    assert answer.text.strip()
    assert answer.finish_reason == "length"
    assert answer.output_tokens == 16
    assert answer.model == "smol"
    assert answer.trace_id == recorder.last.trace_id

    t = answer.timings
    assert t.ttft_s is not None
    assert t.prefill_s is not None
    assert t.decode_s is not None
    raw = recorder.last.outcome.raw_timings
    assert t.prefill_s == raw["prompt_ms"] / 1000
    assert t.decode_s == raw["predicted_ms"] / 1000
    assert t.queue_s == max(0.0, t.ttft_s - t.prefill_s)
    assert t.decode_tokens_per_s == pytest.approx(15 / t.decode_s)
    assert answer.input_tokens == raw["prompt_n"] + raw["cache_n"] == client.count_tokens(HELLO)


def test_observer_sees_request_and_outcome(client: LlamaCppClient, recorder: Recorder, engine: Engine) -> None:
    client.chat(HELLO, max_tokens=8, model="smol")
    call = recorder.last
    assert (call.operation, call.model, call.address) == ("chat", "smol", "127.0.0.1")
    assert call.port == int(engine.url.rsplit(":", 1)[1])
    assert call.request["max_tokens"] == 8
    assert not call.errors
    outcome = call.outcome
    assert outcome.first_token_ns is not None
    assert outcome.sent_ns < outcome.first_token_ns <= outcome.end_ns
    assert outcome.output_tokens is not None
    assert len(outcome.gaps_s) <= outcome.output_tokens
    assert outcome.response_id is not None
    assert not outcome.abandoned


def test_second_request_finds_its_prompt_in_the_cache(client: LlamaCppClient) -> None:
    prompt = [{"role": "user", "content": "Count the letters of the word llama, one after the other."}]
    client.chat(prompt, max_tokens=2)
    again = client.chat(prompt, max_tokens=2)
    assert again.timings.cached_tokens
    assert again.input_tokens == client.count_tokens(prompt)


def test_same_seed_gives_the_same_answer(client: LlamaCppClient) -> None:
    options = {"max_tokens": 24, "temperature": 1.0, "cache_prompt": False}
    first = client.chat(HELLO, seed=7, **options)
    assert client.chat(HELLO, seed=7, **options).text == first.text
    assert client.chat(HELLO, seed=8, **options).text != first.text


def test_completion_continues_text_and_names_tokens(client: LlamaCppClient, recorder: Recorder) -> None:
    answer = client.complete("One, two, three,", max_tokens=6, temperature=0, keep_events=True)
    assert "four" in answer.text
    assert answer.output_tokens == 6
    assert answer.finish_reason == "length"
    ids = [event.token_id for event in answer.tokens if event.kind == "text"]
    assert client.detokenize([i for i in ids if i is not None]) == answer.text
    assert recorder.last.operation == "text_completion"
    assert recorder.last.outcome.slot in (0, 1)


def test_logprobs_come_with_the_events(client: LlamaCppClient) -> None:
    answer = client.chat(HELLO, max_tokens=4, logprobs=True, top_logprobs=1, keep_events=True)
    events = [event for event in answer.tokens if event.kind == "text"]
    assert events
    assert all(event.logprob is not None and event.logprob <= 0 and event.token_id is not None for event in events)


@pytest.mark.parametrize(
    "text",
    [
        "it's {not} a {{template}}",
        'she said "hi" \\ /',
        "🦙 naïve 日本語",
        "<script>alert(1)</script>",
        "$x %s `y`\t\n",
    ],
)
def test_prompts_arrive_as_they_are(client: LlamaCppClient, text: str) -> None:
    assert text.strip() in client.apply_template([{"role": "user", "content": text}])
    assert client.detokenize(client.tokenize(text)) == text
    assert client.chat([{"role": "user", "content": text}], max_tokens=2).output_tokens


def test_token_count_is_that_of_the_template(client: LlamaCppClient) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
    prompt = client.apply_template(messages)
    assert client.count_tokens(messages) == len(client.tokenize(prompt, add_special=True))


def test_the_server_describes_itself(client: LlamaCppClient) -> None:
    assert client.health()
    props = client.props()
    assert (props.slots, props.ctx_per_slot, props.model_alias) == (2, 1024, "smol")
    assert [slot.ctx for slot in client.slots()] == [1024, 1024]
    model = client.models()[0]
    assert model.id == "smol"
    assert model.size_bytes is not None
    assert model.size_bytes > 50_000_000
    before = client.metrics()
    answer = client.chat(HELLO, max_tokens=5, ignore_eos=True)
    after = client.metrics()
    assert after.output_tokens is not None
    assert before.output_tokens is not None
    assert answer.output_tokens == after.output_tokens - before.output_tokens


def test_metrics_read_what_prometheus_writes() -> None:
    metrics = Metrics.parse(
        "# HELP x\n# TYPE x counter\nllamacpp:prompt_tokens_total 12\nllamacpp:prompt_tokens_cached_total 30\n"
        'llamacpp:accepted{position="1"} 2\nbad line here\nllamacpp:predicted_tokens_seconds nan\n'
    )
    assert metrics.input_tokens == 42
    assert metrics.values['accepted{position="1"}'] == 2
    assert metrics.output_tokens is None


def test_four_threads_share_a_client(client: LlamaCppClient) -> None:
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(client.chat(HELLO, max_tokens=8 + n, ignore_eos=True)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.output_tokens or 0 for answer in answers) == [8, 9, 10, 11]


def test_proxy_variables_are_ignored(client: LlamaCppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert client.health()
    assert client.chat(HELLO, max_tokens=2).output_tokens == 2


# ---------------------------------------------------------------------------------------------------------- bad input


def test_prompt_larger_than_the_context(client: LlamaCppClient, recorder: Recorder) -> None:
    with pytest.raises(RequestError) as caught:
        client.chat([{"role": "user", "content": "llama " * 500}], max_tokens=100)
    error = caught.value
    assert (error.status, error.kind) == (400, "exceed_context_size_error")
    assert "1024" in str(error)
    assert error.hint == "%llama start --ctx 2048 --restart"
    assert recorder.last.errors == [error]
    assert recorder.last.outcome.finish_reason == "error"


def test_wrong_key(engine: Engine) -> None:
    with pytest.raises(RequestError) as caught:
        LlamaCppClient(engine.url, "wrong").chat(HELLO)
    assert caught.value.status == 401
    assert "API key" in str(caught.value)


def test_what_the_server_was_not_started_for(client: LlamaCppClient, recorder: Recorder) -> None:
    with pytest.raises(RequestError) as caught:
        client.embeddings("a text")
    assert caught.value.status == 501
    assert caught.value.hint == "%llama start --embeddings --restart"
    assert recorder.last.errors == [caught.value]


def test_embeddings_come_in_order(recorder: Recorder) -> None:
    with running_engine("embeddings") as running:
        client = LlamaCppClient(running.url, running.key, recorder)
        one, two = client.embeddings(["a llama", "a server"])
        assert len(one) == len(two) == client.models()[0].embedding_size
        assert client.embeddings("a server")[0] == pytest.approx(two, abs=1e-3)
    assert recorder.last.operation == "embeddings"
    assert recorder.last.outcome.input_tokens


def test_a_schema_that_no_grammar_can_follow(client: LlamaCppClient) -> None:
    with pytest.raises(RequestError) as caught:
        client.chat(HELLO, grammar="root ::= (")
    assert caught.value.hint == "simplify the schema given as json_schema"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    recorder = Recorder()
    with pytest.raises(ServerError) as caught:
        LlamaCppClient(f"http://127.0.0.1:{port}", observer=recorder).chat(HELLO)
    assert "connection refused" in str(caught.value)
    assert caught.value.hint == "%llama start"
    assert recorder.last.errors == [caught.value]


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://", "http://x:99999", "http://u:p@x/"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(CommandError):
        LlamaCppClient(url)


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel"])
def test_bad_keys(key: str) -> None:
    with pytest.raises(CommandError):
        LlamaCppClient("http://127.0.0.1:1", key)


def test_openai_style_addresses_are_understood(engine: Engine) -> None:
    assert LlamaCppClient(engine.url + "/v1/", engine.key).health()


def test_options_that_json_cannot_say(client: LlamaCppClient, recorder: Recorder) -> None:
    for bad in (float("nan"), object()):
        with pytest.raises(CommandError):
            client.chat(HELLO, temperature=bad)
    with pytest.raises(CommandError):
        client.chat(HELLO, max_tokens=-1)
    assert not recorder.calls

"""Every route of the table asked of the real engine, and every method of the client; docs/api.md says the same."""

from __future__ import annotations

import http.client
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api import ask, generate
from llamatelemetry_jupyter.api.async_client import AsyncLlamaCppClient
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.api.request import Generation, Request
from llamatelemetry_jupyter.api.routes import ROUTES, Route
from llamatelemetry_jupyter.errors import CommandError, NotSupportedError, RequestError

REPO = Path(__file__).resolve().parents[2]
HELLO = [{"role": "user", "content": "Say hello."}]
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00data\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def engines(engine: Engine) -> Iterator[dict[str, Engine]]:
    """The engine of each kind."""
    with ExitStack() as stack:
        others = {kind: stack.enter_context(running_engine(kind)) for kind in ("embeddings", "rank")}
        yield {"chat": engine, "router": engine, **others}


BODIES: dict[str, object] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1},
    "/completion": {"prompt": "a", "n_predict": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": HELLO, "max_tokens": 1},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/chat/completions/control": {"id": "none", "action": "reasoning_end"},
    "/v1/streams/lookup": {"conversation_ids": ["none"]},
    "/v1/embeddings": {"input": "a"},
    "/embeddings": {"content": "a"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/systemone": {"prompt": "a"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": HELLO},
    "/v1/chat/completions/input_tokens": {"messages": HELLO},
    "/v1/responses/input_tokens": {"input": "a"},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/slots/0?action=save": {"filename": "table.bin"},
    "/slots/0?action=restore": {"filename": "table.bin"},
    "/lora-adapters": [],
    "/models/load": {"model": "a"},
    "/models/unload": {"model": "a"},
    "/models": {"model": "a"},
}


@pytest.mark.engine
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.verb} {route.paths[0]}")
def test_the_engine_answers_as_the_table_says(route: Route, engines: dict[str, Engine]) -> None:
    asked = engines[route.engine]
    if route.methods == ("resume",):  # there has to be something to resume
        with LlamaCppClient(asked.url, asked.key).chat_stream(HELLO, max_tokens=2, conversation="table") as stream:
            next(stream)
    for path in route.paths:
        connection = http.client.HTTPConnection(asked.url.removeprefix("http://"), timeout=60)
        body = json.dumps(BODIES.get(route.paths[0], {})) if route.verb == "POST" else None
        where = path + ("?conv_id=table" if path == "/v1/stream" else "")
        headers = {"Authorization": f"Bearer {asked.key}", "Content-Type": "application/json"}
        connection.request(route.verb, where, body, headers)
        answer = connection.getresponse()
        assert answer.status == route.status, (path, answer.read())
        connection.close()


def public(module: object) -> dict[str, Callable[..., object]]:
    return {
        name: fn
        for name, fn in vars(module).items()
        if inspect.isfunction(fn)
        and not name.startswith("_")
        and fn.__module__ == module.__name__  # type: ignore[attr-defined]
        and str(inspect.signature(fn).return_annotation).startswith(("Request", "Generation"))
    }


def test_both_clients_have_every_method_and_the_table_names_them() -> None:
    asked = public(ask) | public(generate)
    assert len(asked) > 35
    named = {name for route in ROUTES for name in route.methods}
    for client in (LlamaCppClient, AsyncLlamaCppClient):
        for name, fn in asked.items():
            method = getattr(client, name)
            assert list(inspect.signature(method).parameters)[1:] == list(inspect.signature(fn).parameters), name
            assert method.__doc__.startswith(fn.__doc__), name
            assert name in named, f"{name} is in no row of the table"
        for name in named:
            assert callable(getattr(client, name))


# ------------------------------------------------------------------------------------------- each method, its result


@pytest.fixture
def client(engines: dict[str, Engine], recorder: Recorder) -> LlamaCppClient:
    return LlamaCppClient(engines["chat"].url, engines["chat"].key, recorder, timeout_s=60)


@pytest.fixture
def embedder(engines: dict[str, Engine], recorder: Recorder) -> LlamaCppClient:
    return LlamaCppClient(engines["embeddings"].url, engines["embeddings"].key, recorder, timeout_s=60)


@pytest.mark.engine
@pytest.mark.parametrize("how", ["complete", "complete_openai", "respond", "message"])
def test_every_format_makes_the_same_answer(client: LlamaCppClient, recorder: Recorder, how: str) -> None:
    fixed = {"max_tokens": 4, "temperature": 0, "keep_events": True}
    if how == "respond":
        answer = client.respond("Say hello.", **fixed)
    elif how == "message":
        answer = client.message(HELLO, **fixed)
    else:
        prompt = client.apply_template(HELLO)
        answer = client.complete(prompt, openai=how == "complete_openai", **fixed)
    expected = client.chat(HELLO, max_tokens=4, temperature=0)
    assert answer.text == expected.text
    assert (answer.finish_reason, answer.output_tokens) == ("length", 4)
    assert answer.input_tokens == expected.input_tokens
    assert answer.model == "smol"
    assert answer.timings.ttft_s is not None
    assert "".join(event.text for event in answer.tokens if event.kind == "text") == answer.text
    first, second = recorder.calls
    assert first.operation == ("text_completion" if how.startswith("complete") else "chat")
    assert first.outcome.output_tokens == second.outcome.output_tokens == 4


@pytest.mark.engine
def test_schema_grammar_and_stop(client: LlamaCppClient) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = client.chat(HELLO, max_tokens=30, response_format=wanted, parse_json=True, temperature=0)
    assert isinstance(answer.parsed, dict)
    assert isinstance(answer.parsed["ok"], bool)
    assert client.complete("a", max_tokens=9, grammar='root ::= "xyz"').text == "xyz"
    assert client.complete("a", max_tokens=9, grammar='root ::= "x. y"', stop=["."]).text == "x"


@pytest.mark.engine
def test_logprobs_keep_their_events(client: LlamaCppClient) -> None:
    fixed = {"max_tokens": 2, "temperature": 0, "ignore_eos": True}
    for answer in (
        client.chat(HELLO, logprobs=True, top_logprobs=3, **fixed),
        client.complete("One, two,", n_probs=3, **fixed),
        client.complete("One, two,", openai=True, logprobs=3, **fixed),
    ):
        texts = [event for event in answer.tokens if event.kind == "text"]
        assert len(texts) == 2
        for event in texts:
            assert event.logprob is not None
            assert [len(event.alternatives), event.token_id is not None] == [3, True]
    assert client.chat(HELLO, max_tokens=2).tokens == ()


@pytest.mark.engine
def test_tokens_and_their_bytes(client: LlamaCppClient) -> None:
    text = "é🦙 hi"
    pieces = client.pieces(text)
    assert [piece.id for piece in pieces] == client.tokenize(text)
    assert b"".join(piece.bytes for piece in pieces).decode() == text
    assert {piece.text for piece in pieces} >= {"é", " hi", None}
    counted = client.count_tokens(HELLO)
    assert counted == client.count_message_tokens(HELLO) == client.count_response_tokens("Say hello.")


@pytest.mark.engine
def test_a_conversation_goes_on_without_its_reader(client: LlamaCppClient, recorder: Recorder) -> None:
    with client.chat_stream(HELLO, max_tokens=8, temperature=0, ignore_eos=True, conversation="cell-7") as stream:
        next(stream)
    (state,) = client.conversations(["cell-7", "unknown"])
    assert state.conversation == "cell-7"
    with client.resume("cell-7") as again:
        assert again.answer.text == "" or again.answer.text
        for _ in again:
            pass
    assert again.answer.text == client.chat(HELLO, max_tokens=8, temperature=0, ignore_eos=True).text
    assert len(recorder.calls) == 2, "a replay generates nothing: nobody is told of it"
    client.forget("cell-7")
    assert client.conversations(["cell-7"]) == ()
    with pytest.raises(RequestError), client.resume("cell-7") as gone:
        next(gone)


@pytest.mark.engine
def test_cancel_ends_a_conversation_on_the_server(client: LlamaCppClient) -> None:
    with client.chat_stream(HELLO, max_tokens=900, ignore_eos=True, conversation="cell-8") as stream:
        next(stream)
        stream.cancel()
    assert client.conversations(["cell-8"]) == ()
    assert stream.answer.finish_reason == "interrupted"


@pytest.mark.engine
def test_embeddings_with_their_cost(embedder: LlamaCppClient, recorder: Recorder) -> None:
    found = embedder.embed(["a llama", "a server"], model="smol")
    assert len(found) == 2
    assert len(found[0]) == embedder.models()[0].embedding_size
    assert found.model == "smol"
    assert found.input_tokens == recorder.last.outcome.input_tokens == 6
    assert embedder.embeddings("a llama")[0] == pytest.approx(found[0], abs=1e-3)
    (row,) = embedder.embed_tokens("a llama")
    assert len(row) == len(found[0])
    assert [call.operation for call in recorder.calls] == ["embeddings"] * 3
    assert embedder.embeddings([]) == []
    assert len(embedder.embed([])) == 0
    assert len(recorder.calls) == 3


@pytest.mark.engine
def test_ranking(engines: dict[str, Engine], recorder: Recorder) -> None:
    ranker = LlamaCppClient(engines["rank"].url, engines["rank"].key, recorder)
    documents = ["stones", "llamas eat grass", "a server"]
    found = ranker.rerank("what llamas eat", documents)
    assert sorted(one.index for one in found) == [0, 1, 2]
    assert all(one.document == documents[one.index] for one in found)
    assert [one.relevance for one in found] == sorted((one.relevance for one in found), reverse=True)
    assert len(ranker.rerank("x", documents, top_n=1)) == 1
    assert ranker.rerank("x", []) == ()
    assert [call.operation for call in recorder.calls] == ["rerank"] * 2


@pytest.mark.engine
def test_slots_are_saved_restored_erased(embedder: LlamaCppClient) -> None:
    embedder.complete("One, two, three,", max_tokens=2, id_slot=1)
    saved = embedder.slot_save(1, "one.bin")
    assert (saved.slot, saved.tokens) == (1, embedder.slots()[1].tokens)
    assert saved.bytes
    assert embedder.slot_erase(1).tokens == saved.tokens
    restored = embedder.slot_restore(1, "one.bin")
    assert (restored.tokens, restored.bytes) == (saved.tokens, saved.bytes)
    assert restored.duration_s is not None


@pytest.mark.engine
@pytest.mark.parametrize("slot", [2, -1, 9, True, "1"])
def test_a_slot_that_is_not_there(embedder: LlamaCppClient, slot: int) -> None:
    embedder.complete("One,", max_tokens=1, id_slot=1)
    with pytest.raises(CommandError, match="no slot"):
        embedder.slot_erase(slot)
    assert embedder.slots()[1].tokens, "the server would have taken it modulo its slots"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "..", "-x", "a\nb", "a" * 200, "é"])
def test_a_slot_file_is_a_plain_name(name: str) -> None:
    with pytest.raises(CommandError, match="without a folder"):
        LlamaCppClient("http://127.0.0.1:1").slot_save(0, name)


@pytest.mark.engine
def test_properties_and_adapters(embedder: LlamaCppClient, client: LlamaCppClient) -> None:
    assert embedder.set_props()
    assert client.lora_adapters() == ()
    assert client.set_lora({})
    with pytest.raises(CommandError, match="no LoRA adapter 3"):
        client.set_lora({3: 0.5})
    with pytest.raises(CommandError, match="a number"):
        client.set_lora({0: "1"})
    with pytest.raises(NotSupportedError) as caught:
        client.set_props()
    assert caught.value.hint == "%llama start --props --restart"


@pytest.mark.engine
def test_what_the_demo_model_cannot_do(client: LlamaCppClient, recorder: Recorder) -> None:
    for ask_it in (
        lambda: client.infill("def f(", "return x"),
        lambda: client.transcribe(WAV),
        lambda: client.decide(prompt="a"),
        lambda: client.rerank("a", ["b"]),
        lambda: client.request("GET", "/tools"),
    ):
        with pytest.raises(NotSupportedError) as caught:
            ask_it()
        assert caught.value.status in (501, 403)
        assert caught.value.hint
    assert len(recorder.calls) == 4
    assert all(len(call.errors) == 1 for call in recorder.calls), "each is told of once, as failed"


@pytest.mark.engine
def test_pictures_reach_the_server(client: LlamaCppClient) -> None:
    from llamatelemetry_jupyter.api.parts import image, message

    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
    with pytest.raises(RequestError, match="image input is not supported"):
        client.chat([message("What is this?", image(png))], max_tokens=1)


@pytest.mark.engine
def test_thinking_is_ended_only_where_it_runs(client: LlamaCppClient) -> None:
    with client.chat_stream(HELLO, max_tokens=2, reasoning_control=True) as stream:
        for _ in stream:
            pass
    assert stream.id is not None
    assert client.end_reasoning(stream.id) is False


@pytest.mark.engine
def test_any_other_route(client: LlamaCppClient) -> None:
    assert client.request("GET", "/health") == {"status": "ok"}
    assert client.request("POST", "/tokenize", {"content": "a"}) == {"tokens": client.tokenize("a")}
    for method, path in (("GET", "health"), ("GET", "/a b"), ("GET", "/a\r\nX: y"), ("BREW", "/x"), ("GET", "/é")):
        with pytest.raises(CommandError):
            client.request(method, path)


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("chat", (HELLO,), {"n": 2}),
        ("chat", (HELLO,), {"max_completion_tokens": 5}),
        ("chat", (HELLO,), {"max_tokens": True}),
        ("chat", (HELLO,), {"max_tokens": 1.5}),
        ("chat", (HELLO[0],), {}),
        ("chat", ("hello",), {}),
        ("chat", (HELLO,), {"conversation": "a b"}),
        ("chat", (HELLO,), {"conversation": ""}),
        ("complete", (["a", "b"],), {}),
        ("complete", ("a",), {"n_predict": 5}),
        ("respond", ("a",), {"max_output_tokens": 5}),
        ("resume", ("",), {}),
    ],
)
def test_requests_that_cannot_be_meant(name: str, given: tuple[object, ...], options: dict[str, object]) -> None:
    recorder = Recorder()
    with pytest.raises(CommandError) as caught:
        getattr(LlamaCppClient("http://127.0.0.1:1", observer=recorder), name)(*given, **options)
    assert caught.value.hint
    assert not recorder.calls


def test_requests_are_values() -> None:
    asked = generate.chat(HELLO, max_tokens=5)
    assert isinstance(asked, Generation)
    assert asked.body["max_tokens"] == 5
    assert isinstance(ask.tokenize("a"), Request)

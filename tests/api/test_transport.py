"""Connections kept and lost, servers that load, drip, hang or lie: both clients, the same words."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_loopback import dripping, loopback, streamed, whole
from recorder import Recorder

from llamatelemetry_jupyter.api import transport
from llamatelemetry_jupyter.api.async_client import AsyncLlamaCppClient
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import LlamaError, LoadingError, RequestError, ServerError
from llamatelemetry_jupyter.values import Answer

HELLO = [{"role": "user", "content": "Say hello."}]
STREAM = (Path(__file__).parent / "recorded" / "chat.sse").read_bytes()
TOKENS = whole(b'{"tokens":[1,2]}')
LOADING = whole(
    b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', "503 Service Unavailable"
)


def _async(url: str, name: str, args: tuple[Any, ...], options: dict[str, Any], **settings: Any) -> Any:
    async def ask() -> Any:
        async with AsyncLlamaCppClient(url, **settings) as client:
            return await getattr(client, name)(*args, **options)

    return asyncio.run(ask())


def _sync(url: str, name: str, args: tuple[Any, ...], options: dict[str, Any], **settings: Any) -> Any:
    with LlamaCppClient(url, **settings) as client:
        return getattr(client, name)(*args, **options)


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``call(url, name, args, options, **settings)`` of a client made for it."""
    return request.param


# ------------------------------------------------------------------------------------------------- kept connections


def test_a_connection_is_used_again() -> None:
    with loopback(TOKENS, TOKENS, streamed(STREAM), TOKENS) as server, LlamaCppClient(server.url) as client:
        client.tokenize("a")
        client.tokenize("a")
        assert client.chat(HELLO).text
        client.tokenize("a")
        assert server.connections == 2  # an answer is asked for on a new one, which is then kept, too


def test_a_connection_that_the_server_closed_is_not_noticed() -> None:
    with loopback([TOKENS, b""]) as server, LlamaCppClient(server.url) as client:
        assert [client.tokenize("a") for _ in range(3)] == [[1, 2]] * 3
        assert server.connections == 3


def test_a_connection_that_closes_while_it_is_used_again() -> None:
    # The server takes the second request and closes without a word: what repeats nothing may be sent again.
    with loopback(TOKENS, [b""], TOKENS) as server, LlamaCppClient(server.url) as client:
        client.tokenize("a")
        assert client.tokenize("a") == [1, 2]
        assert server.connections == 2
        assert len(server.requests) == 3
    with loopback(TOKENS, [b""], streamed(STREAM)) as server, LlamaCppClient(server.url) as client:
        client.tokenize("a")
        with pytest.raises(ServerError):  # an answer might have begun: never generated twice
            client.chat(HELLO)
        assert (len(server.requests), server.connections) == (2, 2)


def test_a_request_on_a_fresh_connection_is_not_sent_twice(call: Callable[..., Any]) -> None:
    for name, args in (("chat", (HELLO,)), ("load_model", ("m",))):
        with loopback([b""], TOKENS) as server:
            with pytest.raises(ServerError):
                call(server.url, name, args, {})
            assert len(server.requests) == 1


def test_an_answer_that_was_not_read_to_its_end_closes_its_connection() -> None:
    with loopback(streamed(STREAM), TOKENS) as server, LlamaCppClient(server.url) as client:
        with client.chat_stream(HELLO) as stream:
            next(stream)
        client.tokenize("a")
        assert server.connections == 2


def test_many_threads_share_the_connections() -> None:
    with loopback(TOKENS) as server, LlamaCppClient(server.url) as client:
        threads = [threading.Thread(target=lambda: [client.tokenize("a") for _ in range(20)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 160
        assert server.connections <= 160 / 2
        assert len(client._pool._idle) <= 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_use_its_parents_connection() -> None:
    with loopback(TOKENS) as server, LlamaCppClient(server.url) as client:
        client.tokenize("a")
        child = os.fork()
        if child == 0:
            os._exit(client.tokenize("a") != [1, 2])
        assert os.waitpid(child, 0)[1] == 0
        client.tokenize("a")
        assert server.connections == 2


# ----------------------------------------------------------------------------------------------------- while it loads


def test_a_loading_server_is_waited_for(call: Callable[..., Any]) -> None:
    recorder = Recorder()
    for name, args, answer in (("tokenize", ("a",), TOKENS), ("chat", (HELLO,), streamed(STREAM))):
        with loopback(LOADING, LOADING, answer) as server:
            found = call(server.url, name, args, {}, observer=recorder)
            assert found == [1, 2] or found.text
            assert len(server.requests) == 3
    assert len(recorder.calls) == 1
    assert not recorder.last.errors
    assert len(recorder.last.outcomes) == 1


def test_waiting_has_a_bound(call: Callable[..., Any]) -> None:
    recorder = Recorder()
    for name, args in (("tokenize", ("a",)), ("chat", (HELLO,))):
        with loopback(LOADING) as server:
            with pytest.raises(LoadingError) as caught:
                call(server.url, name, args, {}, loading_wait_s=0.2, observer=recorder)
            assert len(server.requests) > 2
            assert caught.value.status == 503
    assert len(recorder.last.errors) == 1


def test_health_does_not_wait(call: Callable[..., Any]) -> None:
    with loopback(LOADING) as server:
        assert call(server.url, "health", (), {}) is False
        assert len(server.requests) == 1


# --------------------------------------------------------------------------------------- garbage, silence, a byte a time


@pytest.mark.parametrize(
    ("name", "args", "body"),
    [
        ("tokenize", ("a",), b"<html>"),
        ("tokenize", ("a",), b'{"tokens":"x"}'),
        ("tokenize", ("a",), b'{"token":[]}'),
        ("tokenize", ("a",), b"[" * 100_000),
        ("tokenize", ("a",), b"\xff\xfe"),
        ("tokenize", ("a",), b""),
        ("pieces", ("a",), b'{"tokens":[{"id":1,"piece":[999]}]}'),
        ("detokenize", ([1],), b"null"),
        ("props", (), b"[]"),
        ("slots", (), b'{"a":1}'),
        ("slots", (), b'[{"id":"x","n_ctx":1}]'),
        ("models", (), b'{"data":[1]}'),
        ("embed", (["a", "b"],), b'{"data":[{"index":0,"embedding":[1]}]}'),
        ("embed", ("a",), b'{"data":[{"index":0,"embedding":[null]}]}'),
        ("embed", ("a",), b'{"data":[{"index":1e999,"embedding":[1]}]}'),
        ("rerank", ("a", ["b"]), b'{"results":[{"index":7,"relevance_score":1}]}'),
        ("lora_adapters", (), b'[{"id":0}]'),
        ("conversations", (["a"],), b'[{"conversation_id":"a"}]'),
        ("count_tokens", (HELLO,), b'{"input_tokens":null}'),
    ],
)
def test_answers_of_unknown_form(call: Callable[..., Any], name: str, args: tuple[Any, ...], body: bytes) -> None:
    recorder = Recorder()
    with loopback(whole(body)) as server:
        with pytest.raises(RequestError) as caught:
            call(server.url, name, args, {}, observer=recorder)
    assert len(caught.value._render_traceback_()) == 2
    assert all(len(one.outcomes) == 1 and one.errors for one in recorder.calls)


def test_metrics_that_are_none(call: Callable[..., Any]) -> None:
    with loopback(whole(b"\xff{{{\nx 1\ny{a=\nz nan\n", kind="text/plain")) as server:
        found = call(server.url, "metrics", (), {})
    assert found.values["x"] == 1
    assert found.output_tokens is None


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00" * 1000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nContent-Type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_answers_that_are_no_http(call: Callable[..., Any], reply: bytes) -> None:
    for name, args in (("tokenize", ("a",)), ("chat", (HELLO,))):
        with loopback([reply, b""]) as server:
            with pytest.raises(LlamaError) as caught:
                call(server.url, name, args, {}, timeout_s=5)
        assert len(caught.value._render_traceback_()) == 2


def test_a_server_that_says_nothing(call: Callable[..., Any]) -> None:
    released = threading.Event()
    for name, args in (("tokenize", ("a",)), ("chat", (HELLO,))):
        with loopback(lambda _: released.wait(20)) as server:
            with pytest.raises(ServerError, match="no answer in time"):
                call(server.url, name, args, {}, timeout_s=0.2)
    released.set()


def test_a_byte_at_a_time_does_not_hold_us_for_ever(call: Callable[..., Any]) -> None:
    # Each byte comes within the timeout, the answer would take minutes: headers, body and stream.
    cases = [
        ("tokenize", ("a",), [dripping(TOKENS * 100, 0.05)]),
        ("tokenize", ("a",), [whole(b"x" * 9)[:-9].replace(b": 9", b": 9000"), dripping(b"1" * 9000, 0.05)]),
        ("chat", (HELLO,), [dripping(streamed(STREAM), 0.05)]),
        ("chat", (HELLO,), [streamed(STREAM)[:97], dripping(b"600\r\n" + b"data: {" * 900, 0.05)]),
    ]
    for name, args, reply in cases:
        with loopback(reply) as server:
            with pytest.raises(ServerError, match=r"no answer in time|for too long"):
                call(server.url, name, args, {}, timeout_s=0.4)


def test_an_answer_without_end_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BODY_BYTES", 1 << 20)

    def endless(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            peer.sendall(b"[" * 65536)

    with loopback(endless) as server:
        with pytest.raises(RequestError, match="larger than"):
            LlamaCppClient(server.url).tokenize("a")


def test_a_stream_behind_a_finished_answer_is_not_waited_for() -> None:
    # The last event is there, the end of the chunks never comes.
    answer = streamed(STREAM).removesuffix(b"0\r\n\r\n")
    released = threading.Event()
    with loopback([answer, lambda _: released.wait(20)], TOKENS) as server, LlamaCppClient(server.url) as client:
        found: Answer = client.chat(HELLO)
        assert found.finish_reason == "stop"
        client.tokenize("a")
        assert server.connections == 2
        released.set()


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.8])
def test_a_stream_that_breaks_off_keeps_what_came(call: Callable[..., Any], cut: float) -> None:
    recorder = Recorder()
    data = streamed(STREAM)
    with loopback([data[: int(len(data) * cut)], b""]) as server:
        with pytest.raises(ServerError, match="in the middle"):
            call(server.url, "chat", (HELLO,), {}, observer=recorder)
    assert recorder.last.outcome.finish_reason == "error"
    assert len(recorder.last.errors) == 1
    assert 'Hi "🦙" naïve'.startswith(recorder.last.outcome.output) or cut > 0.2


def test_a_server_that_is_not_there(call: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for name, args in (("tokenize", ("a",)), ("chat", (HELLO,)), ("embeddings", ("a",))):
        recorder = Recorder()
        with pytest.raises(ServerError, match="connection refused") as caught:
            call(f"http://127.0.0.1:{port}", name, args, {}, observer=recorder)
        assert caught.value.hint == "%llama start"
        assert [len(one.errors) for one in recorder.calls] == ([] if name == "tokenize" else [1])


# ----------------------------------------------------------------------------------------------- a router, as documented
# The wheel's engine is no router: exchanges from the documentation of llama.cpp's router mode.


def test_a_router(call: Callable[..., Any]) -> None:
    listed = b'{"data":[{"id":"a","status":{"value":"loaded","args":[]}},{"id":"b","status":{"value":"unloaded"}}]}'
    with loopback(whole(listed)) as server:
        assert [(one.id, one.status) for one in call(server.url, "models", (), {})] == [
            ("a", "loaded"),
            ("b", "unloaded"),
        ]
    for name, verb, path in (
        ("load_model", b"POST", b"/models/load"),
        ("unload_model", b"POST", b"/models/unload"),
        ("download_model", b"POST", b"/models"),
        ("delete_model", b"DELETE", b"/models?model=a"),
    ):
        with loopback(whole(b'{"success":true}')) as server:
            assert call(server.url, name, ("a",), {}) is True
            head, body = server.requests[0].split(b"\r\n\r\n")
            assert head.startswith(verb + b" " + path + b" ")
            assert verb == b"DELETE" or json.loads(body) == {"model": "a"}
    refused = whole(
        b'{"error":{"code":400,"message":"model is already running","type":"invalid_request_error"}}', "400 Bad Request"
    )
    with loopback(refused) as server:
        with pytest.raises(RequestError, match="already running"):
            call(server.url, "load_model", ("a",), {})
    with loopback(
        whole(b"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n", kind="text/plain")
    ) as server:
        assert call(server.url, "metrics", (), {"model": "a b"}).processing == 1
        assert b"/metrics?model=a+b&autoload=false " in server.requests[0], "asking does not load it"


EVENTS = (
    b'data: {"model":"a","event":"model_status","data":{"status":"loading"}}\n\n:\n\n'
    b'data: {"model":"a","event":"status_change","data":{"status":"loading","progress":{"stages":["text_model"],"current":"text_model","value":0.5}}}\n\n'
    b'data: {"model":"a","event":"status_change","data":{"status":"loaded","info":{}}}\n\n'
)


def test_what_happens_to_a_routers_models() -> None:
    async def told(url: str) -> list[Any]:
        async with AsyncLlamaCppClient(url) as client:
            return [event async for event in client.model_events()]

    with loopback(streamed(EVENTS)) as server:
        for events in (list(LlamaCppClient(server.url).model_events()), asyncio.run(told(server.url))):
            assert [(e.model, e.status, e.progress) for e in events] == [
                ("a", "loading", None),
                ("a", "loading", 0.5),
                ("a", "loaded", None),
            ]
    with loopback(whole(b'{"error":{"code":404,"message":"File Not Found"}}', "404 Not Found")) as server:
        with pytest.raises(RequestError):
            list(LlamaCppClient(server.url).model_events())
        with pytest.raises(RequestError):
            asyncio.run(told(server.url))
    with loopback(streamed(b"data: []\n\n")) as server:
        with pytest.raises(RequestError):
            list(LlamaCppClient(server.url).model_events())


def test_a_model_of_a_router_is_named_in_every_request() -> None:
    with loopback(TOKENS) as server, LlamaCppClient(server.url, model="a") as client:
        client.tokenize("x")
        assert json.loads(server.requests[0].split(b"\r\n\r\n")[1])["model"] == "a"
    with loopback(streamed(STREAM)) as server, LlamaCppClient(server.url, model="a") as client:
        client.chat(HELLO)
        client.chat(HELLO, model="b")
        assert [json.loads(one.split(b"\r\n\r\n")[1])["model"] for one in server.requests] == ["a", "b"]


def test_other_servers_metrics() -> None:
    vllm = b'vllm:num_requests_running{engine="0",model_name="m"} 2\nvllm:num_requests_waiting{engine="0"} 1\nvllm:prompt_tokens_total{engine="0"} 7\nvllm:generation_tokens_total{engine="0"} 3\nvllm:generation_tokens_total{engine="1"} 4\n'
    with loopback(whole(vllm, kind="text/plain")) as server:
        found = LlamaCppClient(server.url).metrics()
    assert (found.processing, found.queued, found.input_tokens, found.output_tokens) == (2, 1, 7, 7)
    assert found.values['generation_tokens_total{engine="1"}'] == 4

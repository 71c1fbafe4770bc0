"""TokenStream when things go wrong: a fault proxy stands in front of the real engine."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from faultproxy import fault_proxy
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import LlamaError, RequestError, ServerError

TELL = [{"role": "user", "content": "Tell me about llamas."}]
FIXED = {"temperature": 0.0, "seed": 3, "ignore_eos": True}
pytestmark = pytest.mark.engine


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def idle(client: LlamaCppClient) -> bool:
    return not any(slot.busy for slot in client.slots())


def through(url: str, engine: Engine, recorder: Recorder) -> LlamaCppClient:
    return LlamaCppClient(url, engine.key, recorder, timeout_s=30)


def test_events_in_their_order(client: LlamaCppClient) -> None:
    with client.chat_stream(TELL, max_tokens=6, **FIXED, cache_prompt=False) as stream:
        events = list(stream)
    kinds = [event.kind for event in events]
    assert kinds[0] == "progress"
    assert kinds[-2:] == ["finish", "usage"]
    assert kinds.count("text") == 6
    progress = [event.progress for event in events if event.kind == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    texts = [event for event in events if event.kind == "text"]
    assert [event.index for event in texts] == list(range(6))
    assert "".join(event.text for event in texts) == stream.answer.text
    assert all(a.t_ns <= b.t_ns for a, b in pairwise(events))
    assert stream.ended


def test_answer_grows_while_it_streams(client: LlamaCppClient) -> None:
    with client.chat_stream(TELL, max_tokens=8, **FIXED) as stream:
        seen = ""
        for event in stream:
            seen += event.text if event.kind == "text" else ""
            assert stream.answer.text == seen
        assert stream.answer.finish_reason == "length"


@pytest.mark.parametrize("piece", [1, 7])
def test_any_piece_size_gives_the_same_text(
    client: LlamaCppClient, engine: Engine, recorder: Recorder, piece: int
) -> None:
    direct = client.chat(TELL, max_tokens=12, **FIXED)
    with fault_proxy(engine.url, piece=piece) as proxy:
        cut = through(proxy.url, engine, recorder).chat(TELL, max_tokens=12, **FIXED)
    assert cut.text == direct.text
    assert cut.output_tokens == direct.output_tokens


def test_crlf_and_comments_between_events(client: LlamaCppClient) -> None:
    body = (
        b'data: {"choices":[{"delta":{"role":"assistant","content":null},"index":0,"finish_reason":null}]}\r\n\r\n'
        b":\r\n\r\n"
        b'data: {"choices":[]}\r\n\r\n'
        b'data: {"choices":[{"delta":{"content":"\xf0\x9f\xa6\x99"},"index":0,"finish_reason":null}]}\r\n\r\n'
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"},"index":0,"finish_reason":"stop"}]}\r\n\r\n'
        b"data: [DONE]\r\n\r\n"
    )
    answer = answered(body).chat(TELL)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("🦙", "hm", "stop")
    assert answer.input_tokens is None
    assert answer.output_tokens == 2


def test_tool_calls_are_put_together() -> None:
    # The demo model's template knows no tools: chunks as llama.cpp's documentation shows them.
    def chunk(call: str) -> bytes:
        return b'data: {"choices":[{"delta":{"tool_calls":[%s]},"index":0,"finish_reason":null}]}\n\n' % call.encode()

    body = (
        chunk('{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}')
        + chunk('{"index":0,"function":{"arguments":"{\\"city\\":"}}')
        + chunk('{"index":0,"function":{"arguments":"\\"Paris\\"}"}}')
        + chunk('{"index":1,"id":"c2","type":"function","function":{"name":"time","arguments":"{}"}}')
        + b'data: {"choices":[{"delta":{},"index":0,"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    )
    answer = answered(body).chat(TELL)
    assert answer.finish_reason == "tool_calls"
    assert [call["function"] for call in answer.tool_calls] == [
        {"name": "weather", "arguments": '{"city":"Paris"}'},
        {"name": "time", "arguments": "{}"},
    ]
    assert answer.tool_calls[0]["id"] == "c1"
    assert answer.timings.ttft_s is not None


def test_a_finished_answer_without_done_is_complete() -> None:
    answer = answered(TOKEN + b'data: {"choices":[{"delta":{},"index":0,"finish_reason":"stop"}]}\n\n').chat(TELL)
    assert (answer.text, answer.finish_reason) == ("Hi", "stop")


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut_after", [0, 20, 150, 2500, 4000])
def test_a_cut_keeps_what_came(
    client: LlamaCppClient, engine: Engine, recorder: Recorder, cut_after: int, reset: bool
) -> None:
    whole = client.chat(TELL, max_tokens=30, **FIXED)
    with fault_proxy(engine.url, cut_after=cut_after, reset=reset) as proxy:
        stream = through(proxy.url, engine, recorder).chat_stream(TELL, max_tokens=30, **FIXED)
        with pytest.raises(ServerError), stream:
            for _ in stream:
                pass
    call = recorder.last
    assert call.outcome.finish_reason == stream.answer.finish_reason == "error"
    assert call.errors
    assert whole.text.startswith(stream.answer.text)
    assert stream.answer.error == str(call.errors[0])
    if cut_after >= 2500 and not reset:
        assert stream.answer.output_tokens == len(call.outcome.gaps_s) + 1 > 1
        assert stream.answer.timings.decode_s
    until(lambda: idle(client))


def test_killed_engine_leaves_the_partial_answer(recorder: Recorder) -> None:
    with running_engine() as engine:
        stream = through(engine.url, engine, recorder).chat_stream(TELL, max_tokens=400, **FIXED)
        kinds = []
        with pytest.raises(ServerError) as caught, stream:
            for event in stream:
                kinds.append(event.kind)
                if len(kinds) == 10:
                    os.kill(engine.process.pid, signal.SIGKILL)
        assert kinds[-1] == "error"
        assert stream.answer.text
        assert stream.answer.finish_reason == "error"
        assert recorder.last.errors == [caught.value]
        assert caught.value.hint is not None
        assert "%llama" in caught.value.hint


def test_cancel_from_another_thread_frees_the_slot(client: LlamaCppClient, recorder: Recorder) -> None:
    with client.chat_stream(TELL, max_tokens=900, **FIXED) as stream:
        for count, _ in enumerate(stream):
            if count == 5:
                threading.Thread(target=stream.cancel).start()
    assert stream.answer.finish_reason == "interrupted"
    assert recorder.last.outcome.finish_reason == "interrupted"
    assert not recorder.last.outcome.abandoned
    assert not recorder.last.errors
    assert stream.answer.text
    assert (stream.answer.output_tokens or 0) < 900
    until(lambda: idle(client))


def test_interrupt_while_waiting_for_a_token(client: LlamaCppClient, recorder: Recorder) -> None:
    stream = client.chat_stream(TELL, max_tokens=900, **FIXED)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            pass
    timer.join()
    # The interrupt may hit the loop's body rather than next(): then the stream is still open, and closing ends it.
    stream.close()
    assert recorder.last.outcome.finish_reason == stream.answer.finish_reason == "interrupted"
    assert not recorder.last.errors
    until(lambda: idle(client))


def test_interrupt_in_the_body_of_a_with_block(client: LlamaCppClient, recorder: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt), client.chat_stream(TELL, max_tokens=900, **FIXED) as stream:
        next(iter(stream))
        raise KeyboardInterrupt
    assert recorder.last.outcome.finish_reason == "interrupted"
    assert not recorder.last.outcome.abandoned


def test_breaking_out_of_a_loop_ends_the_request(client: LlamaCppClient, recorder: Recorder) -> None:
    for event in client.chat_stream(TELL, max_tokens=900, **FIXED):
        if event.kind == "text":
            break
    assert recorder.last.outcome.abandoned
    assert not recorder.last.errors
    until(lambda: idle(client))


def test_a_stream_that_nobody_reads_ends_with_its_last_reference(client: LlamaCppClient, recorder: Recorder) -> None:
    stream = client.chat_stream(TELL, max_tokens=900, **FIXED)
    del stream
    gc.collect()
    assert recorder.last.outcome.abandoned
    until(lambda: idle(client))


def test_half_read_stream_is_no_leak_of_sockets(client: LlamaCppClient) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with client.chat_stream(TELL, max_tokens=50, **FIXED) as stream:
            next(stream)
    del stream
    assert len(os.listdir("/proc/self/fd")) == before
    until(lambda: idle(client))


# ------------------------------------------------------------------------------------- answers that nobody should give


def answered(
    body: bytes, kind: str = "text/event-stream", status: str = "200 OK", recorder: Recorder | None = None
) -> LlamaCppClient:
    """A client of a listener that gives one fixed answer, whatever was asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.settimeout(5)
            request = peer.recv(65536)
            while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < length_of(request):
                request += peer.recv(65536)
            peer.sendall(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode() + body)

    threading.Thread(target=serve, daemon=True).start()
    return LlamaCppClient(
        f"http://127.0.0.1:{listener.getsockname()[1]}", observer=recorder, timeout_s=5, loading_wait_s=0
    )


def length_of(request: bytes) -> int:
    return int(request.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


TOKEN = b'data: {"choices":[{"delta":{"content":"Hi"},"index":0,"finish_reason":null}]}\n\n'


@pytest.mark.parametrize(
    "rest",
    [
        b"data: {not json}\n\n",
        b"data: \xff\xfe\n\n",
        b"data: []\n\n",
        b"data: 5\n\n",
        b"data: null\n\n",
        b'data: {"choices":5}\n\n',
        b'data: {"choices":["x"]}\n\n',
        b'data: {"choices":[{"delta":"x"}]}\n\n',
        b'data: {"choices":[{"delta":{"content":["a"]}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[7]}}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":9}]}\n\n',
        b'data: {"prompt_progress":3}\n\n',
    ],
)
def test_events_of_unknown_form(rest: bytes, recorder: Recorder) -> None:
    stream = answered(TOKEN + rest, recorder=recorder).chat_stream(TELL)
    with pytest.raises(RequestError), stream:
        for _ in stream:
            pass
    assert stream.answer.text == "Hi"
    assert recorder.last.errors
    assert recorder.last.outcome.finish_reason == "error"


def test_error_in_the_middle_of_a_stream(recorder: Recorder) -> None:
    event = b'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
    stream = answered(TOKEN + event, recorder=recorder).chat_stream(TELL)
    events = []
    with pytest.raises(RequestError) as caught, stream:
        for each in stream:
            events.append(each)
    assert [each.kind for each in events] == ["text", "error"]
    assert caught.value.status == 500
    assert "context is full" in str(caught.value)
    assert stream.answer.text == "Hi"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            "503 Service Unavailable",
            b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
            "loading",
        ),
        (
            "403 Forbidden",
            b'{"error":{"message":"this feature is disabled","type":"feature_disabled"}}',
            "switched off",
        ),
        ("404 Not Found", b"<html>\x1b[31mnope</html>", "address"),
        ("500 Internal Server Error", b'{"error":"broken"}', "broken"),
        ("502 Bad Gateway", b"", "502"),
        ("400 Bad Request", b'{"error":{"message":"' + b"x" * 5000 + b'"}}', "refused"),
    ],
)
def test_refusals_are_two_harmless_lines(status: str, body: bytes, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        answered(body, "application/json", status).chat(TELL)
    lines = caught.value._render_traceback_()
    assert len(lines) == 2
    assert says in lines[0]
    assert len(lines[0]) < 500
    assert "\x1b" not in lines[0]
    assert caught.value.status == int(status[:3])


def test_an_answer_that_is_no_stream() -> None:
    with pytest.raises(RequestError, match="not a stream"):
        answered(b"<html>hello</html>", "text/html").chat(TELL)


def test_a_server_that_falls_silent(recorder: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = LlamaCppClient(f"http://127.0.0.1:{silent.getsockname()[1]}", observer=recorder, timeout_s=0.2)
        with pytest.raises(ServerError, match="no answer in time"):
            client.chat(TELL)
    assert recorder.last.errors


def test_garbage_in_the_bytes_never_shows_a_traceback(engine: Engine, recorder: Recorder) -> None:
    for position in range(0, 2400, 160):
        state = {"at": position}

        def spoil(data: bytes, state: dict[str, int] = state) -> bytes:
            at = state["at"]
            state["at"] -= len(data)
            return data[:at] + b"\x00\xff}{" + data[at:] if 0 <= at < len(data) else data

        with fault_proxy(engine.url, edit=spoil) as proxy:
            stream = through(proxy.url, engine, recorder).chat_stream(TELL, max_tokens=8, **FIXED)
            with suppress(LlamaError), stream:
                for _ in stream:
                    pass
        assert recorder.last.outcome.finish_reason in ("error", "length")

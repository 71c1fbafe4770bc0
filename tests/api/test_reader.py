"""Recorded streams of the real engine, cut and spoilt in every way: the reader says what the slow and plain way says."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamatelemetry_jupyter.api import reader as reader_module
from llamatelemetry_jupyter.api.chunks import decoded
from llamatelemetry_jupyter.api.reader import Reader
from llamatelemetry_jupyter.api.reception import Reception
from llamatelemetry_jupyter.errors import LlamaError, RequestError
from llamatelemetry_jupyter.values import TokenEvent

RECORDED = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "recorded").glob("*.sse"))}
TEXT = 'Hi "🦙" naïve \\ 日本語\n'


def read(pieces: list[bytes], limit: int = 0) -> tuple[list[TokenEvent], Reader]:
    reader = Reader(Reception(limit), keep=True)
    events = []
    for piece in pieces:
        events += reader.feed(piece)
        if reader.over:
            break
    return events, reader


def plainly(stream: bytes) -> tuple[str, str | None, bool]:
    """Text, finish reason and whether it failed, read by the standard's words: whole, line by line, json, no short cuts."""
    into = Reception()
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *blocks, _ = text.split(b"\n\n")
    try:
        for block in blocks:
            data = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
            if not data:
                continue
            if (payload := b"\n".join(data)) == b"[DONE]":
                break
            for _ in decoded(json.loads(payload.decode()), into, 0):
                pass
            if into.done:
                break
    except Exception:  # whatever a spoilt stream does to this plain reading, ours must fail there, too
        return "".join(into.texts), into.finish_reason, True
    return "".join(into.texts), into.finish_reason, False


def same(reader: Reader) -> tuple[str, str | None, bool]:
    got = reader.reception
    return "".join(got.texts), got.finish_reason, reader.failure is not None


def cut(stream: bytes, chance: random.Random) -> list[bytes]:
    edges = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice([1, 3, 20, 200])))
    edges = [0, *edges, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


@pytest.mark.parametrize("name", RECORDED)
def test_every_format_gives_the_same_answer(name: str) -> None:
    events, reader = read([RECORDED[name]])
    got = reader.reception
    text = "".join(got.texts)
    assert text.startswith(TEXT) or name == "messages"  # that route takes no grammar
    assert text == "".join(event.text for event in events if event.kind == "text")
    assert got.finish_reason == "stop"
    assert got.response_id is not None or name == "completion"
    assert [event.index for event in events if event.kind == "text"] == list(range(len(got.times)))
    assert reader.failure is None
    _, input_tokens, output_tokens = got.accounts(0)
    assert output_tokens is not None
    assert output_tokens > len(got.times) - 2  # characters of several tokens are one event
    assert input_tokens or name == "chat-logprobs"
    kinds = [event.kind for event in events]
    assert kinds[0] == "progress" or name == "messages"
    assert kinds.index("finish") > kinds.index("text")


@pytest.mark.parametrize("name", RECORDED)
def test_one_event_per_read_is_what_the_engine_sends(name: str) -> None:
    pieces = [block + b"\n\n" for block in RECORDED[name].split(b"\n\n")[:-1]]
    events, reader = read(pieces)
    assert [event[1:] for event in events] == [event[1:] for event in read([RECORDED[name]])[0]]
    assert reader.events == events


@pytest.mark.parametrize("newline", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", RECORDED)
def test_other_ends_of_line(name: str, newline: bytes) -> None:
    stream = RECORDED[name].replace(b"\n", newline)
    blocks = [block + newline * 2 for block in stream.split(newline * 2)[:-1]]
    for pieces in ([stream, newline], [*blocks, newline]):
        assert same(read(pieces)[1]) == plainly(RECORDED[name])


@pytest.mark.parametrize("name", RECORDED)
def test_a_byte_at_a_time(name: str) -> None:
    stream = RECORDED[name]
    assert same(read([stream[i : i + 1] for i in range(len(stream))])[1]) == plainly(stream)


def test_bytes_around_the_text_are_learnt_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    decodes = []
    real = reader_module._loads
    monkeypatch.setattr(reader_module, "_loads", lambda payload: decodes.append(payload) or real(payload))
    blocks = [block + b"\n\n" for block in RECORDED["chat"].split(b"\n\n")[:-1]]
    first = next(i for i, block in enumerate(blocks) if b'"content":"' in block)
    start = re.search(rb'"content":("[^"]*")', blocks[first])
    assert start is not None

    def saying(text: bytes) -> bytes:
        return blocks[first].replace(start[1], text)

    texts = [*'a " \\ \n é 🦙 \u2028 \x7f \x07'.split(" "), '"}}],"x":1', "data: x\n\n", "\\", '\\"']
    made = [saying(json.dumps(text).encode()) for text in texts]
    made += [saying(json.dumps(text, ensure_ascii=False).encode()) for text in texts]
    _, reader = read([*blocks[:first], blocks[first], *made])
    assert "".join(reader.reception.texts) == json.loads(start[1]) + "".join(texts) * 2
    assert len(decodes) <= first + 2  # the first text, and the marker that proves what was learnt

    spoilt = [
        saying(b'"a"x'),
        saying(b'"a","content":"b"'),
        saying(b'"\xff"'),
        saying(b'"\n"'),
        saying(b'"\\x"'),
        saying(b"null"),
    ]
    for one in spoilt:
        stream = [*blocks[:first], blocks[first], made[0], one, made[0]]
        assert same(read(stream)[1]) == plainly(b"".join(stream)), one


def test_events_that_differ_in_more_than_their_text() -> None:
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    stream = [b"data: " + json.dumps({**chunk, "n": n}).encode() + b"\n\n" for n in range(50)]
    _, reader = read(stream)
    assert reader.reception.texts == ["a"] * 50


def test_both_decoders_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with_orjson = {name: same(read([stream])[1]) for name, stream in RECORDED.items()}
    odd = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83e"},"finish_reason":null}],"n":NaN}\n\n'
    odd_with = same(read([odd])[1])
    monkeypatch.setitem(sys.modules, "orjson", None)
    monkeypatch.setattr(reader_module, "_loads", reader_module._decoder())
    assert {name: same(read([stream])[1]) for name, stream in RECORDED.items()} == with_orjson
    assert same(read([odd])[1]) == odd_with == ("\ud83e", None, False)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 200_000,
        b'{"usage":{"completion_tokens":1e999},"choices":[]}',
        b'{"timings":{"predicted_n":1e400,"prompt_ms":-1e308},"choices":[]}',
        b'{"timings":{"prompt_n":' + b"9" * 4000 + b'},"choices":[]}',
        b'{"prompt_progress":{"total":1,"cache":1e308,"processed":-1}}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":1e999}]}}]}',
        b'{"type":"response.completed"}',
        b'{"type":"content_block_delta","delta":{}}',
        b'{"type":"message_start","message":[]}',
        b'{"error":{"code":' + b"9" * 400 + b',"message":{"a":[]}}}',
    ],
)
def test_hostile_figures(payload: bytes) -> None:
    _, reader = read([b"data: " + payload + b"\n\n"])
    reader.reception.accounts(0)
    assert reader.failure is None or isinstance(reader.failure, RequestError)


# ------------------------------------------------------------------------------- what the demo model cannot be made to say
# Its template knows no tools and no thinking: events as the documentation of the formats shows them.


def test_tool_calls_of_the_responses_format() -> None:
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m"}},
        {"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "hm"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"city":'},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '"Paris"}'},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "usage": {"input_tokens": 5, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 2}}}},
    ]  # fmt: skip
    told, reader = read([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events])
    got = reader.reception
    assert [call["function"] for call in got.tool_calls()] == [{"name": "weather", "arguments": '{"city":"Paris"}'}]
    assert (got.finish_reason, got.reasoning, got.usage) == ("tool_calls", ["hm"], (5, 9, 2))
    assert [event.kind for event in told] == ["reasoning", "tool_call", "tool_call", "tool_call", "finish", "usage"]


def test_tool_calls_of_the_messages_format() -> None:
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 5, "cache_read_input_tokens": 2}}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Paris"}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]  # fmt: skip
    _, reader = read([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events])
    got = reader.reception
    assert [call["function"] for call in got.tool_calls()] == [{"name": "weather", "arguments": '{"city":"Paris"}'}]
    assert (got.finish_reason, got.reasoning, got.usage, got.done) == ("tool_calls", ["hm"], (7, 9, 2), True)


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n',
        b'event: error\ndata: {"type":"error","code":"server_error","message":"busy"}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"busy"}}}\n\n',
        b'data: {"error":{"code":500,"message":"busy","type":"server_error"}}\n\n',
        b'data: {"error":"busy"}\n\n',
    ],
)
def test_errors_in_the_middle_of_each_format(event: bytes) -> None:
    before = RECORDED["messages"][: RECORDED["messages"].index(b"event: content_block_stop")]
    events, reader = read([before, event, RECORDED["messages"]])
    assert isinstance(reader.failure, RequestError)
    assert "busy" in str(reader.failure)
    assert "".join(e.text for e in events) == plainly(RECORDED["messages"])[0] != ""


def test_an_answer_at_the_limit_of_the_responses_format_is_told_as_such() -> None:
    _, _, count = read([RECORDED["responses"]])[1].reception.accounts(0)
    assert count is not None
    assert read([RECORDED["responses"]], limit=count)[1].reception.finish_reason == "length"
    assert read([RECORDED["responses"]], limit=count + 1)[1].reception.finish_reason == "stop"


def test_logprobs_are_per_token_with_their_alternatives() -> None:
    events, _ = read([RECORDED["chat-logprobs"]])
    texts = [event for event in events if event.kind == "text"]
    assert all(event.token_id is not None and event.logprob is not None and event.logprob <= 0 for event in texts)
    assert all(len(event.alternatives) == 2 for event in texts)
    others = [one for event in texts for one in event.alternatives]
    assert all(one.logprob <= 0 and one.token_id is not None and one.bytes is not None for one in others)
    assert next(one.bytes for one in others if one.text == "\ufffd") == b"\x9c", "a part of a character keeps its bytes"


def test_a_delta_of_several_known_tokens_is_several_events() -> None:
    known = [{"id": 1, "token": "a", "logprob": -1.0, "top_logprobs": []}, {"id": 2, "token": "b", "logprob": -2.0}]
    chunk = {"choices": [{"index": 0, "delta": {"content": "ab"}, "logprobs": {"content": known}}]}
    events, _ = read([b"data: " + json.dumps(chunk).encode() + b"\n\n"])
    assert [(event.text, event.token_id, event.logprob, event.index) for event in events] == [
        ("a", 1, -1.0, 0),
        ("b", 2, -2.0, 1),
    ]


def test_what_a_model_thinks_has_logprobs_too() -> None:
    known = [{"id": 1, "token": "hm", "logprob": -1.0, "bytes": [104, 109], "top_logprobs": []}]
    chunk = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": {"content": known}}]}
    (event,), reader = read([b"data: " + json.dumps(chunk).encode() + b"\n\n"])
    assert (event.kind, event.text, event.token_id, event.logprob) == ("reasoning", "hm", 1, -1.0)
    assert (reader.reception.reasoning, reader.reception.texts) == (["hm"], [])


# ---------------------------------------------------------------------------------------------------------- campaigns


@pytest.mark.faults
def test_ten_thousand_random_splits(scale: float, fault_report: Callable[..., None]) -> None:
    chance, tried, survived, begun = random.Random(11), max(100, round(10_000 * scale)), 0, time.monotonic()
    names = list(RECORDED)
    expected = {name: plainly(stream) for name, stream in RECORDED.items()}
    for number in range(tried):
        name = names[number % len(names)]
        stream = RECORDED[name]
        if chance.random() < 0.3:
            stream = stream.replace(b"\n", b"\r\n")
        survived += same(read(cut(stream, chance))[1]) == expected[name]
    fault_report(
        id="stream_splits",
        what="recorded streams of all formats cut at random places, a third of them with CR LF: the same text, reason and tokens",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


def mutated(stream: bytes, chance: random.Random) -> bytes:
    """One to three of: a byte changed, removed, doubled, a piece moved or cut out, bytes put in that mean something."""
    for _ in range(chance.randint(1, 3)):
        a, b = sorted((chance.randrange(len(stream)), chance.randrange(len(stream))))
        match chance.randrange(7):
            case 0:
                stream = stream[:a] + bytes([chance.randrange(256)]) + stream[a + 1 :]
            case 1:
                stream = stream[:a] + stream[a + 1 :]
            case 2:
                stream = stream[:a] + stream[a : a + 1] * 2 + stream[a + 1 :]
            case 3:
                b = min(b, a + 300)
                stream = stream[:a] + stream[b:] + stream[a:b]
            case 4:
                stream = stream[:a] + stream[min(b, a + 300) :]
            case 5:
                some = [
                    b"\n",
                    b"\n\n",
                    b"\r",
                    b'"',
                    b"\\",
                    b"}",
                    b"null",
                    b"\x00",
                    b"\xff",
                    b"data: ",
                    b"1e999",
                    b"[",
                    b"\\ud83e",
                ]
                stream = stream[:a] + chance.choice(some) + stream[a:]
            case _:
                other = RECORDED[chance.choice(list(RECORDED))]
                stream = stream[:a] + other[chance.randrange(len(other)) :]
    return stream or b"x"


@pytest.mark.faults
def test_ten_thousand_mutations(scale: float, fault_report: Callable[..., None]) -> None:
    chance, tried, survived, begun = random.Random(12), max(100, round(10_000 * scale)), 0, time.monotonic()
    names = list(RECORDED)
    for number in range(tried):
        stream = mutated(RECORDED[names[number % len(names)]], chance)
        pieces = cut(stream, chance) if chance.random() < 0.5 else [b + b"\n\n" for b in stream.split(b"\n\n")]
        _, reader = read(pieces)
        reader.reception.accounts(0)
        known = reader.failure is None or isinstance(reader.failure, LlamaError)
        # Text of events behind a failure is not read; of those before it, none may be lost or changed.
        survived += known and same(reader) == plainly(b"".join(pieces))
    fault_report(
        id="stream_mutations",
        what="recorded streams with bytes changed, lost, doubled, moved or put in: what the plain reading of the standard gives, or our own error",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried

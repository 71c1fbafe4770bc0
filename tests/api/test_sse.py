"""Bytes → event payloads, for every way to cut them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter.api import sse
from llamatelemetry_jupyter.api.sse import EventParser, EventSizeError

STREAM = (
    b': ping\n\ndata: {"a":"\xf0\x9f\xa6\x99"}\n\n:\n\nevent: error\ndata: {"b":1}\n\n'
    b'id: 7\ndata: {"c":\ndata: 2}\n\ndata:[DONE]\n\n'
)
PAYLOADS = ['{"a":"🦙"}'.encode(), b'{"b":1}', b'{"c":\n2}', b"[DONE]"]


def parsed(pieces: list[bytes]) -> list[bytes]:
    parser = EventParser()
    return [payload for piece in pieces for payload in parser.feed(piece)]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_two_pieces_cut_at_every_position(newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    end = [b"\n"] if newline == b"\r" else []  # a lone CR at the end waits for a possible LF
    for cut in range(len(stream) + 1):
        assert parsed([stream[:cut], stream[cut:], *end]) == PAYLOADS


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_one_byte_at_a_time(newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == PAYLOADS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_any_cuts(cuts: list[int], crlf: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    edges = [0, *sorted(cuts), len(stream)]
    assert parsed([stream[a:b] for a, b in pairwise(edges)]) == PAYLOADS


def test_event_over_many_reads() -> None:
    big = b"x" * 3_000_000
    stream = b"data: " + big + b"\n\n"
    assert parsed([stream[i : i + 65536] for i in range(0, len(stream), 65536)]) == [big]


def test_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100_000)
    with pytest.raises(EventSizeError):
        parsed([b"data: ", *[b"x" * 65536] * 3])

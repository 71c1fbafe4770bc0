"""How often a kernel has itself sampled: while a call runs, and no longer, however the call ends."""

from __future__ import annotations

import gc
import os
import signal
import time

import pytest

from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.session import Session

pytestmark = pytest.mark.engine


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    made = Session()
    made.start("smollm2-135m", ctx=512, warmup=False)
    yield made
    made.close()


def wanted(session):
    return session.sampler.source.wanted_hz


def wait_for_first_token(stream):
    for event in stream:
        if event.kind == "text":
            return


def test_a_call_is_read_ten_times_a_second_until_it_has_ended(session):
    assert wanted(session) == 1.0
    stream = session.engine().stream("Tell me about llamas.", max_tokens=60, ignore_eos=True)
    wait_for_first_token(stream)
    assert wanted(session) == 10.0
    before = session.sampler.source.since(0)[0]
    list(stream)
    assert stream.answer.finish_reason == "length"
    assert wanted(session) == 1.0
    ring = session.sampler.source
    assert ring._burst[0] == 10.0  # and a second longer
    assert 0.5 < ring._burst[1] - time.monotonic() <= 1.0
    assert ring.since(0)[0] > before


@pytest.mark.parametrize("end", ["left", "dropped", "never read", "refused", "interrupted"])
def test_however_a_call_ends_its_wish_ends_with_it(session, end):
    engine = session.engine()
    if end == "left":
        with engine.stream("Hello", max_tokens=200, ignore_eos=True) as stream:
            wait_for_first_token(stream)
            assert wanted(session) == 10.0
    elif end == "dropped":
        stream = engine.stream("Hello", max_tokens=200, ignore_eos=True)
        wait_for_first_token(stream)
        assert wanted(session) == 10.0
        del stream
    elif end == "never read":
        engine.stream("Hello", max_tokens=5)
    elif end == "refused":
        with pytest.raises(LlamaError):
            engine.chat("Hello " * 2000, max_tokens=5)
    else:
        stream = engine.stream("Hello", max_tokens=400, ignore_eos=True)
        with pytest.raises(KeyboardInterrupt):
            for event in stream:
                if event.kind == "text":
                    os.kill(os.getpid(), signal.SIGINT)
        del stream
    gc.collect()
    until(lambda: wanted(session) == 1.0)


def test_after_a_short_call_there_is_soon_a_reading_from_after_its_end(session):
    time.sleep(1.1)  # the sampler is idle: its last reading may be a second old
    session.engine().chat("Hi", max_tokens=1)
    end_ns = session.spans.rows(last=1)[0].end_ns
    session.settle()
    assert all(one.t_ns[-1] > end_ns for one in session.samples.latest().servers)


def test_a_killed_sampler_is_back_with_the_next_call(session, monkeypatch):
    first = session.sampler.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: not session.sampler.alive)
    monkeypatch.setattr(session.sampler, "_started", time.monotonic() - 6)
    session.engine().chat("Hi", max_tokens=1)
    assert session.sampler.alive
    assert session.sampler.pid != first
    os.kill(session.sampler.pid, signal.SIGKILL)
    until(lambda: not session.sampler.alive)
    monkeypatch.setattr(session.sampler, "_started", time.monotonic() - 6)
    session.snapshot()  # what a live dashboard asks for
    assert session.sampler.alive

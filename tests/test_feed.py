"""What a dashboard receives while its kernel works: few messages, numbered, nothing twice, nothing lost for good."""

from __future__ import annotations

import base64
import gc
import json
import math
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import viewworld as world

from llamatelemetry_jupyter import feed as feed_module
from llamatelemetry_jupyter.feed import MAX_PER_SECOND, Feed, layout
from llamatelemetry_jupyter.values import DeviceSample, OwnerBytes, Samples, ServerSample
from llamatelemetry_jupyter.views.model import snapshot, state

pytestmark = pytest.mark.floor

FIXTURE = Path(__file__).parents[1] / "js" / "test" / "frame.json"
SECOND = 10**9


class Clock:
    """Time that tests move on; samples are taken at it."""

    def __init__(self) -> None:
        self.s = 0.0

    def now_ns(self) -> int:
        return world.T0 + int(self.s * SECOND)


class Ring:
    """A SampleSource that samples are added to."""

    def __init__(self) -> None:
        self.added: list[DeviceSample | ServerSample] = []

    def since(self, seq):
        return len(self.added), self._samples(self.added[seq:]), 0

    def window(self, t0_ns, t1_ns, max_points=None):
        return self._samples([s for s in self.added if t0_ns <= s.t_ns <= t1_ns])

    def latest(self):
        whole = self._samples(self.added)
        return Samples.of([d.row(-1) for d in whole.devices], [s.row(-1) for s in whole.servers])

    def _samples(self, rows):
        return Samples.of(
            [s for s in rows if isinstance(s, DeviceSample)], [s for s in rows if isinstance(s, ServerSample)]
        )


class Store(world.Spans):
    """A SpanSource that spans are added to."""

    def __init__(self) -> None:
        super().__init__([])
        self.subscribers = []

    def add(self, rows):
        self.all = sorted([*self.all, *rows], key=lambda r: r.end_ns)
        for fn in list(self.subscribers):
            fn()

    def subscribe(self, fn):
        self.subscribers.append(fn)
        return lambda: self.subscribers.remove(fn) if fn in self.subscribers else None


class Page:
    """A widget as a feed sees it."""

    def __init__(self) -> None:
        self.comm = object()
        self.got: list[tuple[dict, list[bytes]]] = []
        self.failing = False
        self.snapshot, self.seq = {}, 0
        self.held = []

    def send(self, content, buffers=None):
        if self.failing:
            raise RuntimeError("comm is closed")
        json.dumps(content)
        self.got.append((content, list(buffers or [])))

    @contextmanager
    def hold_sync(self):
        yield
        self.held.append((self.snapshot, self.seq))

    def of(self, kind):
        return [(content, buffers) for content, buffers in self.got if content["type"] == kind]


@pytest.fixture
def kernel(monkeypatch):
    """A session's sources and a feed on them; ``run(seconds)`` lets time pass."""
    clock, ring, store, page = Clock(), Ring(), Store(), Page()
    monkeypatch.setattr(feed_module, "now_ns", clock.now_ns)
    monkeypatch.setattr(feed_module.time, "monotonic", lambda: clock.s)

    class Session:
        def snapshot(self):
            return snapshot(store, ring, clock.now_ns(), 900, handle=world.handle(), window_s=120)

        def state(self, most_spans):
            return state(store, ring, clock.now_ns(), handle=world.handle(), most_spans=most_spans)

    session = Session()

    def sample(owners=(("weights", 100), ("kv", 50)), tokens=None, state="ready"):
        made = tuple(OwnerBytes("host", owner, size) for owner, size in owners)
        ring.added.append(DeviceSample(clock.now_ns(), "host", 150, 1000, owners=made))
        if tokens is not None:
            busy = int(state == "generating")
            ring.added.append(
                ServerSample(clock.now_ns() + 30_000_000, "default", state, busy, 4, 0, 7, 4096, 5, tokens)
            )

    sample(tokens=0)
    made = Feed(session.snapshot, session.state, ring, store, page.send)

    def run(seconds, **sampled):
        for _ in range(round(seconds / 0.5)):
            clock.s += 0.5
            if sampled:
                sample(**sampled)
            clock.s += 0.2
            made.tick()
            clock.s -= 0.2

    return SimpleNamespace(
        clock=clock, ring=ring, store=store, page=page, session=session, feed=made, sample=sample, run=run
    )


def rows_of(content, buffers):
    values = struct.unpack(f"<{len(buffers[0]) // 8}d", buffers[0])
    width = len(values) // content["rows"]
    return [values[i : i + width] for i in range(0, len(values), width)]


def test_the_first_message_is_everything_then_come_rows(kernel):
    kernel.run(3, tokens=0)
    assert [content["type"] for content, _ in kernel.page.got][:3] == ["snapshot", "frame", "frame"]
    assert [content["seq"] for content, _ in kernel.page.got] == list(range(1, len(kernel.page.got) + 1))
    whole = kernel.page.got[0][0]["snapshot"]
    times = list(whole["points"]["t_ms"])
    for content, buffers in kernel.page.of("frame"):
        assert content["layout"] == layout([one["id"] for one in whole["series"]])
        times += [row[0] for row in rows_of(content, buffers)]
    # Every sample once, in order.
    assert times == [(world.T0 + n * SECOND // 2) / 1e6 for n in range(7)]


def test_values_stand_in_the_order_of_the_series(kernel):
    kernel.run(1, tokens=0)
    kernel.run(0.5, tokens=24, state="generating")
    series = [one["id"] for one in kernel.page.got[0][0]["snapshot"]["series"]]
    (row,) = rows_of(*kernel.page.of("frame")[-1])
    found = dict(zip(series, row[1:], strict=True))
    assert found["mem/host/weights"] == 100
    assert found["mem/host/kv"] == 50
    assert found["tok/default/decode"] == 48  # 24 tokens in half a second
    assert found["slots/default/busy"] == 1


def test_what_is_not_there_is_nan(kernel):
    kernel.run(1, tokens=0)
    kernel.run(3)
    kernel.run(0.5, owners=[("weights", 100)])
    series = [one["id"] for one in kernel.page.got[0][0]["snapshot"]["series"]]
    (row,) = rows_of(*kernel.page.of("frame")[-1])
    found = dict(zip(series, row[1:], strict=True))
    assert found["mem/host/weights"] == 100
    assert math.isnan(found["tok/default/decode"])


def test_readings_of_one_round_are_one_row_even_when_a_tick_falls_between(kernel):
    kernel.run(1, tokens=0)
    kernel.clock.s += 0.5
    kernel.ring.added.append(
        DeviceSample(kernel.clock.now_ns(), "host", 1, 2, owners=(OwnerBytes("host", "weights", 7),))
    )
    kernel.feed.tick()
    kernel.ring.added.append(
        ServerSample(kernel.clock.now_ns() + 30_000_000, "default", "generating", 1, 4, 0, 7, 4096, 5, 24)
    )
    kernel.clock.s += 0.2
    kernel.feed.tick()
    (row,) = rows_of(*kernel.page.of("frame")[-1])
    assert {7.0, 48.0} <= set(row)


def test_new_spans_are_sent_once_with_the_totals(kernel):
    kernel.run(2, tokens=0)
    kernel.store.add(world.trace(1, 1))
    kernel.run(1, tokens=0)
    kernel.store.add(world.trace(2, 2))
    kernel.run(1, tokens=0)
    messages = [content for content, _ in kernel.page.of("spans")]
    assert [len(content["spans"]) for content in messages] == [5, 5]
    assert messages[-1]["totals"]["spans"] == 10
    assert messages[-1]["server"]["model"] == "smollm2-135m"
    assert messages[-1]["devices"][0]["id"] == "host"


def test_a_burst_between_two_updates_is_sent_whole(kernel):
    kernel.run(2, tokens=0)
    kernel.store.add(world.trace(1, 1))
    kernel.run(1, tokens=0)
    for number in range(2, 32):
        kernel.store.add(world.trace(number, 2))
    kernel.run(1, tokens=0)
    sent = [one["span_id"] for content, _ in kernel.page.of("spans") for one in content["spans"]]
    assert len(sent) == len(set(sent)) == 31 * 5


def test_a_change_of_state_is_told_without_a_span(kernel):
    kernel.run(2, tokens=0)
    before = len(kernel.page.of("spans"))
    kernel.run(1, tokens=0, state="crashed")
    assert len(kernel.page.of("spans")) == before + 1


def test_what_is_watched_is_told_at_the_next_tick_without_a_sample(kernel):
    states = ["stopped"]
    kernel.feed = Feed(
        kernel.session.snapshot,
        kernel.session.state,
        kernel.ring,
        kernel.store,
        kernel.page.send,
        watch=lambda: tuple(states),
    )

    def tick():
        kernel.clock.s += 0.5
        kernel.feed.tick()

    for _ in range(2):
        tick()
    before = len(kernel.page.of("spans"))
    for one in ("starting", "loading"):
        states[0] = one
        tick()
    assert len(kernel.page.of("spans")) == before + 2
    tick()
    assert len(kernel.page.of("spans")) == before + 2


def test_a_new_owner_brings_a_new_snapshot(kernel):
    kernel.run(2, tokens=0)
    assert len(kernel.page.of("snapshot")) == 1
    kernel.run(2, tokens=0, owners=[("weights", 100), ("kv", 50), ("kernel", 9)])
    assert len(kernel.page.of("snapshot")) == 2
    assert "mem/host/kernel" in [one["id"] for one in kernel.page.of("snapshot")[-1][0]["snapshot"]["series"]]


def test_the_page_may_ask_for_everything(kernel):
    kernel.run(2, tokens=0)
    kernel.feed.on_message(None, {"id": "1", "op": "snapshot", "args": {}}, [])
    kernel.feed.on_message(None, {"op": "format c:"}, [])
    kernel.feed.on_message(None, "not a request", [])
    kernel.run(2, tokens=0)
    assert len(kernel.page.of("snapshot")) == 2


def test_never_more_messages_than_the_limit(kernel):
    sent = []
    for step in range(400):
        kernel.clock.s += 0.01
        kernel.sample(tokens=step, state=("ready", "generating")[step % 2], owners=[("weights", step), ("kv", 1)])
        kernel.store.add(world.trace(step, step / 100))
        kernel.feed.on_message(None, {"op": "snapshot"}, [])
        before = len(kernel.page.got)
        kernel.feed.tick()
        sent += [kernel.clock.s] * (len(kernel.page.got) - before)
    assert max(sum(t <= other < t + 1 for other in sent) for t in sent) <= MAX_PER_SECOND


def test_the_end_of_a_cell_puts_everything_into_the_traits(kernel):
    kernel.run(2, tokens=0)
    kernel.feed.refresh(kernel.page)
    assert kernel.page.held == [(kernel.page.snapshot, kernel.page.seq)]
    assert kernel.page.snapshot["totals"]["spans"] == 0
    assert kernel.page.seq == kernel.page.got[-1][0]["seq"] + 1
    kernel.run(0.5, tokens=0)
    assert kernel.page.got[-1][0]["seq"] == kernel.page.seq + 1


def test_a_late_page_gets_the_state_of_now_and_the_others_what_they_would_have_got(kernel):
    kernel.run(2, tokens=0)
    before = kernel.page.got[-1][0]["seq"]
    kernel.clock.s += 0.3
    kernel.sample(tokens=0)
    late = kernel.feed.now()
    assert late["seq"] == before
    assert late["snapshot"]["points"]["t_ms"][-1] == kernel.clock.now_ns() / 1e6
    kernel.run(0.5, tokens=0)
    last = kernel.page.of("frame")[-1]
    assert last[0]["seq"] == before + 1
    assert len(rows_of(*last)) == 2  # the reading that the late page knows already, and the next


def test_a_late_page_is_no_reason_to_lose_other_widgets(kernel, monkeypatch):
    monkeypatch.setattr(kernel.ring, "window", lambda *_: 1 / 0)
    assert kernel.feed.now() == {}


def test_silence_and_a_lost_device_are_told_within_seconds_and_so_is_their_end(kernel):
    kernel.run(2, tokens=0)
    told = lambda: [content for content, _ in kernel.page.of("spans")]  # noqa: E731
    before = len(told())
    kernel.run(4)  # no sample comes
    assert told()[before:]
    assert told()[-1]["since_ms"] == (world.T0 + 2 * SECOND + 30_000_000) / 1e6  # the server's last sample
    assert told()[-1]["devices"][0]["used_bytes"] is None
    count = len(told())
    kernel.run(1, tokens=0)
    assert told()[count:]
    assert told()[-1]["since_ms"] is None
    assert told()[-1]["devices"][0]["used_bytes"] == 150
    count = len(told())
    kernel.ring.added.append(
        DeviceSample(kernel.clock.now_ns() + 1, "host", None, None, since_ns=kernel.clock.now_ns())
    )
    kernel.run(0.5)
    assert told()[count:][-1]["devices"][0]["since_ms"] == told()[-1]["devices"][0]["since_ms"] is not None


def test_refresh_before_the_first_tick_spares_the_first_snapshot(kernel):
    kernel.clock.s += 0.2
    kernel.feed.refresh(kernel.page, kernel.session.snapshot())
    kernel.run(2, tokens=0)
    assert {content["type"] for content, _ in kernel.page.got} == {"frame", "spans"}


@pytest.mark.parametrize("end", ["closed", "failing", "stopped", "forgotten"])
def test_the_thread_ends_with_its_reader_and_so_does_its_wish_for_samples(kernel, end):
    wished = []

    @contextmanager
    def want(hz):
        wished.append(hz)
        yield
        wished.append(0)

    kernel.ring.want = want
    made = Feed(kernel.session.snapshot, kernel.session.state, kernel.ring, kernel.store, kernel.page.send, hz=5)
    made.start()
    thread = made._thread
    assert thread is not None
    assert thread.daemon
    if end == "closed":
        kernel.page.comm = None
    elif end == "failing":
        kernel.page.failing = True
    elif end == "stopped":
        made.stop()
    else:
        del made
        gc.collect()
    kernel.feed.on_message(None, {"op": "snapshot"})
    thread.join(10)
    assert not thread.is_alive()
    assert wished == [5.0, 0]


def test_a_forgotten_feed_listens_no_longer(kernel):
    listening = len(kernel.store.subscribers)
    made = Feed(kernel.session.snapshot, kernel.session.state, kernel.ring, kernel.store, kernel.page.send)
    assert len(kernel.store.subscribers) == listening + 1
    del made
    gc.collect()
    assert len(kernel.store.subscribers) == listening


@pytest.mark.parametrize(("version", "live"), [((7, 0, 1), False), ((7, 1, 0), True), ((6, 17, 1), True)])
def test_no_thread_where_threads_cannot_send(kernel, monkeypatch, version, live):
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace(version_info=version))
    before = threading.active_count()
    kernel.feed.start()
    assert kernel.feed.live is live
    assert threading.active_count() == before + int(live)
    kernel.feed.stop()


def test_the_front_ends_fixture_is_what_is_sent(kernel):
    """js/test/wire.test.mjs decodes these bytes."""
    kernel.run(1, tokens=0)
    kernel.run(0.5, owners=[("weights", 2**40 + 1)], tokens=24, state="generating")
    content, buffers = kernel.page.of("frame")[-1]
    series = [one["id"] for one in kernel.page.got[0][0]["snapshot"]["series"]]
    wanted = json.loads(FIXTURE.read_text())
    assert {"content": content, "series": series, "buffer": base64.b64encode(buffers[0]).decode()} == wanted

"""What happens to a server, as spans; and the requests that its log tells of, when they are nobody's here."""

from __future__ import annotations

import time

import pytest
from opentelemetry import trace

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.telemetry import strangers
from llamatelemetry_jupyter.telemetry.lifecycle import Lifecycle
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tracer import Telemetry
from llamatelemetry_jupyter.values import Outcome, ServerEvent, Timings

pytestmark = pytest.mark.floor
MS = 10**6
READY = {"url": "http://127.0.0.1:8080", "slots": 2, "ctx_per_slot": 512}
#: A request as the log tells of it: 100 ms of prefill, 50 ms of decode.
REQUEST = {
    "slot": 1, "task": 7, "kv_tokens": 38, "truncated": False, "input_tokens": 31, "cached_tokens": 5,
    "prefill_s": 0.1, "prefill_tokens": 26, "decode_s": 0.05, "decode_tokens": 8,
}  # fmt: skip


@pytest.fixture
def telemetry(monkeypatch):
    monkeypatch.setattr(strangers, "_WAIT_S", 0.02)
    made = Telemetry(SpanStore(None))
    made.attach()
    yield made
    made.detach()
    made.store.close()


@pytest.fixture
def life(telemetry):
    return Lifecycle(lambda: telemetry)


def told(life, *events, at_ns=None):
    at_ns = at_ns or now_ns()
    for number, (kind, data) in enumerate(events):
        life.tell(ServerEvent(at_ns + number * MS, "default", kind, data))
    return at_ns


STARTED = (
    ("spawned", {"pid": 1, "engine": "xllamacpp 1", "model": "m"}),
    ("load_stage", {"stage": "reading the model file", "fraction": 0.1}),
    ("load_stage", {"stage": "loading weights", "fraction": 0.3}),
    ("buffer", {"device": "CPU", "owner": "weights", "bytes": 60}),
    ("buffer", {"device": "CPU", "owner": "weights", "bytes": 40}),
    ("buffer", {"device": "CPU", "owner": "compute", "bytes": 7}),
    ("buffer", {"device": "CPU", "owner": "compute", "bytes": 9}),
    ("warning", {"cause": "no GPU", "remedy": "x"}),
    ("ready", READY),
)


def rows(telemetry):
    found = telemetry.store.rows()
    names = {row.span_id: row.name for row in found}
    return [(row.name, names.get(row.parent_id), row.status, row.error_type) for row in found]


def test_a_start_is_a_span_with_its_stages(telemetry, life):
    begin_ns = told(life, *STARTED)
    assert rows(telemetry) == [
        ("reading the model file", "server start m", "unset", None),
        ("loading weights", "server start m", "unset", None),
        ("server start m", None, "unset", None),
    ]
    first, second, start = telemetry.store.rows()
    assert (start.start_ns, start.end_ns, start.server) == (begin_ns, begin_ns + 8 * MS, "127.0.0.1:8080")
    assert (first.end_ns, second.start_ns, second.end_ns) == (begin_ns + 2 * MS, begin_ns + 2 * MS, start.end_ns)
    assert start.attributes["llama_cpp.memory.CPU.weights"] == 100
    assert start.attributes["llama_cpp.memory.CPU.compute"] == 9
    assert start.attributes["llama_cpp.warnings"] == ["no GPU"]
    assert (start.model, start.attributes["llama_cpp.slots"]) == ("m", 2)


def test_a_start_that_crashes_says_why_and_one_that_is_stopped_was_interrupted(telemetry, life):
    told(life, *STARTED[:3], ("crashed", {"returncode": 1, "reason": "memory is not enough"}))
    told(life, *STARTED[:2], ("stopping", {}), ("stopped", {"returncode": -15}))
    found = [row for row in telemetry.store.rows() if row.name == "server start m"]
    assert [(row.status, row.error_type) for row in found] == [("error", "server_crashed"), ("error", "interrupted")]


def test_sleep_stop_and_crash(telemetry, life):
    begin_ns = told(life, *STARTED, ("sleep", {}), ("wake", {}), ("stopping", {}), ("stopped", {"returncode": 0}))
    told(life, *STARTED, ("crashed", {"returncode": -9, "reason": "it was killed"}))
    found = {row.name: row for row in telemetry.store.rows()}
    sleep, stop, crash = (found[f"server {what} m"] for what in ("sleep", "stop", "crash"))
    assert (sleep.start_ns - begin_ns, sleep.duration_s) == (9 * MS, 0.001)
    assert (stop.start_ns - begin_ns, stop.duration_s, stop.status) == (11 * MS, 0.001, "unset")
    assert (crash.status, crash.error_type, crash.attributes["process.exit.code"]) == ("error", "server_crashed", -9)


def test_a_request_of_nobody_here_has_a_span_of_its_own(telemetry, life):
    told(life, *STARTED)
    end_ns = told(life, ("request", REQUEST))
    (row,) = until(lambda: [row for row in telemetry.store.rows() if row.name == "request m"])
    assert (row.end_ns, round(row.duration_s, 6), row.kind, row.parent_id) == (end_ns, 0.15, "server", None)
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (31, 5, 8)
    assert row.decode_tokens_per_s == pytest.approx(140)
    assert row.attributes["llama_cpp.origin"] == "server log"


def test_a_request_of_ours_is_told_by_its_timings_and_anothers_by_its_span(telemetry, life):
    told(life, *STARTED)
    now = now_ns()
    ours = telemetry.observer.start("chat", "m", "127.0.0.1", 8080, {})
    raw = {"prompt_ms": 100.0049, "predicted_ms": 50.001}
    ours.end(Outcome(now, now + 1, now + 2, "stop", None, "m", 31, 8, Timings(), raw_timings=raw))
    told(life, ("request", REQUEST), at_ns=now + 400 * MS)  # the log's clock may be off: timings decide
    others = trace.get_tracer("opentelemetry.instrumentation.openai").start_span(
        "chat m", start_time=now, attributes={
            "gen_ai.operation.name": "chat", "server.address": "127.0.0.1", "server.port": 8080,
        },
    )  # fmt: skip
    others.end(end_time=now + 200 * MS)
    told(life, ("request", REQUEST | {"prefill_s": 0.08}), at_ns=now + 180 * MS)
    told(life, ("request", REQUEST | {"prefill_s": 0.07}), at_ns=now + 900 * MS)  # and this is nobody's
    until(lambda: [row for row in telemetry.store.rows() if row.name == "request m"])
    time.sleep(0.1)
    assert [row.name for row in telemetry.store.rows()].count("request m") == 1
    # The answer does not say which slot it is from, the log does.
    assert [row.attributes.get("llama_cpp.slot.id") for row in telemetry.store.rows() if row.name == "chat m"] == [
        1,
        None,
    ]


def test_whatever_an_event_holds_nothing_is_raised(telemetry, life, caplog):
    for kind in ("spawned", "load_stage", "buffer", "ready", "request", "stopped", "crashed", "sleep", "wake"):
        told(life, (kind, {"url": 5, "model": [], "stage": {}, "bytes": "x", "returncode": "y", "prefill_s": "z"}))
    time.sleep(0.1)
    assert caplog.text.count("further failures are not logged") <= 1
    told(life, *STARTED)
    assert "server start m" in [row.name for row in telemetry.store.rows()]


def test_detached_nothing_is_recorded(telemetry, life):
    telemetry.detach()
    told(life, *STARTED, ("request", REQUEST))
    time.sleep(0.1)
    assert telemetry.store.rows() == []


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found

"""Spans are seen at once, written soon, and never lost."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.telemetry import _packed as packed_module
from llamatelemetry_jupyter.telemetry import _recent as recent_module
from llamatelemetry_jupyter.telemetry import store as store_module
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import DeviceSample, OwnerBytes, Samples, SpanRow

pytestmark = pytest.mark.floor


def row(number, **fields):
    known = {
        "trace_id": f"{number // 5:032x}",
        "parent_id": None,
        "name": "chat m",
        "kind": "client",
        "start_ns": number,
        "end_ns": number + 1,
    }
    return SpanRow(span_id=f"{number:016x}", **(known | fields))


def until(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def in_file(path):
    """How many spans another process would find."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("select count(*) from sqlite_master where name = 'spans'").fetchone()[0]
        return connection.execute("select count(*) from spans").fetchone()[0] if made else 0


def test_rows_are_there_at_once_and_back_after_a_restart(tmp_path):
    path = tmp_path / "spans" / "s.sqlite"
    store = SpanStore(path)
    mixed = {"gen_ai.operation.name": "chat", "list": ["a", 'b"'], "none": None, "text": "ü\x00", "flag": True}
    for number in range(12):
        store.append(row(number, attributes=mixed, input_tokens=3, output_tokens=2))
    assert len(store.rows()) == 12
    assert [r.span_id for r in store.rows(last=2)] == [f"{10:016x}", f"{11:016x}"]
    assert store.rows(last=0) == []
    assert len(store.rows(trace_id=f"{1:032x}")) == 5
    assert len(store.rows(since_ns=12)) == 1
    expected = {
        "spans": 12,
        "traces": 3,
        "calls": 12,
        "errors": 0,
        "input_tokens": 36,
        "output_tokens": 24,
        "dropped": 0,
    }
    assert store.totals() == expected
    before = list(store.rows())
    store.close()
    assert list(store.rows()) == before
    again = SpanStore(path)
    assert list(again.rows()) == before
    assert again.totals() == expected
    again.append(row(12))
    again.close()
    assert in_file(path) == 13
    assert path.stat().st_mode & 0o077 == 0


def test_totals_count_tokens_of_calls_only_and_every_error():
    store = SpanStore(None)
    store.append(row(0, attributes={"gen_ai.operation.name": "chat"}, input_tokens=5, output_tokens=7, status="error"))
    store.append(row(1, attributes={"gen_ai.operation.name": "invoke_agent"}, input_tokens=5, output_tokens=7))
    store.append(row(2))
    expected = {"spans": 3, "traces": 1, "calls": 1, "errors": 1, "input_tokens": 5, "output_tokens": 7, "dropped": 0}
    assert store.totals() == expected


WRITER = """
import sys, time
from pathlib import Path
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow
store = SpanStore(Path(sys.argv[1]))
for n in range(1000):
    store.append(SpanRow("t", str(n), None, "x", "internal", n, n + 1))
time.sleep(float(sys.argv[2]))
print("idle", flush=True)
time.sleep(60 if float(sys.argv[2]) else 0)
"""


def test_a_killed_kernel_loses_nothing_that_is_older_than_the_group(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "s.sqlite"), "1.0"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "idle\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert len(SpanStore(tmp_path / "s.sqlite").rows()) == 1000


def test_a_kernel_that_ends_writes_its_last_spans(tmp_path):
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "s.sqlite"), "0"], check=True, capture_output=True)
    assert in_file(tmp_path / "s.sqlite") == 1000


def test_rows_beyond_the_memory_are_read_from_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(recent_module, "_IN_MEMORY", 100)
    store = SpanStore(tmp_path / "s.sqlite")
    for number in range(250):
        store.append(row(number))
        if number % 50 == 49:
            store.flush()
    assert len(store._recent.packed) < 130
    assert [r.span_id for r in store.rows()] == [f"{n:016x}" for n in range(250)]
    assert [r.span_id for r in store.rows(last=200)] == [f"{n:016x}" for n in range(50, 250)]
    assert len(store.rows(trace_id=f"{1:032x}")) == 5
    assert len(store.rows(since_ns=11)) == 240
    assert len(store.frame()) == 250
    store.close()
    again = SpanStore(tmp_path / "s.sqlite")
    assert [r.span_id for r in again.rows()] == [f"{n:016x}" for n in range(250)]
    assert again.totals()["spans"] == 250


def test_threads_append_without_losing_a_row(tmp_path):
    store = SpanStore(tmp_path / "s.sqlite")
    threads = [
        threading.Thread(target=lambda t=t: [store.append(row(t * 1000 + n)) for n in range(500)]) for t in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: in_file(tmp_path / "s.sqlite") == 2000)
    assert len({r.span_id for r in store.rows()}) == 2000
    store.close()


def test_subscribers_hear_and_their_bugs_lose_nothing(caplog):
    store, heard = SpanStore(None), []
    store.subscribe(lambda: 1 / 0)
    end = store.subscribe(lambda: heard.append(1))
    store.append(row(1))
    end()
    end()
    store.append(row(2))
    assert heard == [1]
    assert len(store.rows()) == 2
    assert caplog.text.count("ZeroDivisionError: ") == 1
    store.close()


def test_a_folder_that_cannot_be_written_keeps_spans_in_memory_and_is_tried_again(tmp_path, caplog):
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    store = SpanStore(obstacle / "s.sqlite")
    store.append(row(1))
    store.flush()
    store.append(row(2))
    store.flush()
    assert len(store.rows()) == 2
    assert caplog.text.count("kept in memory only") == 1
    obstacle.unlink()
    store.close()
    assert in_file(obstacle / "s.sqlite") == 2


def test_a_file_that_is_not_ours_is_left_alone(tmp_path, caplog):
    path = tmp_path / "s.sqlite"
    path.write_text("something else, long enough not to be taken for an empty database" * 20)
    before = path.read_bytes()
    store = SpanStore(path)
    store.append(row(1))
    store.close()
    assert len(store.rows()) == 1
    assert path.read_bytes() == before
    assert "kept in memory only" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of every fork of a process with threads
def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path):
    store = SpanStore(tmp_path / "s.sqlite")
    store.append(row(1))
    store.flush()
    child = os.fork()
    if child == 0:
        store.append(row(2))
        store.flush()
        os._exit(len(store.rows()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    store.append(row(3))
    store.close()
    assert [r.span_id for r in SpanStore(tmp_path / "s.sqlite").rows()] == [f"{1:016x}", f"{3:016x}"]


def test_frames_have_a_column_per_field_also_when_empty():
    store = SpanStore(None)
    empty = store.frame()
    assert list(empty.columns) == list(SpanRow.__dataclass_fields__)
    store.append(row(1, input_tokens=None, output_tokens=4, attributes={"a": 1}))
    frame = store.frame()
    assert frame.dtypes.equals(empty.dtypes)
    assert str(frame["input_tokens"].dtype) == "Int64"
    assert frame["output_tokens"].tolist() == [4]
    assert frame["error_type"].isna().all()
    assert frame["attributes"].tolist() == [{"a": 1}]
    store.close()


class Counter:
    """Samples of one GPU that are read half a second apart and come when they are added."""

    def __init__(self):
        self.samples = []

    def read(self, t_ns, joules):
        self.samples.append(DeviceSample(t_ns, "GPU-1", 0, 0, energy_j=joules, owners=(OwnerBytes("GPU-1", "kv", 7),)))

    def latest(self):
        return Samples.of(self.samples[-1:], [])

    def window(self, t0_ns, t1_ns, max_points=None):
        return Samples.of([s for s in self.samples if t0_ns <= s.t_ns <= t1_ns], [])


def test_a_span_is_written_at_once_and_gets_its_energy_when_the_counter_was_read_after_its_end(tmp_path):
    second, now = 10**9, now_ns()
    source = Counter()
    source.read(now - second, 10.0)
    store = SpanStore(tmp_path / "s.sqlite", samples=source)
    store.append(row(1, server="127.0.0.1:1", parent_id="c", start_ns=now - second // 2, end_ns=now))
    until(lambda: in_file(tmp_path / "s.sqlite") == 1)
    assert store.rows()[0].energy_j is None
    heard = threading.Event()
    store.subscribe(heard.set)
    source.read(now + second, 30.0)
    assert heard.wait(20)
    assert store.rows()[0].energy_j == pytest.approx(5.0)
    assert store.rows()[0].peak_bytes == 7
    store.append(row(2, start_ns=now - second, end_ns=now))  # the cell around it
    store.close()
    assert [(r.energy_j, r.peak_bytes) for r in SpanStore(tmp_path / "s.sqlite").rows()] == [(5.0, 7), (10.0, 7)]


def test_a_source_of_samples_that_fails_loses_no_span(tmp_path, caplog):
    class Broken:
        def latest(self):
            raise RuntimeError("ring gone")

    store = SpanStore(tmp_path / "s.sqlite", samples=Broken())
    store.append(row(1, server="127.0.0.1:1"))
    store.close()
    assert in_file(tmp_path / "s.sqlite") == 1
    assert "ring gone" in caplog.text


def test_text_that_is_no_text_is_still_written(tmp_path):
    store = SpanStore(tmp_path / "s.sqlite")
    store.append(row(1, model="half \ud83d", attributes={"half": "\ud83d", "object": object}))
    store.append(row(2))
    store.close()
    assert [r.model for r in SpanStore(tmp_path / "s.sqlite").rows()] == ["half ?", None]


def test_what_no_file_takes_is_dropped_at_last_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recent_module, "_IN_MEMORY", 100)
    monkeypatch.setattr(recent_module, "_UNWRITTEN", 300)
    (tmp_path / "file").write_text("")
    store = SpanStore(tmp_path / "file" / "s.sqlite")
    for number in range(1000):
        store.append(row(number))
        if number % 10 == 9:
            store.flush()
    kept = [int(r.span_id, 16) for r in store.rows()]
    assert 300 <= len(kept) <= 310
    assert kept == list(range(1000 - len(kept), 1000))
    assert store.totals()["dropped"] == 1000 - len(kept)
    assert store.trouble().startswith(f"{1000 - len(kept)} dropped; spans are kept in memory only")
    (tmp_path / "file").unlink()
    store.close()
    again = SpanStore(tmp_path / "file" / "s.sqlite")
    assert [int(r.span_id, 16) for r in again.rows()] == kept
    assert again.totals()["dropped"] == 1000 - len(kept)
    assert len(again.rows(trace_id=f"{990 // 5:032x}")) == 5
    again.close()


def test_a_disk_that_hangs_holds_nobody_up(tmp_path, monkeypatch):
    hangs, waited = threading.Event(), []
    store = SpanStore(tmp_path / "s.sqlite")
    monkeypatch.setattr(store._file, "append", lambda *_: hangs.wait(60))
    wait = store._caught_up.wait
    monkeypatch.setattr(store._caught_up, "wait", lambda seconds: waited.append(seconds) or wait(seconds))
    for number in range(5000):
        store.append(row(number))
    assert waited in ([], [store_module._WAIT_S])  # once at most, while the writer could still have kept up
    assert len(store.rows()) == 5000
    hangs.set()
    store.close()


def test_attributes_that_samples_bring_are_written_too(tmp_path, monkeypatch):
    source, now = Counter(), now_ns()
    store = SpanStore(tmp_path / "s.sqlite", samples=source)
    store.append(row(1, server="127.0.0.1:1", start_ns=now - 10, end_ns=now, attributes={"a": 1}))
    store.flush()
    changed = {"a": 1, "hw.gpu.utilization": 0.5}
    monkeypatch.setattr(
        store_module, "fill", lambda rows, _: [dataclasses.replace(r, attributes=changed) for r in rows]
    )
    store.flush()
    assert [dict(r.attributes) for r in store.rows()] == [changed]
    store.close()
    assert [dict(r.attributes) for r in SpanStore(tmp_path / "s.sqlite").rows()] == [changed]


def test_a_change_that_could_not_be_written_is_written_later(tmp_path, monkeypatch):
    source, now = Counter(), now_ns()
    store = SpanStore(tmp_path / "s.sqlite", samples=source)
    store.append(row(1, server="127.0.0.1:1", start_ns=now - 10, end_ns=now))
    store.flush()
    monkeypatch.setattr(store_module, "fill", lambda rows, _: [dataclasses.replace(r, energy_j=5.0) for r in rows])
    with monkeypatch.context() as full:
        full.setattr(store._file, "update", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        store.flush()
    store.close()
    assert [r.energy_j for r in SpanStore(tmp_path / "s.sqlite").rows()] == [5.0]


@pytest.mark.parametrize("written", [True, False])
def test_what_becomes_known_after_a_spans_end_is_added_in_memory_and_in_the_file(tmp_path, written):
    store = SpanStore(tmp_path / "s.sqlite")
    for number in range(5):
        store.append(row(number, attributes={"a": number}))
    if written:
        store.flush()
    heard = []
    store.subscribe(lambda: heard.append(1))
    store.amend(f"{3:016x}", {"slot": 1})
    store.amend("f" * 16, {"slot": 1})  # nobody's
    assert [dict(one.attributes) for one in store.rows()][2:] == [{"a": 2}, {"a": 3, "slot": 1}, {"a": 4}]
    assert heard == [1]
    store.close()
    assert [dict(one.attributes) for one in SpanStore(tmp_path / "s.sqlite").rows()][3] == {"a": 3, "slot": 1}


def test_a_change_and_what_samples_bring_are_both_kept(tmp_path):
    now = now_ns()
    samples = [DeviceSample(now + i * 10**8, "GPU-0", 100, 1000, energy_j=50.0 * i) for i in range(-20, 60)]
    reading = Samples.of(samples[:21], [])  # up to the span's start

    class Ring:
        def window(self, start_ns, end_ns):
            return reading

        def latest(self):
            return reading

    store = SpanStore(None, Ring())
    store.append(row(1, start_ns=now, end_ns=now + 10**9, server="127.0.0.1:1", attributes={"a": 1}))
    store.flush()
    store.amend(f"{1:016x}", {"slot": 0})
    reading = Samples.of(samples, [])
    until(lambda: store.rows()[0].energy_j is not None)
    assert store.rows()[0].attributes["slot"] == 0
    store.close()


@pytest.mark.parametrize("shapes", [4096, 0])
def test_a_row_that_sqlite_has_no_type_for_does_not_stand_in_the_way_of_others(tmp_path, monkeypatch, shapes):
    monkeypatch.setattr(packed_module, "_MAX_SHAPES", shapes)  # with 0 each row carries what many have in common
    store = SpanStore(tmp_path / "s.sqlite")
    store.append(row(1, input_tokens=2**70, start_ns=-(2**80), model=object))
    store.append(row(2, end_ns=2**70))  # not even memory has room for it: dropped and counted
    store.append(row(3))
    store.close()
    assert [r.span_id for r in store.rows()] == [f"{1:016x}", f"{3:016x}"]
    assert store.totals()["dropped"] == 1
    found = SpanStore(tmp_path / "s.sqlite").rows()
    assert [(r.input_tokens, r.start_ns) for r in found] == [(None, None), (None, 3)]
    assert found[0].model == "<class 'object'>"

"""Spans are seen at once, written soon, and never lost."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from llamatelemetry_jupyter.telemetry.join import fill
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


def test_rows_are_there_at_once_and_back_after_a_restart(tmp_path):
    path = tmp_path / "spans" / "s.sqlite"
    store = SpanStore(path)
    for number in range(12):
        store.append(row(number, attributes={"gen_ai.operation.name": "chat"}, input_tokens=3, output_tokens=2))
    assert len(store.rows()) == 12
    assert [r.span_id for r in store.rows(last=2)] == [f"{10:016x}", f"{11:016x}"]
    assert len(store.rows(trace_id=f"{1:032x}")) == 5
    assert len(store.rows(since_ns=12)) == 1
    expected = {"spans": 12, "traces": 3, "calls": 12, "errors": 0, "input_tokens": 36, "output_tokens": 24}
    assert store.totals() == expected
    store.close()
    again = SpanStore(path)
    assert list(again.rows()) == list(store.rows())
    assert again.totals() == expected
    assert path.stat().st_mode & 0o077 == 0


WRITER = """
import sys, time
from pathlib import Path
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow
store = SpanStore(Path(sys.argv[1]))
for n in range(1000):
    store.append(SpanRow("t", str(n), None, "x", "internal", n, n + 1))
time.sleep(1.0)
print("idle", flush=True)
time.sleep(60)
"""


def test_a_killed_kernel_loses_nothing_that_is_older_than_the_group(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "s.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "idle\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert len(SpanStore(tmp_path / "s.sqlite").rows()) == 1000


def test_subscribers_hear_and_their_bugs_lose_nothing(tmp_path, caplog):
    store, heard = SpanStore(None), []
    store.subscribe(lambda: 1 / 0)
    end = store.subscribe(lambda: heard.append(1))
    store.append(row(1))
    end()
    store.append(row(2))
    assert heard == [1]
    assert len(store.rows()) == 2
    assert "ZeroDivisionError" in caplog.text


def test_a_folder_that_cannot_be_written_keeps_spans_in_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = SpanStore(tmp_path / "file" / "s.sqlite")
    store.append(row(1))
    store.flush()
    assert len(store.rows()) == 1
    assert "kept in memory only" in caplog.text


def test_frames_have_a_column_per_field_also_when_empty():
    store = SpanStore(None)
    assert list(store.frame().columns)[:3] == ["trace_id", "span_id", "parent_id"]
    store.append(row(1, input_tokens=None, output_tokens=4))
    frame = store.frame()
    assert str(frame["input_tokens"].dtype) == "Int64"
    assert frame["output_tokens"].tolist() == [4]


class Memory:
    def __init__(self, samples):
        self.samples = samples

    def window(self, t0_ns, t1_ns, max_points=None):
        return self.samples


def test_energy_and_peak_are_those_of_exactly_the_interval():
    second = 10**9

    def sample(t, joules, kv):
        owners = (OwnerBytes("GPU-1", "weights", 100), OwnerBytes("GPU-1", "kv", kv), OwnerBytes("GPU-1", "other", 999))
        return DeviceSample(t * second, "GPU-1", 0, 0, energy_j=joules, owners=owners)

    source = Memory(Samples.of([sample(0, 10.0, 1), sample(1, 20.0, 50), sample(2, 40.0, 7), sample(3, 50.0, 80)], []))
    span = row(1, start_ns=second // 2, end_ns=int(2.5 * second), server="s")
    without = row(2, start_ns=0, end_ns=second)
    late = row(3, start_ns=2 * second, end_ns=9 * second, server="s")
    filled = fill([span, without, late], source)
    assert filled[0].energy_j == pytest.approx(45.0 - 15.0)
    assert filled[0].peak_bytes == 150
    assert filled[1] is without
    assert filled[2].energy_j is None  # the counter does not reach its end
    assert filled[2].peak_bytes == 180

"""The Chrome trace keeps to its format: slices nest, lanes hold no two that cross, counters follow the samples."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from hostile import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from viewworld import MIB, T0, Memory, host, hostile, server, trace

from llamatelemetry_jupyter.telemetry import chrome
from llamatelemetry_jupyter.values import SpanRow

pytestmark = pytest.mark.floor


def written(path: Path, rows, samples=None):
    count = chrome.write(path, rows, samples)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found["traceEvents"]) == count
    return found


def slices(found):
    return [event for event in found["traceEvents"] if event["ph"] == "X"]


def check_nesting(events):
    """In one lane any two slices are apart or one lies inside the other: a stack never has to be broken."""
    by_lane = defaultdict(list)
    for event in events:
        by_lane[event["pid"], event["tid"]].append(event)
    for lane in by_lane.values():
        stack = []
        for event in lane:  # in order of start, as the viewers want them
            while stack and stack[-1] <= event["ts"]:
                stack.pop()
            end = event["ts"] + event["dur"]
            assert not stack or end <= stack[-1]
            stack.append(end)


def test_a_session_is_slices_in_lanes_and_counters_beneath(tmp_path):
    rows = [*trace(1, 8), *trace(2, 14, calls=2), *trace(3, 15, decode_s=5)]
    gpu = host(30, device="GPU-0")
    found = written(tmp_path / "t.json", rows, Memory([*host(30), *gpu], server(30, busy=[(8, 10)])))
    events = slices(found)
    assert len(events) == len(rows)
    check_nesting(events)
    assert {(e["args"]["span_id"], round(e["dur"] * 1000)) for e in events} == {
        (r.span_id, r.end_ns - r.start_ns) for r in rows
    }
    t0_ns = int(found["otherData"]["t0_unix_ns"])
    assert {round(e["ts"] * 1000) + t0_ns for e in events} == {r.start_ns for r in rows}
    lane = {e["args"]["span_id"]: (e["pid"], e["tid"]) for e in events}
    first = trace(1, 8)
    assert len({lane[row.span_id] for row in first}) == 1  # cell, chat, queue, prefill and decode inside each other
    # Cells 2 and 3 overlap: their lanes differ, and every lane has a name.
    assert lane[trace(2, 14)[0].span_id] != lane[trace(3, 15)[0].span_id]
    named = {(e["pid"], e["tid"]) for e in found["traceEvents"] if e["name"] == "thread_name"}
    assert set(lane.values()) <= named
    counters = defaultdict(list)
    for event in found["traceEvents"]:
        if event["ph"] == "C":
            counters[event["name"]].append(event)
    assert {"GPU-0 memory (MiB)", "GPU-0 power (W)", "host memory (MiB)", "default tokens in the KV cache"} <= set(
        counters
    )
    for name, points in counters.items():
        assert [p["ts"] for p in points] == sorted(p["ts"] for p in points), name
    sample = next(s for s in gpu if s.t_ns == T0 + 20 * 10**9)
    (point,) = [p for p in counters["GPU-0 memory (MiB)"] if round(p["ts"] * 1000) + t0_ns == sample.t_ns]
    assert point["args"]["weights"] == sum(o.bytes for o in sample.owners if o.owner == "weights") / MIB
    assert "free" not in point["args"]
    assert counters["GPU-0 power (W)"][0]["args"] == {"W": 61.0}


_spans = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(-1, 6)), min_size=1, max_size=14)


@given(_spans)
@settings(max_examples=300, deadline=None)
def test_whatever_overlaps_no_lane_has_two_that_cross(made):
    rows = [
        SpanRow(
            "1" * 32,
            f"{i + 1:016x}",
            f"{parent + 1:016x}" if 0 <= parent < i else None,
            f"s{i}",
            "internal",
            start * 1000,
            (start + length) * 1000,
        )
        for i, (start, length, parent) in enumerate(made)
    ]
    found = [event for event in chrome.events(rows) if event["ph"] == "X"]
    assert len(found) == len(rows)
    check_nesting(found)


def test_other_peoples_text_is_valid_json_and_stays_text(tmp_path):
    for word in WORDS:
        found = written(tmp_path / "t.json", hostile(trace(1, 8), word))
        assert len(slices(found)) == 5


def test_nothing_is_a_trace_too(tmp_path):
    assert written(tmp_path / "t.json", [], Memory())["traceEvents"] == []


def test_spans_of_other_processes_are_processes_of_their_own(tmp_path):
    import dataclasses

    theirs = [dataclasses.replace(r, attributes={"otel.resource": {"service.name": "worker"}}) for r in trace(9, 9)]
    found = written(tmp_path / "t.json", [*trace(1, 8), *theirs])
    names = {e["pid"]: e["args"]["name"] for e in found["traceEvents"] if e["name"] == "process_name"}
    assert sorted(names.values()) == ["notebook", "worker"]
    check_nesting(slices(found))


@pytest.mark.skipif("TRACE_PROCESSOR" not in os.environ, reason="TRACE_PROCESSOR names no trace_processor_shell")
def test_perfettos_own_reader_finds_slices_depths_and_counters(tmp_path):
    rows = trace(1, 8, calls=2)
    path = tmp_path / "t.json"
    chrome.write(path, rows, Memory(host(30, device="GPU-0"), []))
    query = tmp_path / "q.sql"
    query.write_text(
        "select (select count(*) from slice), (select max(depth) from slice), (select count(distinct track_id) from counter),"
        " (select count(*) from stats where severity = 'error' and value > 0);"
    )
    done = subprocess.run(
        [os.environ["TRACE_PROCESSOR"], "-q", str(query), str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    slices, depth, counters, errors = map(int, done.stdout.strip().splitlines()[-1].replace('"', "").split(","))
    assert (slices, depth, errors) == (len(rows), 2, 0)
    assert counters >= 3

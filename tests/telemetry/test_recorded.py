"""What is read back from a session's file is what was written: by trace, by time, by conditions, as percentiles."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.telemetry import _recent as recent_module
from llamatelemetry_jupyter.telemetry.latency import MAX_NAMES, OTHER, Durations, bucket, exact
from llamatelemetry_jupyter.telemetry.recorded import RecordedSpans
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.where import Where
from llamatelemetry_jupyter.values import SpanRow

pytestmark = pytest.mark.floor

WORDS = ["Straße", 'a "quote"', "back\\slash", "line\nbreak", "50%", "under_score", "[a]", "*", "x" * 300, "ΣΊΣΥΦΟΣ"]


def rows(count, seed=1):
    chance = random.Random(seed)
    made = []
    for number in range(count):
        trace = number // 5
        begin = 1_764_000_000_000_000_000 + trace * 10**9
        root = number % 5 == 4
        made.append(
            SpanRow(
                f"{(trace * 0x9E3779B97F4A7C15) % 2**64:016x}{trace:016x}",
                f"{chance.getrandbits(64):016x}",
                None if root else f"{number:016x}",
                "notebook cell" if root else chance.choice(["chat m", "chat [a]", "queue", "decode", "*"]),
                "internal",
                begin,
                begin + int(chance.lognormvariate(18, 1)),
                chance.choice(["ok", "unset", "error"]),
                chance.choice([None, None, "TimeoutError"]),
                cell_id=chance.choice([None, "c1", "c12"]),
                server=chance.choice([None, "127.0.0.1:1"]),
                model=chance.choice([None, "m", "qwen:Q4"]),
                input_tokens=chance.choice([None, 3]),
                ttft_s=chance.choice([None, 0.25]),
                attributes={"said": chance.choice(WORDS), "n": number, "list": [chance.choice(WORDS), 1.5, True]},
            )
        )
    return made


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("spans") / "one.sqlite"
    made = rows(4000)
    store = SpanStore(path)
    for one in made:
        store.append(one)
    store.close()
    return path, made


def test_an_old_session_is_read_as_it_was(session):
    path, made = session
    spans = RecordedSpans(path)
    assert list(spans.rows()) == made
    assert list(spans.rows(last=7)) == made[-7:]
    assert spans.roots(20) == [one for one in made if one.parent_id is None][-20:]
    assert spans.totals()["spans"] == 4000
    assert spans.totals()["traces"] == 800
    assert spans.totals()["errors"] == sum(one.status == "error" for one in made)
    since = made[3000].end_ns
    assert list(spans.rows(since_ns=since)) == [one for one in made if one.end_ns >= since]
    assert len(spans.frame()) == 4000


def test_a_trace_is_found_by_its_id_and_by_the_beginning_of_it(session):
    path, made = session
    spans = RecordedSpans(path)
    for one in (made[0], made[2047], made[2048], made[3999]):
        assert list(spans.rows(trace_id=one.trace_id)) == [r for r in made if r.trace_id == one.trace_id]
        assert spans.traces(one.trace_id[:8]) == [one.trace_id]
        assert one.trace_id in spans.traces(one.trace_id[:2], most=1000)
    assert spans.rows(trace_id="f" * 32) == []
    assert spans.traces("zz") == []
    assert len(spans.traces("", most=3)) == 3


def test_looking_for_a_trace_reads_only_its_rows(session):
    path, made = session
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute("explain query plan select * from spans where rowid = 1").fetchall()
        blocks = connection.execute("select first, length(traces), length(spans) from blocks").fetchall()
    assert "SEARCH" in plan[0][3]
    assert sum(size for _, size, _ in blocks) == sum(size for _, _, size in blocks) == 4 * len(made)
    assert [first for first, *_ in blocks] == [1, 1025, 2049, 3073]


CONDITIONS = [
    Where(name="chat*"), Where(name="chat [a]"), Where(name="*"), Where(model="qwen*"), Where(model="m", status="error"),
    Where(cell="c1"), Where(server="127.0.0.1:1"), Where(since_ns=1_764_000_100_000_000_000, until_ns=1_764_000_300_000_000_000),
    Where(trace="00"), Where(name="nothing"),
    *[Where(text=word) for word in ("strasse", "STRASSE", "STRAßE", '"quote', "k\\s", "line\nb", "0%", "r_s", "[", "σίσυφος", "timeouterror", "1.5", "true", '":', "}", ",", "said")],
]  # fmt: skip


@pytest.mark.parametrize("where", CONDITIONS, ids=repr)
def test_conditions_mean_the_same_in_memory_and_in_the_file(session, where, monkeypatch, tmp_path):
    path, made = session
    expected = [one for one in made if where.matches(one)]
    spans = RecordedSpans(path)
    assert spans.select(where) == expected
    assert spans.select(where, 3) == expected[-3:]
    assert sorted(spans.values(("span_id",), where)) == sorted((one.span_id,) for one in expected)
    memory = SpanStore(None)
    for one in made[:500]:
        memory.append(one)
    assert memory.select(where) == [one for one in made[:500] if where.matches(one)]
    memory.close()


def test_rows_partly_in_memory_and_partly_on_disk_are_one_list(tmp_path, monkeypatch):
    monkeypatch.setattr(recent_module, "_IN_MEMORY", 100)
    store, made = SpanStore(tmp_path / "s.sqlite"), rows(1000)
    for number, one in enumerate(made):
        store.append(one)
        if number % 100 == 99:
            store.flush()
    assert store._recent.base > 500
    for where in CONDITIONS:
        assert store.select(where) == [one for one in made if where.matches(one)]
    assert store.roots(150) == [one for one in made if one.parent_id is None][-150:]
    assert list(store.rows(trace_id=made[3].trace_id)) == made[:5]
    assert store.traces(made[3].trace_id[:8]) == [made[3].trace_id]
    assert all(one.exact for one in store.latencies())
    store.close()


def test_percentiles_are_exact_in_memory_and_within_two_percent_from_the_file(session, tmp_path):
    path, made = session
    durations = {}
    for one in made:
        durations.setdefault(one.name, []).append(one.end_ns - one.start_ns)
    running = SpanStore(None)
    for one in made:
        running.append(one)
    estimated = RecordedSpans(path).latencies()
    assert {one.name for one in estimated} == set(durations)
    for one in running.latencies():
        ordered = sorted(durations[one.name])
        assert one.exact
        assert (one.count, one.p50_s, one.p95_s) == (
            len(ordered),
            ordered[round(0.5 * (len(ordered) - 1))] / 1e9,
            ordered[round(0.95 * (len(ordered) - 1))] / 1e9,
        )
        guess = next(other for other in estimated if other.name == one.name)
        assert not guess.exact
        assert guess.count == one.count
        assert guess.p50_s == pytest.approx(one.p50_s, rel=0.0175)
        assert guess.p95_s == pytest.approx(one.p95_s, rel=0.0175)
    running.close()


def test_a_store_that_goes_on_sums_up_what_is_on_disk_and_what_is_new(tmp_path):
    made = rows(50)
    first = SpanStore(tmp_path / "s.sqlite")
    for one in made[:25]:
        first.append(one)
    first.close()
    again = SpanStore(tmp_path / "s.sqlite")
    for one in made[25:]:
        again.append(one)
    assert list(again.rows()) == made
    assert again.totals()["traces"] == 10
    found = again.latencies()
    assert sum(one.count for one in found) == 50
    assert not any(one.exact for one in found)
    assert list(again.rows(trace_id=made[24].trace_id)) == made[20:25]
    again.close()


def test_the_shortest_and_the_longest_spans_have_a_bucket():
    for duration in (-5, 0, 1, 2, 3, 10**9, 2**62):
        number = bucket(duration)
        assert number >= 0
        assert 2 ** (number / 20) <= max(1, duration) * 1.000001
        assert max(1, duration) < 2 ** ((number + 1) / 20) * 1.000001


def test_a_name_per_request_does_not_fill_the_memory_or_the_file(tmp_path):
    durations = Durations()
    for number in range(MAX_NAMES + 50):
        durations.add(f"GET /{number}", 5)
    by_name = {one.name: one.count for one in exact(durations.copy())}
    assert len(by_name) == MAX_NAMES + 1
    assert by_name[OTHER] == 50
    store = SpanStore(tmp_path / "s.sqlite")
    for number in range(MAX_NAMES + 50):
        store.append(SpanRow("t", str(number), None, f"GET /{number}", "client", 1, 2))
    store.close()
    assert {one.name: one.count for one in RecordedSpans(tmp_path / "s.sqlite").latencies()} == by_name


def test_the_file_is_plain_sqlite_that_others_read(session):
    path, made = session
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "select typeof(parent_id), typeof(ttft_s), count(*) from spans group by 1, 2"
        ).fetchall()
        assert {one[:2] for one in found} == {(p, t) for p in ("null", "text") for t in ("null", "real")}
        text = connection.execute("select attributes from spans where rowid = 1").fetchone()[0]
        assert json.loads(text) == dict(made[0].attributes)
        assert connection.execute("select json_extract(attributes, '$.n') from spans where rowid = 8").fetchone() == (
            7,
        )
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_pandas_reads_the_file_with_plain_sql(session):
    import pandas as pd

    path, made = session
    with closing(sqlite3.connect(path)) as connection:
        query = "select name, (end_ns - start_ns) / 1e9 as seconds from spans where parent_id is null"
        frame = pd.read_sql(query, connection)
    assert len(frame) == 800
    assert frame["seconds"].sum() == pytest.approx(sum(one.duration_s for one in made if one.parent_id is None))


def test_facts_about_a_session_are_kept(tmp_path):
    store = SpanStore(tmp_path / "s.sqlite")
    store.describe("server", "default", {"sha256": "abc", "name": "ü"})
    store.append(rows(1)[0])
    (told,) = store.descriptions()
    assert (told.kind, told.name, told.told) == ("server", "default", {"sha256": "abc", "name": "ü"})
    store.close()
    assert RecordedSpans(tmp_path / "s.sqlite").descriptions() == [told]


# Somebody who may only read; what root is started as becomes nobody once Python has what it needs.
_READER = """
import os, sys
from pathlib import Path
from llamatelemetry_jupyter.telemetry.recorded import RecordedSpans
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
spans = RecordedSpans(Path(sys.argv[1]))
print(len(spans.rows()), spans.problem, os.access(os.path.dirname(sys.argv[1]), os.W_OK))
"""


@pytest.mark.parametrize("ended", ["well", "killed"])
def test_a_session_in_a_folder_that_may_not_be_written_is_read(ended):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "theirs"
        store = SpanStore(folder / "s.sqlite")
        for one in rows(50):
            store.append(one)
        store.flush()
        if ended == "killed":  # what a kernel leaves that could not close its file
            copied = Path(name) / "copied"
            shutil.copytree(folder, copied)
            folder = copied
        store.close()
        for one in folder.iterdir():
            one.chmod(0o444)
        folder.chmod(0o555)
        Path(name).chmod(0o755)
        command = [sys.executable, "-c", _READER, str(folder / "s.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True)
        folder.chmod(0o755)
    assert done.stdout.split() == ["50", "None", "False"], done.stderr


@pytest.mark.parametrize("content", [None, b"", b"no database" * 200])
def test_what_is_no_session_says_so_in_two_lines(tmp_path, content):
    path = tmp_path / "s.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LlamaError, match="no session that can be read") as caught:
        RecordedSpans(path)
    assert caught.value.hint == "%llama sessions"
    assert path.exists() == (content is not None)

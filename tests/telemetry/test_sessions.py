"""Sessions are listed, opened, compared, and pruned whole; never one that a kernel writes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamatelemetry_jupyter.errors import CommandError, LlamaError
from llamatelemetry_jupyter.telemetry import sessions as sessions_module
from llamatelemetry_jupyter.telemetry.sessions import Sessions, new_path, prune, run_of
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow
from llamatelemetry_jupyter.views.sessions import runs_table, sessions_table

pytestmark = pytest.mark.floor

DAY_S = 86_400


def write(path, count=10, *, model="m", rate=50.0, days_old=0.0, **fields):
    store = SpanStore(path)
    for number in range(count):
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.temperature": 0.5, "text": "x" * 200}
        store.append(
            SpanRow(
                "a" * 32, f"{number:016x}", None, f"chat {model}", "client", number * 10**9, number * 10**9 + 5 * 10**8,
                model=model, input_tokens=3, output_tokens=4, ttft_s=0.1 + number / 100, decode_tokens_per_s=rate,
                attributes=attributes, **fields,
            )
        )  # fmt: skip
    store.close()
    age(path, days_old)
    return path


def age(path, days):
    moment = time.time() - days * DAY_S
    os.utime(path, (moment, moment))


def left(folder):
    return sorted(one.name for one in folder.iterdir())


# Another kernel: writes a session until its input ends.
_KERNEL = """
import sys
from pathlib import Path
from llamatelemetry_jupyter.telemetry.sessions import new_path, prune
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow
path = Path(sys.argv[1]) if sys.argv[1].endswith(".sqlite") else new_path(Path(sys.argv[1]))
store = SpanStore(path, tidy=lambda: prune(path, max_bytes=0))
for number in range(20):
    store.append(SpanRow("t", str(number), None, "x", "internal", 1, 2))
    store.flush()
print(path, store.problem, flush=True)
sys.stdin.read()
store.close()
print(len(store.rows()), flush=True)
"""


@pytest.fixture
def kernel():
    running = []

    def start(where):
        process = subprocess.Popen(
            [sys.executable, "-c", _KERNEL, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        path, _, problem = process.stdout.readline().strip().partition(" ")
        return process, Path(path), problem

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_sessions_are_listed_with_what_they_hold(tmp_path):
    write(tmp_path / "20260101-000000-1.sqlite", 10, model="a", days_old=3)
    write(tmp_path / "20260102-000000-1.sqlite", 5, model="b", days_old=2, status="error")
    (tmp_path / "20260103-000000-1.sqlite").write_bytes(b"spoilt" * 500)
    age(tmp_path / "20260103-000000-1.sqlite", 1)
    own = SpanStore(tmp_path / "20260104-000000-1.sqlite")
    own.append(SpanRow("t", "1", None, "x", "internal", 1, 2))
    own.flush()
    mine, spoilt, b, a = Sessions(tmp_path, own.path).list()
    assert (a.id, a.models, a.totals["spans"], a.totals["output_tokens"]) == ("20260101-000000-1", ("a",), 10, 40)
    assert (a.start_ns, a.end_ns, a.running) == (0, 95 * 10**8, False)
    assert (b.totals["errors"], b.size_bytes > 0) == (5, True)
    assert "not a database" in spoilt.problem
    assert mine.running
    text = str(sessions_table([mine, spoilt, b, a]))
    assert text.count("ended") == 2
    assert "cannot be read: file is not a database" in text
    assert str(sessions_table([])) == "no sessions yet; try: %llama chat Hello"
    own.close()


def test_a_session_is_named_by_its_id_by_the_beginning_of_it_or_as_this_one(tmp_path):
    first, second = write(tmp_path / "20260101-000000-1.sqlite"), write(tmp_path / "20260101-000000-11.sqlite")
    there = Sessions(tmp_path, second)
    assert there.find("20260101-000000-11") == second
    assert there.find("20260101-000000-1") == first
    assert there.find("this") == second
    assert len(there.open("20260101-000000-1").rows()) == 10
    for wrong in ("2026", "9", ""):
        with pytest.raises(CommandError) as caught:
            there.find(wrong)
        assert caught.value.hint == "%llama sessions"
    (tmp_path / "3.sqlite").write_bytes(b"spoilt" * 500)
    with pytest.raises(LlamaError, match="no session that can be read"):
        there.open("3")


def test_too_old_sessions_go_then_the_oldest_while_all_are_too_large(tmp_path):
    for number, days in enumerate((40, 20, 10, 5)):
        write(tmp_path / f"{number}.sqlite", 200, days_old=days)
    own = write(tmp_path / "own.sqlite", days_old=50)
    assert [one.name for one in prune(own)] == ["0.sqlite"]
    size = (tmp_path / "1.sqlite").stat().st_size
    assert [one.name for one in prune(own, max_bytes=2 * size + own.stat().st_size)] == ["1.sqlite"]
    assert left(tmp_path) == ["2.lock", "2.sqlite", "3.lock", "3.sqlite", "own.lock", "own.sqlite"]
    assert [one.name for one in prune(own, max_bytes=0)] == ["2.sqlite", "3.sqlite"]
    assert left(tmp_path) == ["own.lock", "own.sqlite"]


def test_kaggle_has_less_room(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions_module, "MAX_BYTES_KAGGLE", 0)
    write(tmp_path / "1.sqlite", days_old=1)
    own = write(tmp_path / "own.sqlite")
    assert prune(own) == []
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert [one.name for one in prune(own)] == ["1.sqlite"]
    assert sessions_module.MAX_BYTES == 1_000_000_000


def test_a_deletion_that_was_cut_off_is_finished(tmp_path):
    own = write(tmp_path / "own.sqlite")
    for name in ("1.sqlite-wal", "1.sqlite-shm", "2.lock"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("somebody's")
    prune(own)
    assert left(tmp_path) == ["notes.txt", "own.lock", "own.sqlite"]


def test_the_session_of_a_live_kernel_is_never_pruned(tmp_path, kernel):
    process, theirs, problem = kernel(tmp_path)
    assert problem == "None"
    age(theirs, 50)
    own = write(tmp_path / "own.sqlite")
    assert prune(own, max_bytes=0) == []
    assert next(one for one in Sessions(tmp_path, own).list() if one.path == theirs).running
    process.stdin.close()
    process.wait(20)
    assert prune(own, max_bytes=0) == [theirs]


def test_two_kernels_on_one_folder_leave_each_others_sessions_alone(tmp_path, kernel):
    old = write(tmp_path / "old.sqlite")
    (one, first, _), (other, second, _) = kernel(tmp_path), kernel(tmp_path)
    assert first != second
    for process in (one, other):
        process.stdin.close()
        assert process.stdout.read() == "20\n"
        assert process.wait(20) == 0
    assert not old.exists()
    assert {len(Sessions(tmp_path).open(path.stem).rows()) for path in (first, second)} == {20}


def test_a_kernel_that_is_pointed_at_another_ones_file_keeps_its_spans_in_memory(tmp_path, kernel):
    _, theirs, _ = kernel(tmp_path)
    _, _, problem = kernel(theirs)
    assert "spans are kept in memory only" in problem
    assert len(Sessions(tmp_path).open(theirs.stem).rows()) == 20


def test_a_name_that_a_live_kernel_elsewhere_has_is_not_taken(tmp_path):
    path = new_path(tmp_path)
    store = SpanStore(path)
    store.append(SpanRow("t", "1", None, "x", "internal", 1, 2))
    store.flush()
    assert new_path(tmp_path) == path.with_name(f"{path.stem}-2.sqlite")
    store.close()
    assert new_path(tmp_path) == path


def test_two_runs_side_by_side(tmp_path):
    quick = {"rate": 100.0, "energy_j": 1.0, "peak_bytes": 2**30}
    paths = [write(tmp_path / "a.sqlite", 10), write(tmp_path / "b.sqlite", 20, model="n", **quick)]
    store = SpanStore(paths[1])
    settings = {"llama_cpp.ctx_per_slot": 4096, "llama_cpp.engine": "b9999"}
    store.append(SpanRow("t", "1", None, "server start n", "internal", 1, 2, attributes=settings))
    store.close()
    a, b = (run_of(Sessions(tmp_path).open(path.stem), path.stem) for path in paths)
    assert (a.models, a.calls, a.output_tokens, a.decode_tokens_per_s) == (("m",), 10, 40, 50.0)
    assert (a.ttft_s, a.duration_s, a.energy_j, a.peak_bytes) == (pytest.approx(0.14), 0.5, None, None)
    assert (b.energy_j, b.energy_per_token_j, b.peak_bytes) == (20.0, 0.25, 2**30)
    assert b.settings == {"ctx_per_slot": "4096", "engine": "b9999", "temperature": "0.5"}
    rows = {row[0]: row[1:] for row in runs_table(a, b).rows}
    assert rows["models"] == ("m", "n", "differs")
    assert rows["tokens/s (median)"] == ("50.0", "100.0", "+100 %")
    assert rows["energy per token"] == ("n/a", "0.25 J", "")
    assert rows["ctx_per_slot"] == ("n/a", "4096", "differs")
    assert rows["temperature"] == ("0.5", "0.5", "")
    assert runs_table(b, a).rows[5][3] == "−50 %"


def test_a_session_without_calls_has_no_figures(tmp_path):
    store = SpanStore(tmp_path / "a.sqlite")
    store.append(SpanRow("t", "1", None, "x", "internal", 1, 2))
    store.close()
    empty = run_of(Sessions(tmp_path).open("a"), "a")
    assert (empty.calls, empty.decode_tokens_per_s, empty.energy_j) == (0, None, None)
    assert "n/a" in str(runs_table(empty, empty))

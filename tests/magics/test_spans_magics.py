"""%llama spans, sessions and compare-runs in a real IPython."""

from __future__ import annotations

import re

import pytest

from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow

pytestmark = pytest.mark.floor

LOAD = "%load_ext llamatelemetry\nimport llamatelemetry as lt"
MADE = (
    "for n in range(30):\n    with lt.span('retrieve' if n % 3 else 'rank', k=n, said='needle' if n == 7 else ''): pass"
)


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A session of before, in the folder that the test's kernel uses."""
    monkeypatch.setenv("LLAMATELEMETRY_DATA", str(tmp_path))
    store = SpanStore(tmp_path / "spans" / "20260101-000000-1.sqlite")
    for number in range(5):
        attributes = {"gen_ai.operation.name": "chat"}
        store.append(
            SpanRow(
                "a" * 32, f"{number:016x}", None, "chat old", "client", 10**9, 2 * 10**9, model="old", output_tokens=9,
                decode_tokens_per_s=42.0, attributes=attributes,
            )
        )  # fmt: skip
    store.close()


def test_an_overview_is_the_session_by_what_it_repeats(ipython, tmp_path):
    printed = ipython(
        LOAD, MADE, "graph = %llama graph --overview --out here\nprint(graph, *graph.nodes['label'], sep='\\n')"
    )
    assert "session graph of 28 nodes" in printed
    assert "6 earlier traces" in printed
    assert "retrieve × 20" in printed
    assert "rank × 10" in printed
    assert "<img alt=" in (tmp_path / "here" / "graph.html").read_text()


def test_spans_are_filtered_searched_and_summed_up(ipython, before):
    printed = ipython(
        LOAD,
        MADE,
        "found = %llama spans --name retrieve -n 3\nprint(found)\nprint(len(found.rows()))",
        "one = %llama spans needle\nprint('K', one.rows()[0].attributes['k'])",
        "%llama spans --by name",
        "frame = %llama spans --name rank --frame\nprint('FRAME', frame.shape)",
        "print('HERE', len(lt.spans.where(name='r*', since='10m')), lt.spans.by('name')[0].key)",
        "%llama spans --status error",
        "%llama spans --session 202601 --by model",
    )  # fmt: skip
    assert "K 7" in printed
    assert "FRAME (10, 21)" in printed
    assert "HERE 30 rank" in printed
    assert "no such span" in printed
    assert printed.count("retrieve") >= 4
    assert "old        5       0  1.00 s  1.00 s" in printed


def test_sessions_are_listed_opened_and_compared(ipython, before):
    printed = ipython(
        LOAD,
        MADE,
        "%llama sessions",
        "old = %llama sessions 20260101-000000-1\nprint(len(old), old.by('model')[0].output_tokens)",
        "%llama compare-runs 20260101",
        "%llama compare-runs this this",
        "%llama sessions this",
    )
    assert re.search("20260101-000000-1 +1970-01-01", printed)
    assert "5 45\n" in printed
    assert "running" in printed
    assert "tokens/s (median)" in printed
    assert "42.0" in printed
    assert "the newest 20 of" in printed


def test_what_is_typed_wrongly_is_answered_in_two_lines(ipython, before):
    printed = ipython(
        LOAD,
        "%llama spans -n 0",
        "%llama spans --since yesterday",
        "%llama spans --by colour",
        "%llama spans --session 1999",
        "%llama sessions nothing",
        "%llama compare-runs",
        "%llama compare-runs 1999",
        "%llama spans --nam x",
        "lt.spans.by('colour')",
    )
    for said in (
        "CommandError: -n must be at least 1, not 0",
        "CommandError: 'yesterday' is no moment",
        "invalid choice: 'colour'",
        "CommandError: there is no session '1999'",
        "CommandError: there is no session 'nothing'",
        "the following arguments are required: A",
        "did you mean --name?",
        "CommandError: spans are grouped by name, model, cell, hour, server, status, not 'colour'",
    ):
        assert said in printed
    assert printed.count("  try: ") == 9
    assert "Traceback" not in printed


def test_tab_knows_sessions_and_names(ipython, before):
    complete = "print('TAB', [c for c in get_ipython().complete('{0}', '%llama {1}{0}')[1]][:4])"
    printed = ipython(
        LOAD,
        MADE,
        complete.format("202601", "sessions "),
        complete.format("th", "compare-runs "),
        complete.format("re", "spans --name "),
        complete.format("mo", "spans --by "),
    )
    assert [line for line in printed.splitlines() if line.startswith("TAB")] == [
        "TAB ['20260101-000000-1']",
        "TAB ['this']",
        "TAB ['retrieve']",
        "TAB ['model']",
    ]


def test_spans_that_cannot_be_written_are_shown_by_status_and_doctor(ipython, tmp_path, monkeypatch):
    (tmp_path / "spans").write_text("a file where a folder should be")
    monkeypatch.setenv("LLAMATELEMETRY_DATA", str(tmp_path))
    printed = ipython(LOAD, MADE, "lt.current_session().spans.flush()", "%llama status", "%llama doctor")
    assert printed.count("spans are kept in memory only") >= 2
    assert "%env LLAMATELEMETRY_DATA=/a/folder/of/yours" in printed

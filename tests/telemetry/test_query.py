"""lt.spans: which spans, how many, how long."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta

import pytest

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.telemetry.query import GROUPS, moment_ns
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow
from llamatelemetry_jupyter.views.spans import Spans

pytestmark = pytest.mark.floor

HOUR_NS = 3600 * 10**9
NOON_NS = round(datetime(2026, 11, 24, 12).astimezone().timestamp() * 1e9)


def span(number, *, name="chat a", model="a", took_ms=10, begin_ns=None, **fields):
    begin = NOON_NS if begin_ns is None else begin_ns
    return SpanRow(
        "a" * 32, f"{number:016x}", "b", name, "client", begin, begin + took_ms * 10**6, model=model, **fields
    )


@pytest.fixture
def store():
    made = SpanStore(None)
    for number in range(100):
        made.append(
            span(
                number,
                took_ms=number + 1,
                input_tokens=10,
                output_tokens=2,
                ttft_s=number / 100,
                decode_tokens_per_s=50.0,
            )
        )
    made.append(span(200, name="chat b", model="b", status="error", error_type="TimeoutError", cell_id="cell-2"))
    made.append(span(201, name="notebook cell", model=None, begin_ns=NOON_NS + HOUR_NS, energy_j=4.0))
    made.append(span(202, name="notebook cell", model=None, begin_ns=NOON_NS + HOUR_NS, energy_j=2.5))
    yield made
    made.close()


@pytest.fixture
def spans(store):
    return Spans(lambda: store)


def test_conditions_add_up_and_nothing_is_read_before_it_is_asked_for(spans, store):
    chats = spans.where(name="chat*")
    errors = chats.where(status="error")
    assert (len(spans), len(chats), len(errors)) == (103, 101, 1)
    store.append(span(300, name="chat c", status="error"))
    assert [one.name for one in errors] == ["chat b", "chat c"]
    assert [one.name for one in spans.last(2).rows()] == ["notebook cell", "chat c"]
    assert len(spans.search("timeout")) == 1
    assert len(spans.search("timeout").search("nothing like it")) == 0
    assert len(spans.where(cell="cell")) == 1
    assert len(errors.frame()) == 2


def test_groups_have_exact_percentiles_and_sums(spans):
    a, b, none = spans.by("model")
    assert (a.key, a.count, a.errors, a.input_tokens, a.output_tokens) == ("a", 100, 0, 1000, 200)
    assert (a.p50_s, a.p95_s) == (pytest.approx(0.051), pytest.approx(0.095))
    assert (a.ttft_p50_s, a.ttft_p95_s, a.decode_p50_tokens_per_s) == (0.5, 0.94, 50.0)
    assert (b.errors, b.ttft_p50_s, b.input_tokens, b.energy_j) == (1, None, None, None)
    assert (none.key, none.count, none.energy_j) == (None, 2, 6.5)
    assert [(one.key, one.count) for one in spans.by("hour")] == [("2026-11-24 12:00", 101), ("2026-11-24 13:00", 2)]
    assert [one.key for one in spans.where(name="chat*").by("name")] == ["chat a", "chat b"]
    assert [one.count for one in spans.last(3).by("name")] == [1, 2]
    assert [one.key for one in spans.search("timeout").by("cell")] == ["cell-2"]


def test_a_summary_is_a_table_and_a_frame(spans):
    summary = spans.by("model")
    text = str(summary)
    assert text.splitlines()[1].split() == "a 100 0 51 ms 95 ms 0.50 s 0.94 s 50.0 1,000 200".split()
    assert "6.5 J" in text
    assert "<table>" in summary._repr_html_()
    frame = summary.frame()
    assert list(frame["model"].fillna("-")) == ["a", "b", "-"]
    assert str(frame["input_tokens"].dtype) == "Int64"
    assert math.isnan(frame["energy_j"][0])
    assert spans.where(name="nothing").by("name").frame().empty
    assert str(spans.where(name="nothing").by("name")) == "no such span"


def test_spans_show_the_newest_twenty(spans):
    assert str(spans).endswith("the newest 20 of 103 spans")
    assert str(spans).count("notebook cell") == 2
    assert "TimeoutError" in str(spans.where(status="error"))
    assert str(spans.where(name="nothing")) == "no such span"
    assert "the newest 20 of 103 spans" in spans._repr_html_()
    assert repr(spans.last(1)).count("\n") == 2


def test_text_of_other_people_is_shown_harmless():
    store = SpanStore(None)
    store.append(span(1, name="<script>x</script>", model="<b>"))
    found = Spans(lambda: store)
    assert "<script>" not in found._repr_html_()
    assert "<b>" not in found.by("model")._repr_html_()
    store.close()


@pytest.mark.parametrize(
    ("said", "seconds"), [("90s", 90), ("10m", 600), ("2 h", 7200), ("1d", 86400), ("1.5h", 5400), ("0s", 0)]
)
def test_moments_may_be_so_long_ago(said, seconds):
    assert moment_ns(said) == pytest.approx(now_ns() - seconds * 1e9, abs=5e9)


def test_moments_may_be_dates_times_and_numbers():
    today = datetime.now().astimezone()
    assert moment_ns("9:30") == round(today.replace(hour=9, minute=30, second=0, microsecond=0).timestamp() * 1e9)
    assert moment_ns("2026-11-24") == round(datetime(2026, 11, 24).astimezone().timestamp() * 1e9)
    assert moment_ns("2026-11-24 13:00:00") == NOON_NS + HOUR_NS
    assert moment_ns("2026-11-24T12:00:00+00:00") == 1_795_521_600_000_000_000
    assert moment_ns(5) == 5 * 10**9
    assert moment_ns(datetime.fromtimestamp(7).astimezone()) == 7 * 10**9
    assert moment_ns(today - timedelta(seconds=1)) <= time.time_ns()


@pytest.mark.parametrize("said", ["", "yesterday", "10x", "25:00", "2026-13-01", "-5m", "99999999-01-01"])
def test_what_is_no_moment_says_what_one_looks_like(spans, said):
    with pytest.raises(CommandError, match="is no moment") as caught:
        spans.where(since=said)
    assert "10m" in caught.value.hint


def test_what_cannot_be_asked_says_what_can(spans):
    for ask in (lambda: spans.by("colour"), lambda: spans.where(status="fine"), lambda: spans.last(0)):
        with pytest.raises(CommandError) as caught:
            ask()
        assert caught.value.hint
    assert {len(spans.by(key)) > 0 for key in GROUPS} == {True}

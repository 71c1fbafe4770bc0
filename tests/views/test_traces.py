"""Traces for the dashboard: one line each from memory and from the file, one whole with everything capped, whatever it holds."""

import json
import time
from dataclasses import replace

import pytest
from hostile import WORDS
from viewworld import MIB, T0, Memory, host, trace

from llamatelemetry_jupyter import operations
from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.telemetry import semconv
from llamatelemetry_jupyter.telemetry.recorded import RecordedSpans
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import Samples, SpanRow
from llamatelemetry_jupyter.views.model import depths
from llamatelemetry_jupyter.views.traces import MAX_ATTRIBUTE_BYTES, MAX_VALUE_BYTES, trace_list

pytestmark = pytest.mark.floor


class Session:
    """What the operations use of one."""

    def __init__(self, spans, samples=None):
        self.spans, self.samples = spans, samples or Memory()


def called(rows):
    """``rows`` in order of their end, requests marked as such."""
    chat = {semconv.OPERATION_NAME: "chat"}
    rows = [replace(row, attributes=chat) if row.name.startswith("chat") else row for row in rows]
    return sorted(rows, key=lambda row: row.end_ns)


def ask(name, session, **args):
    """The answer as the front end gets it."""
    made = operations.of(session)[name](progress=lambda step: None, **args)
    return json.loads(json.dumps(made, allow_nan=False))


def lines(made):
    """The columns as one dict per trace."""
    named = {"name", "model", "cell", "error_type"}
    columns = {k: [made["texts"][i] for i in v] if k in named else v for k, v in made.items() if k != "texts"}
    return [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]


@pytest.fixture
def store():
    made = SpanStore()
    yield made
    made.close()


def fill(store, *traces):
    for row in sorted((row for rows in traces for row in called(rows)), key=lambda row: row.end_ns):
        store.append(row)


def test_a_line_has_the_figures_of_the_traces_requests(store):
    fill(store, trace(1, 8, decode_s=2.0), trace(2, 14, decode_s=1.0, calls=2), trace(3, 22, status="error"))
    third, second, first = lines(ask("traces", Session(store)))
    assert first["trace_id"] == f"{1:032x}"
    assert first["span_id"] == f"{1:016x}"
    assert (first["name"], first["model"], first["cell"]) == ("notebook cell", "smollm2-135m", "cell-1")
    assert (first["input_tokens"], first["output_tokens"], first["calls"]) == (34, 96, 1)
    assert (first["ttft_s"], first["decode_tokens_per_s"], first["energy_j"]) == (0.15, 47.5, None)
    assert (first["complete"], first["failed"], first["error_type"]) == (True, False, None)
    assert first["start_ms"] == (T0 + 8 * 10**9) / 1e6
    assert (second["input_tokens"], second["output_tokens"], second["calls"]) == (68, 192, 2)
    assert second["decode_tokens_per_s"] == 95.0
    assert (third["failed"], third["error_type"]) == (True, "ServerError")


def test_a_rate_is_over_the_time_of_decoding_and_what_is_missing_stays_missing(store):
    rows = called(trace(1, 8, decode_s=1.0, calls=2))
    quick, slow = (row for row in rows if row.name.startswith("chat"))
    store.append(replace(quick, output_tokens=101, decode_tokens_per_s=100.0, energy_j=2.0))
    store.append(replace(slow, output_tokens=11, decode_tokens_per_s=10.0, input_tokens=None))
    (line,) = lines(ask("traces", Session(store)))
    assert line["decode_tokens_per_s"] == 55.0  # 110 tokens in two seconds
    assert (line["input_tokens"], line["energy_j"]) == (34, 2.0)
    # The cell is still running: its first request stands for it.
    assert (line["complete"], line["span_id"], line["name"]) == (False, quick.span_id, "chat smollm2-135m")
    store.append(SpanRow("f" * 32, "1" * 16, None, "load", "internal", T0, T0 + 1, energy_j=float("nan")))
    line = lines(ask("traces", Session(store)))[0]
    assert {line[name] for name in ("input_tokens", "ttft_s", "decode_tokens_per_s", "energy_j", "model")} == {None}


def test_only_traces_of_which_something_is_new_are_told_again_and_then_whole(store):
    rows = called(trace(1, 8, decode_s=1.0, calls=3))
    fill(store, trace(4, 1))
    for row in rows[:-1]:  # the root has not ended
        store.append(row)
    last = max(row.end_ns for row in rows if row.name.startswith("chat")) / 1e6
    (line,) = lines(ask("traces", Session(store), since_ms=last - 1))
    assert (line["calls"], line["output_tokens"]) == (3, 288)
    assert lines(ask("traces", Session(store), since_ms=last + 60_000)) == []


def test_the_newest_traces_are_kept_whole(store):
    fill(store, *(trace(n, n, calls=2) for n in range(1, 30)))
    found = trace_list(store.outlines(), most=5)
    assert [int(one, 16) for one in found["trace_id"]] == [29, 28, 27, 26, 25]
    assert found["calls"] == (2,) * 5


def test_the_list_of_a_session_of_before_is_that_of_the_running_one(tmp_path):
    written = SpanStore(tmp_path / "spans.db")
    fill(written, *(trace(n, n, calls=n % 3) for n in range(1, 20)))
    live = ask("traces", Session(written))
    written.close()
    assert ask("traces", Session(RecordedSpans(tmp_path / "spans.db"))) == live
    assert len(live["trace_id"]) == 19


def test_ten_thousand_traces_are_told_at_once(store):
    fill(store, *(trace(n, n * 3) for n in range(1, 10_101)))
    trace_list(store.outlines())
    began = time.perf_counter()
    made = ask("traces", Session(store))
    took = time.perf_counter() - began
    assert len(made["trace_id"]) == 10_000
    assert took < 1.0  # 0.1 s on two cores; what matters is that it is not seconds
    assert len(json.dumps(made)) < 2_000_000


@pytest.mark.parametrize("word", WORDS)
def test_no_text_breaks_the_list(store, word):
    fill(store, [replace(row, model=word, cell_id=word, error_type=word, status="error") for row in trace(1, 8)])
    store.append(SpanRow("f" * 32, "1" * 16, None, word, "internal", T0, T0 + 1))
    made = ask("traces", Session(store))
    assert len(json.dumps(made)) < 2_000


def test_a_trace_comes_with_attributes_gaps_and_what_the_devices_did(store):
    rows = called(trace(1, 8))
    chat = next(row for row in rows if row.name.startswith("chat"))
    store.keep_gaps(chat.span_id, [0.02, 0.03])
    fill(store, trace(1, 8))
    made = ask("trace", Session(store, Memory(host(30, device="GPU-a"))), trace_id=f"{1:032x}")
    assert [one["name"] for one in made["spans"]] == [
        "notebook cell",
        "chat smollm2-135m",
        "queue",
        "prefill",
        "decode",
    ]
    told = made["spans"][1]
    assert told["attributes"] == {semconv.OPERATION_NAME: "chat"}
    assert told["gaps_s"] == [0.02, 0.03]
    assert int(told["end_ns"]) == chat.end_ns  # not rounded
    assert "energy_j" not in told
    assert {one["group"] for one in made["series"]} == {"memory", "util", "power"}
    assert len(made["points"]["values"]) == len(made["series"])
    assert made["points"]["t_ms"][0] <= (T0 + 8 * 10**9) / 1e6 <= made["points"]["t_ms"][-1]


def test_long_attributes_are_cut_and_what_has_no_room_is_said(store):
    long = {"document": "x" * 5_000_000, "list": ["é" * 30_000], "short": 1, "nan": float("nan")}
    many = {f"part {n}": "y" * 15_000 for n in range(20)}
    store.append(SpanRow("a" * 32, "1" * 16, None, "one", "internal", T0, T0 + 10, attributes=long))
    store.append(SpanRow("a" * 32, "2" * 16, "1" * 16, "two", "internal", T0 + 1, T0 + 9, attributes=many))
    store.append(SpanRow("a" * 32, "3" * 16, "1" * 16, "three", "internal", T0 + 2, T0 + 9, attributes={"n": 3}))
    made = ask("trace", Session(store), trace_id="a" * 32)
    one, two, three = made["spans"]
    assert one["cut"] == {"document": 5_000_000, "list": 60_004}
    assert len(one["attributes"]["document"]) == MAX_VALUE_BYTES
    assert (one["attributes"]["short"], one["attributes"]["nan"]) == (1, "NaN")
    assert "attributes" not in two  # it would need more than what is left: asked for alone
    assert three["attributes"] == {"n": 3}
    assert len(json.dumps(made)) < 1.5 * MAX_ATTRIBUTE_BYTES
    alone = ask("span", Session(store), trace_id="a" * 32, span_id="2" * 16)
    assert len(alone["attributes"]) + alone["left_out"] == 20
    assert sum(map(len, alone["attributes"].values())) <= MAX_ATTRIBUTE_BYTES


def test_what_there_is_not_is_said(store):
    fill(store, trace(1, 8))
    for name, args in (("trace", {"trace_id": "f" * 32}), ("span", {"trace_id": f"{1:032x}", "span_id": "f" * 16})):
        with pytest.raises(CommandError, match="there is no"):
            ask(name, Session(store), **args)


def test_a_trace_goes_to_the_clipboard_as_otlp_unless_it_is_too_long(store):
    fill(store, trace(1, 8))
    told = json.loads(ask("otlp", Session(store), trace_id=f"{1:032x}"))
    (scope,) = told["resourceSpans"][0]["scopeSpans"]
    assert {one["name"] for one in scope["spans"]} == {
        "notebook cell",
        "chat smollm2-135m",
        "queue",
        "prefill",
        "decode",
    }
    long = {"document": "x" * 5_000_000}
    store.append(SpanRow("a" * 32, "1" * 16, None, "one", "internal", T0, T0 + 10, attributes=long))
    with pytest.raises(CommandError, match=r"5\.0 MB of JSON, too much"):
        ask("otlp", Session(store), trace_id="a" * 32)


def chain(count, parent):
    return [
        SpanRow("b" * 32, f"{n:016x}", parent(n), f"level {n}", "internal", T0 + n, T0 + 10_000 - n, peak_bytes=MIB)
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("count", "parent", "deepest"),
    [
        (100, lambda n: f"{n - 1:016x}" if n > 1 else None, 99),
        (10_000, lambda n: f"{n - 1:016x}" if n > 1 else None, 9_999),
        (5, lambda n: f"{n % 5 + 1:016x}", 4),  # a cycle
        (1, lambda n: f"{n:016x}", 0),  # its own parent
    ],
    ids=["100 levels", "10,000 levels", "cycle", "own parent"],
)
def test_any_tree_of_parents_is_told(store, count, parent, deepest):
    rows = chain(count, parent)
    for row in rows:
        store.append(row)
    assert len(ask("trace", Session(store), trace_id="b" * 32)["spans"]) == count
    found = depths(rows)
    assert len(found) == count
    assert max(found.values()) <= deepest


def test_a_trace_without_any_root_is_in_the_list_when_it_has_a_request(store):
    for row in called(trace(1, 8)):
        store.append(replace(row, parent_id=row.parent_id or "e" * 16))
    (line,) = lines(ask("traces", Session(store)))
    assert (line["complete"], line["calls"]) == (False, 1)


def test_samples_that_there_are_none_of_are_none(store):
    fill(store, trace(1, 8))

    class Silent(Memory):
        def window(self, t0_ns, t1_ns, max_points=None):
            return Samples()

    made = ask("trace", Session(store, Silent()), trace_id=f"{1:032x}")
    assert made["points"] == {"t_ms": [], "values": []}

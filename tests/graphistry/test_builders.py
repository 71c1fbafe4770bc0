"""Nodes and edges of traces: typed columns, nothing private, no two nodes in one place."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hostile import WORDS
from viewworld import T0, hostile, trace

from llamatelemetry_jupyter.graphistry import summary
from llamatelemetry_jupyter.graphistry.builders import label, session_graph, trace_tree
from llamatelemetry_jupyter.graphistry.connector import EDGE_COLUMNS, NODE_COLUMNS

pytestmark = pytest.mark.floor


def test_one_trace():
    frames = trace_tree(trace(1, 0))
    assert tuple(frames.nodes.columns) == NODE_COLUMNS
    assert tuple(frames.edges.columns) == EDGE_COLUMNS
    assert list(frames.nodes["kind"]) == ["cell", "chat", "queue", "prefill", "decode"]
    assert list(frames.nodes["tokens"].fillna(-1)) == [-1, 96, -1, -1, -1]
    assert list(frames.edges["source"]) == [frames.nodes["id"][0]] + [frames.nodes["id"][1]] * 3
    assert frames.edges["p50_s"][0] == pytest.approx(2.15)
    assert frames.nodes["x"].min() == 0


@pytest.mark.parametrize("build", [trace_tree, session_graph])
@pytest.mark.parametrize("rows", [[], trace(1, 0)[:1], trace(1, 0)])
def test_types_do_not_depend_on_what_is_in_the_columns(rows, build):
    import pyarrow

    frames = build(rows)
    assert (tuple(frames.nodes.columns), tuple(frames.edges.columns)) == (NODE_COLUMNS, EDGE_COLUMNS)
    for frame, texts in (
        (frames.nodes, {"id", "kind", "label", "trace_id", "status"}),
        (frames.edges, {"source", "target", "kind"}),
    ):
        schema = pyarrow.Schema.from_pandas(frame, preserve_index=False)
        for name in frame.columns:
            wanted = ("string", "large_string") if name in texts else ("int64", "double")
            assert str(schema.field(name).type) in wanted, name


def test_no_two_nodes_are_in_one_place():
    rows = [row for n in range(40) for row in trace(n + 1, n % 4 * 0.5, calls=n % 3 + 1)]
    twins = [replace(rows[3], span_id=f"{n:016x}", start_ns=T0, end_ns=T0) for n in range(900_000, 900_040)]
    nodes = trace_tree([*rows, *twins]).nodes
    assert not nodes.duplicated(["x", "y"]).any()


def test_a_child_is_below_its_parent_and_traces_one_after_another_share_their_levels():
    frames = trace_tree([row for n in range(20) for row in trace(n + 1, n * 5)])
    y = dict(zip(frames.nodes["id"], frames.nodes["y"], strict=True))
    assert all(y[s] > y[t] for s, t in zip(frames.edges["source"], frames.edges["target"], strict=True))
    assert frames.nodes["y"].nunique() <= 5


def test_missing_parents_circles_and_spans_that_came_twice():
    rows = trace(1, 0)
    assert len(trace_tree(rows[1:]).edges) == 3
    assert len(trace_tree([*rows, *rows]).nodes) == 5
    assert len(trace_tree([replace(rows[0], parent_id=rows[1].span_id), *rows[1:]]).nodes) == 5


def test_labels_hold_no_folders():
    assert label("chat /home/me/secret/model.gguf") == "chat model.gguf"
    assert label(r"chat C:\Users\me\model.gguf") == "chat model.gguf"
    assert label("chat smollm2-135m") == "chat smollm2-135m"
    assert label("notebook cell") == "notebook cell"


@pytest.mark.parametrize("word", WORDS)
def test_hostile_names_are_only_shortened(word):
    rows = hostile(trace(1, 0), word)
    assert trace_tree(rows).nodes["label"].str.len().max() <= 200
    nodes = session_graph(rows).nodes
    assert nodes["label"].str.len().max() <= 210
    assert not nodes["label"].str.contains("[\x1b\u202e]").any()


def test_a_hundred_thousand_rows():
    rows = [row for n in range(20_000) for row in trace(n + 1, n * 0.5)]
    began = time.process_time()
    frames = trace_tree(rows)
    assert (len(frames.nodes), len(frames.edges)) == (100_000, 80_000)
    print(f"{time.process_time() - began:.2f} s")


# ------------------------------------------------------------------------------------------------- the session graph


def names(frames, column="label"):
    return dict(zip(frames.nodes["id"], frames.nodes[column], strict=True))


def told(frames):
    """Edges as labels, with their counts."""
    label_of = names(frames)
    columns = (frames.edges[one].tolist() for one in ("source", "target", "count"))
    return {(label_of[s], label_of[t]): many for s, t, many in zip(*columns, strict=True)}


def started(number, at_s, server="127.0.0.1:8080", devices=("CUDA0", "CPU")):
    """A server's start as the engine announces it, and a call of that server."""
    memory = {f"llama_cpp.memory.{device}.weights": 1000 for device in devices}
    start, *rest = trace(number, at_s)
    load = replace(rest[0], span_id=f"{number + 7000:016x}", name="server start smollm2-135m", kind="internal")
    load = replace(load, server=server, attributes=memory, output_tokens=None, input_tokens=None, ttft_s=None)
    return [replace(row, server=server if row.server else None) for row in (start, load, *rest)]


def test_a_session_of_one_span():
    frames = session_graph(trace(1, 0)[:1])
    assert list(frames.nodes["kind"]) == ["notebook", "cell", "trace"]
    assert list(frames.edges["kind"]) == ["contains", "contains"]


def test_five_spans_lead_from_the_notebook_to_the_model():
    rows = trace(1, 0)
    rows[0] = replace(rows[0], attributes={"jupyter.execution_count": 7})
    frames = session_graph(rows)
    assert told(frames) == {
        ("notebook", "cell [7]"): 1,
        ("cell [7]", "trace 00000000"): 1,
        ("trace 00000000", "chat smollm2-135m"): 1,
        ("chat smollm2-135m", "queue"): 1,
        ("chat smollm2-135m", "prefill"): 1,
        ("chat smollm2-135m", "decode"): 1,
        ("chat smollm2-135m", "smollm2-135m"): 1,
    }
    assert list(frames.nodes["x"]) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert list(frames.nodes["y"][-4:]) == [0, -1, -2, -3]
    assert list(frames.nodes["tokens"].fillna(-1)) == [96, 96, 96, 96, -1, -1, -1, 96]


def test_what_is_alike_is_one_node_that_says_how_often_with_latencies_on_its_edges():
    rows = [row for n in range(1, 5) for row in trace(n, n * 5, decode_s=float(n), calls=n)]
    frames = session_graph(rows)
    labels = set(frames.nodes["label"])
    assert {"chat smollm2-135m × 10", "decode × 10", "smollm2-135m × 10"} <= labels
    decode = frames.edges[frames.edges["target"] == "decode:decode"]
    assert (decode["count"].item(), decode["p50_s"].item()) == (10, 3.0)
    assert decode["p95_s"].item() == pytest.approx(4.0)
    # The median call, all calls' tokens, the newest call's trace.
    chat = frames.nodes.set_index("id").loc["chat:chat smollm2-135m"]
    assert chat["duration_s"] == pytest.approx(3.15)
    assert chat["tokens"] == 960
    assert chat["trace_id"] == f"{4:032x}"


def test_a_cell_that_ran_twice_is_one_node_with_two_traces():
    again = [replace(row, cell_id="cell-1") for row in trace(2, 9)]
    frames = session_graph([*trace(1, 0), *again])
    cells = frames.nodes[frames.nodes["kind"] == "cell"]
    assert list(cells["label"]) == ["cell × 2"]
    assert (frames.nodes["kind"] == "trace").sum() == 2


def test_models_lead_to_the_devices_that_their_server_named():
    rows = [*started(1, 0), *trace(2, 9, model="qwen3")]  # nobody knows where qwen3 is
    found = told(session_graph(rows))
    assert found["smollm2-135m × 2", "CUDA0"] == 1
    assert found["smollm2-135m × 2", "CPU"] == 1
    assert not [pair for pair in found if pair[0] == "qwen3"]
    remote = session_graph(started(1, 0, devices=("RPC[10.0.0.7:50052]",)))
    assert "RPC" in set(remote.nodes["label"])
    assert not remote.nodes["label"].str.contains("10.0.0").any()


def test_errors_are_nodes_and_free_text_is_none_of_their_names():
    failed = [replace(row, status="error", error_type="ContextFull") for row in trace(1, 0)[1:2]]
    loud = [replace(row, status="error", error_type="cannot open /home/me/secret.txt") for row in trace(2, 5)[1:2]]
    frames = session_graph([*trace(1, 0)[:1], *failed, *trace(2, 5)[:1], *loud])
    errors = frames.nodes[frames.nodes["kind"] == "error"]
    assert set(errors["label"]) == {"ContextFull", "error"}
    assert set(frames.nodes.set_index("id")["status"][["notebook", "chat:chat smollm2-135m"]]) == {"error"}
    assert not frames.nodes["label"].str.contains("secret").any()


def test_no_text_of_a_span_but_its_name_and_model_is_in_the_graph():
    rows = [
        replace(row, cell_id="my secret", scope="my secret", server="my secret:80", attributes={"x": "my secret"})
        for row in trace(1, 0)
    ]
    frames = session_graph(rows)
    assert "secret" not in frames.nodes.to_csv() + frames.edges.to_csv()


def test_missing_parents_circles_and_spans_that_came_twice_in_a_session():
    rows = trace(1, 0)
    assert len(session_graph(rows[1:]).nodes) == 7  # no cell
    assert len(session_graph([*rows, *rows]).nodes) == len(session_graph(rows).nodes)
    circle = [replace(rows[0], parent_id=rows[1].span_id), *rows[1:]]
    assert {"queue", "decode"} <= set(session_graph(circle).nodes["label"])
    assert {"queue", "decode"} <= {part.label for part in summary.trace(circle).parts}
    own = [replace(rows[1], parent_id=rows[1].span_id)]
    assert len(session_graph(own).nodes) == 4
    elsewhere = [*rows, replace(rows[1], span_id="b1", trace_id="b" * 32, parent_id=rows[0].span_id)]
    assert "trace bbbbbbbb" in set(session_graph(elsewhere).nodes["label"])
    nested = [
        replace(rows[2], name="answer", span_id="a1"),
        replace(rows[3], name="answer", span_id="a2", parent_id="a1"),
    ]
    assert "answer × 2" in set(session_graph(nested).nodes["label"])


def test_the_order_of_rows_does_not_matter_and_later_traces_leave_earlier_nodes_where_they_are():
    import pandas as pd

    rows = [row for n in range(1, 9) for row in trace(n, n * 5)]
    first, turned = session_graph(rows), session_graph(rows[::-1])
    pd.testing.assert_frame_equal(first.nodes, turned.nodes)
    grown = session_graph([*rows, *trace(9, 50)])
    place = {one: (x, y) for one, x, y in zip(*(grown.nodes[c].tolist() for c in ("id", "x", "y")), strict=True)}
    for one, x, y in zip(*(first.nodes[c].tolist() for c in ("id", "x", "y")), strict=True):
        assert place[one] == (x, y)


def test_a_hundred_thousand_rows_of_a_session():
    rows = [row for n in range(20_000) for row in trace(n + 1, n * 0.5, model=f"model-{n % 90}")]
    began = time.process_time()
    frames = session_graph(rows)
    took = time.process_time() - began
    assert len(frames.nodes) <= 200
    assert not frames.nodes.duplicated(["x", "y"]).any()
    labels = set(frames.nodes["label"])
    assert {"19,976 earlier traces", "19,976 earlier cells", "45 rarer names", "decode × 20,000"} <= labels
    spans = frames.edges[frames.edges["kind"] == "parent"]["count"].sum()
    assert spans == 80_000  # every span but the cells is counted, and once
    print(f"{took:.2f} s")
    assert took < 4  # of processor time; 1 s where nothing else runs


def test_a_trace_keeps_its_spans_apart_until_they_are_many():
    few, many = summary.trace(trace(1, 0, calls=3)), summary.trace(trace(1, 0, calls=400))
    assert len(few.parts) == 13
    assert [(part.level, part.row) for part in few.parts[:3]] == [(0, 0), (1, 0), (1, 3)]
    assert len({(part.level, part.row) for part in few.parts}) == 13
    assert {part.label: len(part.durations_s) for part in many.parts} == {
        "notebook cell": 1, "chat smollm2-135m": 400, "queue": 400, "prefill": 400, "decode": 400,
    }  # fmt: skip
    wide = summary.trace([replace(row, name=f"step {n}") for n, row in enumerate(trace(1, 0, calls=100))])
    assert len(wide.parts) == summary.MAX_TREE
    assert wide.left_out == ("161 rarer names",)

"""Nodes and edges of traces: typed columns, nothing private, no two nodes in one place."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from viewworld import HOSTILE, T0, trace

from llamatelemetry_jupyter.graphistry.builders import label, trace_tree
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


@pytest.mark.parametrize("rows", [[], trace(1, 0)[:1], trace(1, 0)])
def test_types_do_not_depend_on_what_is_in_the_columns(rows):
    import pyarrow

    frames = trace_tree(rows)
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


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_names_are_only_shortened(word):
    frames = trace_tree([replace(row, name=word, error_type=word, cell_id=word, server=word) for row in trace(1, 0)])
    assert frames.nodes["label"].str.len().max() <= 200


def test_a_hundred_thousand_rows():
    rows = [row for n in range(20_000) for row in trace(n + 1, n * 0.5)]
    began = time.process_time()
    frames = trace_tree(rows)
    assert (len(frames.nodes), len(frames.edges)) == (100_000, 80_000)
    print(f"{time.process_time() - began:.2f} s")

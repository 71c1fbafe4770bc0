"""The local drawing and its files: from one node to thousands, harmless, small."""

import json
import re

import pytest
from hostile import WORDS
from viewworld import drawn, hostile, trace, words

from llamatelemetry_jupyter.graphistry import summary
from llamatelemetry_jupyter.graphistry.builders import session_graph, trace_tree
from llamatelemetry_jupyter.views.diagram import diagram
from llamatelemetry_jupyter.views.graph import MAX_NODES, WIDTH, Drawing, graph_html, write_files

pytestmark = pytest.mark.floor


def check(html: str) -> None:
    assert len(html) < 150_000
    assert not re.search(r"<(script|svg|iframe|b\b)|<img src=x", html)
    root = drawn(html)
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(element.get("x")) < WIDTH
        assert 0 < float(element.get("y")) < float(root.get("height"))
    places = re.findall(
        r"translate\((-?\d+) (-?\d+)\)",
        re.sub(r"\s+", " ", "".join(map(str, (e.get("transform") for e in root.iter())))),
    )
    assert all(0 < int(x) < WIDTH and 0 < int(y) < float(root.get("height")) for x, y in places)


def test_one_node_one_trace_many_traces():
    for rows in (trace(1, 0)[:1], trace(1, 0), [r for n in range(1, 7) for r in trace(n, n * 3)]):
        html = graph_html(trace_tree(rows))
        check(html)
        assert "notebook cell" in words(html)


def test_nothing_yet_says_what_to_type():
    html = graph_html(trace_tree([]))
    check(html)
    assert "%llama chat" in words(html)


def test_marks_of_one_level_do_not_cover_each_other():
    html = graph_html(trace_tree([r for n in range(1, 15) for r in trace(n, n * 3, calls=3)]))
    check(html)
    places = [
        (int(x), int(y))
        for e in drawn(html).iter()
        for x, y in re.findall(r"translate\((\d+) (\d+)\)", e.get("transform", ""))
    ]
    assert len(places) == len(set(places))


def test_a_large_graph_is_drawn_as_what_it_repeats():
    rows = [r for n in range(1, 300) for r in trace(n, n * 3, calls=2, status="error" if n % 50 == 0 else "ok")]
    assert len(rows) > MAX_NODES
    html = graph_html(trace_tree(rows))
    check(html)
    said = words(html)
    assert "2,691 spans: one mark per name under one parent" in said
    assert "294" in said
    assert "error" in said


def test_many_names_are_cut_and_say_so():
    rows = [r for n in range(1, 200) for r in trace(n, n * 3, model=f"model-{n}")]
    html = graph_html(trace_tree(rows))
    check(html)
    assert "rarer names not drawn" in words(html)


def test_a_drawing_says_what_it_is_and_links_only_to_the_web():
    frames = trace_tree(trace(1, 0))
    assert repr(Drawing(frames)) == "graph of 5 nodes and 4 edges, 1 trace"
    assert '<a href="https://hub/graph?a=1&amp;b=2">' in Drawing(frames, "https://hub/graph?a=1&b=2")._repr_html_()
    assert "<a " not in Drawing(frames, "javascript:alert(1)")._repr_html_()


@pytest.mark.parametrize("word", WORDS)
def test_hostile_names(word):
    check(graph_html(trace_tree(hostile([r for n in range(1, 5) for r in trace(n, n)], word))))
    check(graph_html(trace_tree(hostile([r for n in range(1, 150) for r in trace(n, n)], word))))


def test_files_that_other_tools_read(tmp_path):
    import pandas as pd

    frames = trace_tree(trace(1, 0))
    written = write_files(frames, tmp_path / "graph")
    assert [p.name for p in written] == ["nodes.csv", "nodes.parquet", "edges.csv", "edges.parquet", "graph.html"]
    assert len(pd.read_parquet(written[1])) == 5
    assert list(pd.read_csv(written[2]).columns) == list(frames.edges.columns)
    assert written[4].read_text().startswith("<!doctype html>")


def boxes(html):
    """The rectangles of a session's picture, its card excepted: x, y, width, height."""
    rects = list(drawn(html).iter("{http://www.w3.org/2000/svg}rect"))[1:]
    return [tuple(float(one.get(name)) for name in ("x", "y", "width", "height")) for one in rects]


@pytest.mark.parametrize("cells", [1, 6, 60])
def test_a_session_is_drawn_in_columns_of_boxes_that_do_not_touch(cells):
    rows = [r for n in range(1, cells + 1) for r in trace(n, n * 3, calls=1 + n % 3, model=f"m-{n % 5}")]
    frames = session_graph(rows)
    html = graph_html(frames)
    assert len(html) < 150_000
    found = boxes(html)
    assert len(found) == len(frames.nodes)
    for i, (x, y, width, height) in enumerate(found):
        for other_x, other_y, other_width, other_height in found[i + 1 :]:
            apart = (
                x + width < other_x or other_x + other_width < x or y + height < other_y or other_y + other_height < y
            )
            assert apart
    root = drawn(html)
    assert all(
        x + width < float(root.get("width")) and y + height < float(root.get("height")) for x, y, width, height in found
    )
    assert repr(Drawing(frames)).startswith(f"session graph of {len(frames.nodes)} nodes")
    assert "notebook" in words(html)


def test_a_failed_sessions_picture_says_so_in_words():
    said = words(graph_html(session_graph(trace(1, 0, status="error"))))
    assert "✕ chat smollm2-135m" in said
    assert "ServerError" in said


@pytest.mark.parametrize("word", WORDS)
def test_hostile_names_in_a_session(word):
    html = graph_html(session_graph(hostile([r for n in range(1, 5) for r in trace(n, n)], word)))
    drawn(html)
    assert not re.search(r"<(script|svg|iframe|b\b)|<img src=x", html)
    assert len(html) < 150_000


@pytest.mark.parametrize("word", [*WORDS, "smollm2"])
@pytest.mark.parametrize("make", [summary.session, summary.trace])
def test_what_the_widget_draws_is_json_of_bounded_size(make, word):
    rows = [r for n in range(1, 90) for r in trace(n, n * 3, calls=2)]
    rows = [r if n % 3 else hostile([r], f"{word} {n}")[0] for n, r in enumerate(rows)]
    if make is summary.trace:
        rows = hostile(trace(1, 0, calls=200), word)
    made = diagram(make(rows), ["5 earlier spans"])
    text = json.dumps(made, allow_nan=False)
    assert len(text) < 200_000
    assert made["left_out"][0] == "5 earlier spans"
    assert len({node["id"] for node in made["nodes"]}) == len(made["nodes"])
    assert all(0 <= end < len(made["nodes"]) for edge in made["edges"] for end in edge[:2])


def test_too_many_edges_are_left_out_from_the_rarest_on(monkeypatch):
    rows = [r for n in range(1, 25) for r in trace(n, n * 10, calls=n, model=f"model {n % 7}")]
    whole = diagram(summary.session(rows))
    monkeypatch.setattr("llamatelemetry_jupyter.views.diagram.MAX_BYTES", len(json.dumps(whole["nodes"])) + 2500)
    made = diagram(summary.session(rows))
    assert made["edges"] == whole["edges"][: len(made["edges"])]
    gone = len(whole["edges"]) - len(made["edges"])
    assert gone > 10
    assert made["left_out"] == [f"{gone} rarer edges"]
    assert min(edge[3] for edge in made["edges"]) >= max(edge[3] for edge in whole["edges"][len(made["edges"]) :])

"""Plotly figures show the numbers of snapshot and spans, and other people's text as text."""

import dataclasses
import json

import pytest
from hostile import WORDS
from viewworld import T0, Memory, Spans, session, trace

from llamatelemetry_jupyter.telemetry.sessions import Run
from llamatelemetry_jupyter.views import plots, theme
from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.floor
NOTHING = Spans([])


def texts(figure):
    """Everything in the figure but the template, which is plotly's."""
    told = json.loads(figure.to_json())
    told["layout"].pop("template", None)
    return json.dumps(told, ensure_ascii=False)


def test_memory_is_stacked_by_owner_in_the_themes_colours():
    made = snapshot(**session())
    figure = plots.memory(made)
    names = [one.name for one in figure.data]
    assert names[:2] == ["weights", "KV cache"]
    series = [s["owner"] for s in made["series"] if s["group"] == "memory"]
    weights = made["points"]["values"][series.index("weights")]
    assert list(figure.data[0].y) == [None if v is None else v / 2**30 for v in weights]
    assert figure.data[0].fillcolor == theme.OWNERS["weights"]["light"]
    assert {one.stackgroup for one in figure.data} == {made["devices"][0]["id"]}


def test_throughput_has_the_servers_counts_and_each_calls_rate():
    made = snapshot(**session())
    figure = plots.throughput(made)
    calls = [s for s in made["spans"] if s["decode_tokens_per_s"] is not None and s["name"].startswith("chat")]
    dots = figure.data[-1]
    assert dots.name == "decode rate of a call"
    assert list(dots.y) == [one["decode_tokens_per_s"] for one in calls]
    assert any("output tokens/s" in one.name for one in figure.data[:-1])


def test_latency_is_by_model():
    rows = [*trace(1, 0), *trace(2, 10, model="other"), *trace(3, 20, model="other")]
    figure = plots.latency(rows)
    assert [(one.name, len(one.y)) for one in figure.data] == [
        ("other", 2), ("other", 2), ("smollm2-135m", 1), ("smollm2-135m", 1),
    ]  # fmt: skip
    calls = [row for row in rows if row.name == "chat other"]
    assert list(figure.data[0].y) == [row.ttft_s for row in calls]
    assert "Latency of 3 calls" in figure.layout.title.text


def test_a_waterfall_has_a_bar_per_span_below_its_parent():
    rows = trace(1, 0, calls=2, status="error")
    figure = plots.waterfall(rows)
    assert sum(len(one.y) for one in figure.data) == len(rows)
    bars = {place: (base, x) for one in figure.data for place, base, x in zip(one.y, one.base, one.x, strict=True)}
    assert bars[0][0] == 0
    assert bars[0][1] == pytest.approx(rows[-1].duration_s if rows[-1].parent_id is None else rows[0].duration_s)
    assert figure.layout.annotations[0].text.endswith("notebook cell")
    assert "error" in [one.name for one in figure.data]


def test_parents_in_a_circle_are_drawn_all_the_same():
    one, *_ = trace(1, 0)
    rows = [
        dataclasses.replace(one, span_id="a" * 16, parent_id="b" * 16, name="a"),
        dataclasses.replace(one, span_id="b" * 16, parent_id="a" * 16, name="b"),
        dataclasses.replace(one, span_id="c" * 16, parent_id="c" * 16, name="c"),
    ]
    figure = plots.waterfall(rows)
    assert sum(len(one.y) for one in figure.data) == 3


def run(name, **figures):
    known = {"models": ("m",), "calls": 1, "errors": 0, "input_tokens": 1, "output_tokens": 1, "settings": {}}
    none = dict.fromkeys(
        ("decode_tokens_per_s", "ttft_s", "ttft_p95_s", "duration_s", "peak_bytes", "energy_j", "energy_per_token_j")
    )
    return Run(name, **(known | none | figures))


def test_runs_are_compared_in_what_they_have():
    figure = plots.compare([run("a", decode_tokens_per_s=10.0, ttft_s=0.5), run("b", decode_tokens_per_s=20.0)])
    assert [a.text for a in figure.layout.annotations] == ["tokens/s", "first token"]
    assert [one.y[0] for one in figure.data] == [10.0, 20.0, 0.5, None]
    assert [one.text[0] for one in figure.data] == ["10.0", "20.0", "0.50 s", "n/a"]


def test_without_data_a_figure_says_what_to_type():
    nothing = snapshot(NOTHING, Memory(), T0, 900)
    for figure, says in (
        (plots.memory(nothing), "%llama start"),
        (plots.throughput(nothing), "%llama chat"),
        (plots.latency([]), "%llama chat"),
        (plots.waterfall([]), "%llama chat"),
        (plots.compare([run("a"), run("b")]), "no calls"),
    ):
        assert says in texts(figure)


@pytest.mark.parametrize("text", WORDS)
def test_other_peoples_text_has_no_markup(text):
    rows = [dataclasses.replace(row, name=f"chat {text}", model=text) for row in trace(1, 0)]
    for figure in (plots.latency(rows), plots.waterfall(rows), plots.compare([run(text, ttft_s=1.0)] * 2)):
        shown = texts(figure)
        assert not any(mark in shown for mark in ("<script", "<img", "$c$", "x" * 200))

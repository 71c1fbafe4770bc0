"""Tables and trees: aligned text for terminals, plain HTML for pages, harmless in both."""

import re
from dataclasses import replace
from html import unescape

import pytest
from hostile import WORDS
from viewworld import hostile, trace

from llamatelemetry_jupyter.telemetry.figures import figure
from llamatelemetry_jupyter.telemetry.semconv import ENERGY_PER_TOKEN, ENERGY_SOURCE, UTIL_MEAN
from llamatelemetry_jupyter.views import format as numbers
from llamatelemetry_jupyter.views.text import Table, spans_table, trace_tree

pytestmark = pytest.mark.floor


def test_a_table_is_aligned():
    shown = str(Table(("name", "bytes"), (("weights", "98"), ("kv", "1,024")), frozenset({"bytes"})))
    assert shown.splitlines() == ["name     bytes", "weights     98", "kv       1,024"]


def test_spans_table_has_figures_for_calls_only():
    lines = str(spans_table(trace(1, 0))).splitlines()
    assert len(lines) == 6
    assert re.search(r"chat smollm2-135m +2\.15 s +34 +12 +96 +47\.5 +0\.15 s +310 MiB +ok", lines[2])
    assert "n/a" not in "\n".join(lines)


def test_what_was_measured_is_shown_where_it_was_and_says_whose_it_is():
    cell, chat, *phases = trace(1, 0)
    assert "GPU" not in str(spans_table([cell, chat]))
    attributes = {ENERGY_PER_TOKEN: 0.4375, UTIL_MEAN: 0.914}
    chat = replace(chat, energy_j=42.0, attributes={**chat.attributes, **attributes, ENERGY_SOURCE: "counter"})
    head, *lines = str(spans_table([cell, chat])).splitlines()
    assert re.search("peak memory +GPU energy +J/token +GPU busy", head)
    assert re.search(r"310 MiB +42\.0 J +0\.438 +91 % +ok", lines[1])
    tree = str(trace_tree([cell, chat, *phases]))
    assert "peak 310 MiB, 42.0 J, 0.438 J/token (whole GPU), GPU busy 91 %" in tree
    guessed = replace(chat, attributes={**chat.attributes, ENERGY_SOURCE: "power"})
    assert "≈ 42.0 J, ≈ 0.438 J/token (whole GPU)" in str(trace_tree([guessed]))


def test_figures_say_on_a_page_what_they_are():
    html = spans_table(trace(1, 0))._repr_html_()
    heads = re.findall(r"<th([^>]*)>([^<]*)</th>", html)
    assert [name for attributes, name in heads if "title=" not in attributes] == ["time", "span", "status", "trace"]
    assert figure("ttft_s").title in unescape(html)
    shown = Table(("a",), (("b",), ("c",)), titles={"a": '"><script>', "b": "x"})._repr_html_()
    assert '<th title="&quot;&gt;&lt;script&gt;"' in shown
    assert shown.count("title=") == 2
    assert "title" not in str(Table(("a",), (("b",),), titles={"a": "title"}))


def test_an_error_is_named():
    assert "ServerError" in str(spans_table(trace(1, 0, status="error")))
    assert "error: ServerError" in str(trace_tree(trace(1, 0, status="error")))


def test_a_trace_as_a_tree_with_a_bar_for_every_span():
    lines = str(trace_tree(trace(1, 0, calls=2))).splitlines()
    assert [line[: re.search(r"  +[0-9]", line).start()] for line in lines[1:5]] == [
        "notebook cell",
        "├─ chat smollm2-135m",
        "│  ├─ queue",
        "│  ├─ prefill",
    ]
    bars = [re.search("[█·]{32}", line) for line in lines[1:]]
    assert all(bars)
    assert len({bar.start() for bar in bars}) == 1
    assert "34 → 96 tokens, 47.5 tokens/s, first token 0.15 s" in lines[2]


def test_a_trace_on_a_page_is_a_picture_and_a_table():
    html = trace_tree(trace(1, 0))._repr_html_()
    assert html.startswith("<img alt=")
    assert "└─ decode" in html
    assert "█" not in html


def test_the_repr_is_what_a_reader_wants_to_see():
    for shown in (spans_table(trace(1, 0)), trace_tree(trace(1, 0))):
        assert repr(shown) == str(shown)


def test_nothing_yet_says_what_to_type():
    for shown in (spans_table([]), trace_tree([])):
        assert "%llama chat" in str(shown)
        assert "%llama chat" in shown._repr_html_()


@pytest.mark.parametrize("word", WORDS)
def test_hostile_text(word):
    rows = hostile(trace(1, 0), word)
    for shown in (spans_table(rows), trace_tree(rows)):
        html = shown._repr_html_()
        assert not re.search(r"<(script|b\b|svg)|<img src=x", html)
        assert not re.search("[\x00-\x08\x1b\u202e\ud800]", str(shown) + html)
        assert max(map(len, str(shown).splitlines())) < 220
        html.encode()


@pytest.mark.parametrize(
    ("function", "value", "shown"),
    [
        (numbers.size, 98 * 2**20, "98.0 MiB"),
        (numbers.size, 310 * 2**20, "310 MiB"),
        (numbers.size, 1023.96 * 2**20, "1.0 GiB"),
        (numbers.size, 0, "0 B"),
        (numbers.size, None, "n/a"),
        (numbers.seconds, 0.002, "2.0 ms"),
        (numbers.seconds, 0.05, "50 ms"),
        (numbers.seconds, 2.154, "2.15 s"),
        (numbers.seconds, 185, "3 min 05 s"),
        (numbers.seconds, 7260, "2 h 01 min"),
        (numbers.seconds, float("nan"), "n/a"),
        (numbers.rate, 31.66, "31.7"),
        (numbers.rate, 12345, "12,345"),
        (numbers.count, 1234567, "1,234,567"),
    ],
)
def test_numbers_as_people_read_them(function, value, shown):
    assert function(value) == shown

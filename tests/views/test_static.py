"""The picture that survives a save: small, without script, the same numbers in picture, table and text."""

import re
from dataclasses import replace
from html import unescape

import pytest
from hostile import WORDS
from viewworld import T0, Memory, Spans, drawn, handle, host, hostile, server, session, trace, words

from llamatelemetry_jupyter.graphistry import summary
from llamatelemetry_jupyter.values import ServerStatus
from llamatelemetry_jupyter.views.format import clock
from llamatelemetry_jupyter.views.model import snapshot
from llamatelemetry_jupyter.views.picture import WIDTH, picture
from llamatelemetry_jupyter.views.static import static_html, static_text, status_table

pytestmark = pytest.mark.floor


def check(html: str) -> None:
    """No script, style sheet or handler; nothing outside of the card; small."""
    assert len(html.encode()) < 150_000
    outside = html[: html.index("src=")] + html[html.index('">', html.index("base64,")) :]
    assert not re.search(r"<(script|style|svg|iframe|object|b\b)|<img [^>]*onerror", outside, re.I)
    assert html.count("<img") <= 2
    root = drawn(html)
    assert {e.tag.partition("}")[2] for e in root.iter()} <= {"svg", "defs", "pattern", "rect", "path", "text"}
    height = float(root.get("height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(element.get("x")) < WIDTH
        assert 0 < float(element.get("y")) < height


def test_picture_and_table_hold_the_numbers():
    made = snapshot(**session())
    html = static_html(made)
    check(html)
    assert "smollm2-135m" in words(html)
    for said in ("384", "31.7", "0.15 s", "59.0 of 90.0 MiB", "decode", "3.15 s"):
        assert said in words(html)
    for said in ("4 (136 → 384 tokens)", "19 in 3 traces", "98.0 MiB", "llama.cpp b6900 (xllamacpp)"):
        assert said in html
        assert said in static_text(made)


def test_one_time_axis_in_local_time(monkeypatch):
    labels = re.findall(r"^\d\d:\d\d:\d\d$", words(static_html(snapshot(**session()))), re.M)
    assert len(labels) >= 3
    assert labels == sorted(labels)


def test_text_stays_within_100_columns():
    made = snapshot(**session() | {"handle": handle("m" * 500)})
    assert max(map(len, static_text(made).splitlines())) <= 100


def test_no_calls_no_samples_no_server():
    html = static_html(snapshot(Spans([]), Memory(), T0, 900))
    check(html)
    assert "no calls yet" in words(html)
    assert "%llama start" in words(html)
    check(static_html(snapshot(Spans(trace(1, 0)[:1]), Memory(), T0 + 10**10, 900)))
    check(static_html(snapshot(Spans([]), Memory(host(1)), T0 + 10**9, 900)))
    one = snapshot(Spans([]), Memory(host(0.5), server(0.5)), T0 + 10**9, 900, handle=handle())
    check(static_html(one))


def test_past_readings_are_na_since_when_in_table_and_picture():
    seen = snapshot(**{**session(), "now_ns": T0 + 40 * 10**9})
    at = clock(T0 / 1e6 + 29_500)
    text = static_text(seen)
    assert f"n/a since {at}: the sampler is silent" in text
    assert next(line for line in text.splitlines() if "host memory" in line).endswith(f"n/a since {at}")
    assert next(line for line in text.splitlines() if line.startswith("slots")).endswith(f"n/a since {at}")
    assert "KV cache n/a since" in text
    drawn = picture(seen)
    assert f"host memory, n/a since {at}" in drawn
    assert f"since {at}" in drawn


def test_calls_before_the_window_are_named_not_drawn_over_it():
    samples = Memory([s for s in host(400) if s.t_ns > T0 + 300 * 10**9])
    html = static_html(snapshot(Spans(trace(1, 0)), samples, T0 + 400 * 10**9, 900))
    check(html)
    assert "before this window" in words(html)


def test_an_error_is_said_not_only_coloured():
    html = static_html(snapshot(Spans(trace(1, 0, status="error")), Memory(), T0 + 10**10, 900))
    assert "✕ notebook cell" in words(html)
    assert "ServerError" in html


def test_sixteen_gpus_and_a_full_store_stay_small():
    rows = [row for n in range(1, 200) for row in trace(n, n * 0.5, calls=3, decode_s=0.1)]
    devices = [s for g in range(16) for s in host(120, hz=4, device=f"GPU-{g}")]
    html = static_html(snapshot(Spans(rows), Memory(devices, server(120)), T0 + 120 * 10**9, 2400, handle=handle()))
    check(html)
    assert "16 GPUs together" in words(html)


def test_the_sessions_graph_is_drawn_below_and_stays_small():
    made = snapshot(**session())
    rows = [row for n in range(1, 200) for row in trace(n, n * 0.5, calls=3, decode_s=0.1)]
    html = static_html(made, summary.session(rows, 8))
    check(html)
    assert html.count("<img") == 2
    graph = html[html.rindex("<img") :]
    assert "191 earlier traces" in words(graph)
    assert "chat smollm2-135m" in words(graph)
    assert static_html(made, summary.session([])) == static_html(made)
    many = [replace(row, name=f"{'W' * 80}{n}") for n, row in enumerate(rows)]
    html = static_html(made, summary.session(many))
    check(html)
    assert html.count("<img") == 1 or "rarer names" in words(html[html.rindex("<img") :])


def test_a_trace_larger_than_the_picture_is_cut_and_says_so():
    html = static_html(snapshot(Spans(trace(1, 0, calls=60, decode_s=0.2)), Memory(), T0 + 10**11, 900))
    check(html)
    assert "more not drawn" in words(html)


@pytest.mark.parametrize("word", WORDS)
def test_hostile_text_is_shown_as_text(word):
    rows = hostile([row for n in range(1, 30) for row in trace(n, n)], word)
    status = ServerStatus("default", "crashed", word, word, 0.5, word, word)
    made = snapshot(Spans(rows), Memory(host(30), server(30)), T0 + 30 * 10**9, 900, handle=handle(word), status=status)
    html = static_html(made)
    check(html)
    assert "\x1b" not in html + static_text(made)
    assert "\u202e" not in html + static_text(made)


def test_figures_of_the_servers_table_say_what_they_are():
    table = status_table(snapshot(**session()))
    said = {row[0] for row in table.rows if row[0] in table.titles}
    assert {
        "slots",
        "context",
        "last call",
        "calls",
        "spans",
        "  weights",
        "  KV cache",
        "  this kernel: python",
    } <= said
    assert f'<tr title="{unescape(table.titles["calls"])}">' in unescape(table._repr_html_())

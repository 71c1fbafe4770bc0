"""%llama report and lt.figures in a real IPython, typed rightly and wrongly."""

from __future__ import annotations

import json
import re

import pytest

LOAD = "%load_ext llamatelemetry"
SPANS = """
import llamatelemetry as lt, os
with lt.span("outer </script>", file=os.path.join(os.getcwd(), "data.csv"), **{"input.value": "a secret prompt"}):
    with lt.span("inner"):
        pass
"""


def recorded(page: str) -> dict:
    return json.loads(re.search(r'<script id="recorded" type="application/json">(.*?)</script>', page, re.S)[1])


def attributes(told: dict) -> dict:
    (spans,) = [one["spans"] for key, one in told["answers"].items() if key.startswith("trace ")]
    return next(one["attributes"] for one in spans if one["name"].startswith("outer"))


@pytest.mark.floor
def test_a_report_holds_the_session_and_nothing_private(ipython, tmp_path):
    printed = ipython(
        LOAD, "%llama config capture on", SPANS, "%llama report run.html", "%llama report whole.html --full"
    )
    assert re.search(r"written: run.html · \d+ [KM]iB · without prompts, answers, paths and host names", printed)
    page = (tmp_path / "run.html").read_text()
    told = recorded(page)
    assert [one["name"] for one in told["snapshot"]["spans"]] == ["notebook cell", "outer </script>", "inner"]
    assert attributes(told) == {"file": "…/data.csv"}
    assert "a secret prompt" not in page and str(tmp_path) not in page
    whole = recorded((tmp_path / "whole.html").read_text())
    assert attributes(whole) == {"file": f"{tmp_path}/data.csv", "input.value": "a secret prompt"}


@pytest.mark.floor
def test_a_page_asks_no_network_and_is_small(ipython, tmp_path):
    ipython(LOAD, SPANS, "%llama report")
    page = (tmp_path / "report.html").read_text()
    assert len(page.encode()) < 250_000
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=.https?:", page)
    assert page.count("</script>") == 2  # no text of a span has ended one
    assert "<noscript><img" in page


@pytest.mark.floor
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama report run.pdf", ["ends in .html, not 'run.pdf'", 'lt.report("run.html")']),
        ("%llama report nowhere/run.html", ["nowhere/run.html cannot be written: No such file", "OTHER.html"]),
        ("%llama report --window -5", ["a day and positive, not -5.0", "window_s=3600"]),
        ("%llama report --window soon", ["invalid float value"]),
        ("%llama dashboard --window 0", ["in seconds, up to a day, not 0", "--window 600"]),
        ("%llama dashboard --window nan", ["in seconds, up to a day, not nan"]),
        ("import llamatelemetry as lt; lt.figures.compare('this')", ["two or more sessions", 'compare("this", "ID")']),
        ("import llamatelemetry as lt; lt.figures.latency('12')", ["there is no session '12'", "%llama sessions"]),
        ("import llamatelemetry as lt; lt.figures.waterfall('12')", ["there is no trace '12'", "%llama spans"]),
        ("import llamatelemetry as lt; lt.figures.memory(0)", ["window_s must be positive", "window_s=600"]),
    ],
)
def test_what_is_typed_wrongly_is_two_lines(refused, cell, says):
    refused(cell, says)


@pytest.mark.floor
def test_without_anything_figures_say_what_to_type(ipython):
    names = ("memory", "throughput", "latency", "waterfall")
    show = "import llamatelemetry as lt\nfor name in {}: print(name, getattr(lt.figures, name)().layout.annotations[0].text)"
    printed = ipython(LOAD, show.format(names))
    for name in names:
        assert re.search(rf"{name} no .* yet; try: %llama (start|chat Hello)", printed)


@pytest.mark.engine
def test_figures_and_report_of_a_real_session(ipython, tmp_path):
    show = """
import llamatelemetry as lt
rows = lt.current_session().spans.rows()
calls = [r for r in rows if r.name.startswith("chat")]
print("LATENCY", list(lt.figures.latency().data[1].y) == [r.duration_s for r in calls])
print("BARS", sum(len(one.y) for one in lt.figures.waterfall().data))
print("OWNERS", [one.name for one in lt.figures.memory().data][:3])
print("RATES", [one.name for one in lt.figures.throughput().data][-1])
print("RUNS", len(lt.figures.compare("this", "this").data))
"""
    printed = ipython(
        LOAD, "%llama start --ctx 512", "%llama chat --max-tokens 8 Hello", show, "%llama report", "%llama stop"
    )
    assert "LATENCY True" in printed
    assert re.search(r"BARS [5-9]", printed)
    assert "OWNERS ['weights', 'KV cache', 'compute buffers']" in printed
    assert "RATES decode rate of a call" in printed
    assert "RUNS 8" in printed
    told = recorded((tmp_path / "report.html").read_text())
    assert told["snapshot"]["server"]["model"] == "smollm2-135m"
    assert sum(key.startswith("trace ") for key in told["answers"]) == 2  # the start, the call

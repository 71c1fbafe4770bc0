"""Metrics as a table: units as people read them, attributes without what is always the same, harmless on a page."""

from __future__ import annotations

import pytest
from hostile import WORDS

from llamatelemetry_jupyter.telemetry.metrics import Point
from llamatelemetry_jupyter.views.metrics import metrics_frame, metrics_table

pytestmark = pytest.mark.floor
CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.response.model": "m", "server.port": 8080}


def cells(point):
    return [cell for cell in metrics_table([point]).rows[0][1:] if cell]


@pytest.mark.parametrize(
    ("point", "shown"),
    [
        (Point("d", "s", "histogram", CALL, 3.0, 2, 1.0, 2.0), ["chat, m", "2", "1.50 s", "1.00 s", "2.00 s"]),
        (
            Point("d", "s", "histogram", {"error.type": "503", "z": 1}, 3.0, 1, 3.0, 3.0),
            ["1, error 503", "1", "3.00 s", "3.00 s", "3.00 s"],
        ),
        (Point("d", "s", "histogram", {}, 0, 0, None, None), ["0", "n/a", "n/a", "n/a"]),
        (Point("t", "{token}", "histogram", {}, 57, 2, 27, 30), ["2", "28.5", "27", "30"]),
        (Point("u", "By", "level", {"hw.id": "GPU-1", "hw.type": "gpu"}, 3 << 30), ["GPU-1", "3.0 GiB"]),
        (Point("u", "1", "gauge", {}, 0.256), ["26%"]),
        (Point("p", "W", "gauge", {}, 70.25), ["70.2 W"]),
        (Point("e", "J", "counter", {}, 1234567.0), ["1,234,567 J"]),
        (Point("t", "Cel", "gauge", {}, 61.0), ["61 °C"]),
        (Point("c", "{token}", "counter", {"llama_cpp.server.name": "default"}, 12345), ["default", "12,345"]),
        (Point("theirs", "", "counter", {"a": True}, float("nan")), ["True", "nan"]),
    ],
)
def test_a_metric_reads_as_people_read_numbers(point, shown):
    assert cells(point) == shown


@pytest.mark.parametrize("text", WORDS)
def test_names_and_attributes_of_others_are_harmless(text):
    table = metrics_table([Point(text, text, "gauge", {text: text}, 1.0)])
    html = table._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "\x1b" not in str(table)
    assert max(len(line) for line in str(table).splitlines()) < 300


def test_a_frame_has_every_attribute_and_nothing_is_rounded():
    frame = metrics_frame([Point("d", "s", "histogram", CALL, 3.25, 2, 1.25, 2.0)])
    assert frame.to_dict("records") == [
        {
            "name": "d",
            "unit": "s",
            "kind": "histogram",
            "attributes": CALL,
            "value": 3.25,
            "count": 2,
            "low": 1.25,
            "high": 2.0,
        }
    ]
    assert metrics_frame([]).empty

"""The widget's Python half, and the tables that it shares with its JavaScript half."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import viewworld as world

from llamatelemetry_jupyter.views import theme
from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.floor

SOURCE = Path(__file__).resolve().parents[2] / "js" / "src"


def js_table(name):
    """``export const NAME = { key: { field: "text", … } | "text", … };`` of theme.js."""
    text = (SOURCE / "theme.js").read_text()
    body = re.search(rf"export const {name} = \{{\n(.*?)\n\}};", text, re.DOTALL)[1]
    table = {}
    for key, value in re.findall(r"^  (\w+): (.+),$", body, re.MULTILINE):
        fields = dict(re.findall(r'(\w+): "([^"]*)"', value))
        table[key] = fields or value.strip('"').encode().decode("unicode_escape")
    return table


def test_both_halves_draw_with_the_same_colours_patterns_and_words():
    assert js_table("OWNERS") == theme.OWNERS
    assert list(js_table("OWNERS")) == list(theme.OWNERS)  # the stacking order
    assert js_table("SPANS") == theme.SPANS
    assert js_table("NODES") == theme.NODES
    assert js_table("SHAPES") == theme.SHAPES
    assert js_table("PATTERNS") == theme.PATTERNS
    assert js_table("STATES") == theme.STATES


def test_the_widget_carries_its_bundle_and_its_state():
    from llamatelemetry_jupyter.widgets.dashboard import Dashboard

    made = snapshot(**world.session())
    widget = Dashboard(snapshot=made, seq=3, static_id="0123456789abcdef")
    state = widget.get_state()
    assert "export{" in state["_esm"].replace(" ", "")
    assert ".ll-ui" in state["_css"]
    assert state["snapshot"] == made
    assert (state["seq"], state["static_id"]) == (3, "0123456789abcdef")
    widget.close()


def test_without_widgets_a_line_of_text_is_left():
    from llamatelemetry_jupyter.widgets.dashboard import Dashboard

    widget = Dashboard()
    assert repr(widget) == "llamatelemetry dashboard (live; a page without widgets shows the picture beside it)"
    widget.close()


def test_a_feed_refreshes_both_traits_in_one_message():
    import comm

    from llamatelemetry_jupyter.feed import Feed
    from llamatelemetry_jupyter.widgets.dashboard import Dashboard

    class Sources(world.Memory):
        def since(self, seq):
            return 0, self.window(0, 0), 0

    class Spans(world.Spans):
        def subscribe(self, fn):
            return lambda: None

    widget = Dashboard()
    widget.comm = comm.DummyComm()  # old ipykernel's own sends nothing outside of a kernel
    told = []
    widget.send_state = lambda key=None: told.append(set(key or ()))
    feed = Feed(dict, lambda _: {}, Sources(), Spans([]), widget.send)
    made = snapshot(**world.session())
    feed.refresh(widget, made)
    assert widget.snapshot == made
    assert widget.seq == 1
    assert told == [{"snapshot", "seq"}]
    widget.close()

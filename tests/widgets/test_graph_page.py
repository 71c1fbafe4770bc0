"""The dashboard's graph in Chromium, answered by the real operations: what a reader sees, presses and sends."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import viewworld as world
from dashboardpage import settle, shoot
from graphistryhub import hub
from hostile import WORDS

from llamatelemetry_jupyter.graphs import Graphs
from llamatelemetry_jupyter.replies import Replies
from llamatelemetry_jupyter.views import model

pytestmark = pytest.mark.browser
__all__ = ["hub"]

#: Boxes that lie over one another.
COVERED = """() => { const boxes = [...document.querySelectorAll('.ll-node')].map(e => e.getBoundingClientRect()), out = [];
    boxes.forEach((p, i) => boxes.slice(i + 1).forEach(q => { if (p.left < q.right - 1 && q.left < p.right - 1
        && p.top < q.bottom - 1 && q.top < p.bottom - 1) out.push([p.x, p.y, q.x, q.y]); }));
    return out; }"""
#: What is wider than the dashboard, the graph's own plane excepted.
OUTSIDE = """() => { const root = document.querySelector('.llamatelemetry'), frame = root.getBoundingClientRect();
    return [...root.querySelectorAll('*')].filter(e => !e.closest('.ll-plane, .ll-table, .ll-plot, .ll-track, .ll-lines'))
        .filter(e => { const r = e.getBoundingClientRect(); return r.width && (r.right > frame.right + 1 || r.left < frame.left - 1); })
        .map(e => [e.className, e.textContent.slice(0, 40)]); }"""


def session_of(rows):
    """Enough of a session for the operations: its spans."""
    spans = world.Spans(rows)
    spans.totals = lambda: model.totals(world.Spans(spans.all))
    return SimpleNamespace(spans=spans)


@pytest.fixture
def graph(dashboard):
    """``graph(rows, dark=False, width=900)``: the page with its Graph tab open; requests go to the real operations."""

    def show(rows, *, tab=True, **options):
        page = dashboard(model.snapshot(**world.session() | {"spans": world.Spans(rows)}), **options)
        page.asked, page.busy = [], False
        session = session_of(rows)
        page.spans, operations = session.spans, Graphs(session).operations()

        def answer(content):
            page.asked.append(content)
            sent = []
            Replies(sent.append, operations, threads=False).on_message(None, content)
            return json.loads(json.dumps(sent).replace("\\ud800", "\\ufffd"))

        page.expose_function("answer", answer)
        page.evaluate("""() => { window.held = []; window.busy = false;
            const go = async m => { for (const one of await window.answer(m)) harness.message(one); };
            harness.sent.push = m => { window.busy ? held.push(() => go(m)) : go(m); };
            window.free = () => { window.busy = false; held.splice(0).forEach(f => f()); }; }""")
        if tab:
            page.locator('[data-tab="graph"]').click()
            page.wait_for_selector(".ll-node, .ll-graph .ll-empty:not([hidden])")
            settle(page)
        return page

    return show


def rows_of(cells=3, **options):
    return [row for n in range(1, cells + 1) for row in world.trace(n, n * 4.0, calls=1 + n % 2, **options)]


def node(page, label):
    return page.locator(f'.ll-node[aria-label*="{label}"]').first


def test_the_session_is_drawn_with_shapes_and_words(graph):
    page = graph(rows_of())
    said = [e.get_attribute("aria-label") for e in page.locator(".ll-node").all()]
    assert said[0].startswith("notebook notebook")
    assert any(one.startswith("request chat smollm2-135m, 5 times, p50") for one in said), said
    assert any(one.startswith("model smollm2-135m") for one in said)
    assert "15" not in page.locator('[data-field="graph"]').inner_text()
    assert page.locator('[data-field="graph"]').inner_text().startswith("23 spans as ")
    shapes = page.evaluate(
        "() => new Set([...document.querySelectorAll('.ll-node path')].map(e => e.getAttribute('d'))).size"
    )
    assert shapes >= 7
    shoot(page, "graph-session")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 700, 320])
def test_nothing_is_covered_or_cut_off(graph, width, dark):
    page = graph([*rows_of(8), *world.trace(20, 50, status="error")], dark=dark, width=width)
    assert page.evaluate(COVERED) == []
    assert page.evaluate(OUTSIDE) == []
    shoot(page, f"graph-{width}-{'dark' if dark else 'light'}")
    page.locator('[data-action="export"]').click()
    page.wait_for_selector(".ll-graph .ll-strip:not([hidden])")
    assert "no Graphistry credentials" in page.locator(".ll-graph .ll-strip").inner_text()
    assert page.evaluate(OUTSIDE) == []
    page.locator('[data-action="table"]').click()
    settle(page)
    assert page.evaluate(OUTSIDE) == []
    assert page.locator(".ll-table tbody tr").count() == page.locator(".ll-node").count()
    shoot(page, f"graph-table-{width}-{'dark' if dark else 'light'}")


def test_colours_follow_the_theme(graph):
    page = graph(rows_of())
    mark = "() => document.querySelector('.ll-node[data-kind=chat] path').getAttribute('fill')"
    assert page.evaluate(mark) == "#0072b2"
    page.evaluate("() => document.documentElement.setAttribute('theme', 'dark')")
    page.wait_for_function("() => document.querySelector('.llamatelemetry').dataset.drawn === 'dark'")
    assert page.evaluate(mark) == "#56b4e9"
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    settle(page)
    assert node(page, "chat smollm2").is_visible()


def place(page):
    return page.evaluate(
        "() => { const m = new DOMMatrix(document.querySelector('.ll-plane').style.transform); return [m.e, m.f, m.a]; }"
    )


def test_it_is_moved_and_zoomed_by_pointer_wheel_buttons_and_keys(graph):
    page = graph(rows_of())
    x, y, scale = place(page)
    box = page.locator(".ll-diagram").bounding_box()
    over = node(page, "notebook").bounding_box()
    page.mouse.move(over["x"] + 20, over["y"] + 10)
    page.mouse.down()
    page.mouse.move(over["x"] + 100, over["y"] + 60, steps=4)
    page.mouse.up()
    assert place(page) == [x + 80, y + 50, scale]
    assert page.locator('[data-tab="graph"]').get_attribute("aria-selected") == "true"  # a drag opens nothing
    page.locator(".ll-diagram").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert place(page) == [x + 20, y + 110, scale]
    page.keyboard.press("+")
    assert place(page)[2] == pytest.approx(scale * 1.25, rel=1e-4)
    page.locator('[data-action="smaller"]').click()
    assert place(page)[2] == pytest.approx(scale, rel=1e-4)
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.wheel(0, 40)
    assert place(page)[2] == pytest.approx(scale, rel=1e-4)  # the page scrolls
    page.keyboard.down("Control")
    page.mouse.wheel(0, -60)
    page.wait_for_function(
        "s => new DOMMatrix(document.querySelector('.ll-plane').style.transform).a > s * 1.2", arg=scale
    )
    page.keyboard.up("Control")
    for _ in range(40):
        page.keyboard.press("Shift+ArrowLeft")
    assert page.evaluate("""() => { const v = document.querySelector('.ll-diagram').getBoundingClientRect();
        return [...document.querySelectorAll('.ll-node')].some(e => e.getBoundingClientRect().right > v.left); }""")
    page.locator('[data-action="fit"]').click()
    inside = page.evaluate("""() => { const v = document.querySelector('.ll-diagram').getBoundingClientRect();
        return [...document.querySelectorAll('.ll-node')].every(e => { const r = e.getBoundingClientRect();
            return r.left >= v.left && r.right <= v.right && r.top >= v.top && r.bottom <= v.bottom; }); }""")
    assert inside


def test_keys_alone_reach_a_node_and_open_its_trace(graph):
    page = graph(rows_of())
    page.evaluate("() => { window.leaked = []; document.addEventListener('keydown', e => leaked.push(e.key)); }")
    page.locator(".ll-diagram").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.ariaLabel").startswith("notebook")
    for key, label in (
        ("ArrowRight", "cell"),
        ("ArrowDown", "cell"),
        ("ArrowRight", "trace"),
        ("ArrowRight", "request"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("() => document.activeElement.ariaLabel").startswith(label)
    assert "→ decode 5 times, p95" in page.locator('[data-field="node"]').inner_text()
    page.keyboard.press("Enter")
    settle(page)
    assert page.locator('[data-tab="traces"]').get_attribute("aria-selected") == "true"
    page.locator('[data-tab="now"]').click()
    settle(page)
    assert (
        page.locator('.ll-traces .ll-span[aria-selected="true"]')
        .inner_text()
        .removeprefix("\u2501 ")
        .startswith("chat")
    )
    assert "Arrow" not in "".join(page.evaluate("() => leaked"))


def test_a_click_opens_the_trace_and_that_trace_can_be_drawn(graph):
    page = graph(rows_of())
    page.locator(".ll-node[data-kind='trace']").nth(1).click()
    settle(page)
    assert page.locator('[data-tab="traces"]').get_attribute("aria-selected") == "true"
    page.locator('[data-tab="graph"]').click()
    page.locator('[data-action="trace"]').click()
    page.wait_for_function("() => document.querySelectorAll('.ll-node').length === 5")
    assert page.asked[-1]["args"] == {"kind": "trace", "trace_id": f"{2:032x}"}
    assert page.locator('.ll-node[aria-current="true"]').get_attribute("data-kind") == "cell"
    assert page.evaluate(COVERED) == []
    shoot(page, "graph-trace")
    page.locator('[data-action="table"]').click()
    page.locator(".ll-table button", has_text="decode").click()
    settle(page)
    page.locator('[data-tab="now"]').click()
    settle(page)
    assert (
        page.locator('.ll-traces .ll-span[aria-selected="true"]')
        .inner_text()
        .removeprefix("\u2501 ")
        .startswith("decode")
    )


def more(page, seq, spans):
    """News of spans as the feed sends them."""
    totals = {"spans": spans, "traces": 3, "calls": 5, "errors": 0, "input_tokens": 1, "output_tokens": 1}
    page.evaluate("m => harness.message(m)", {"type": "spans", "seq": seq, "spans": [], "totals": totals})
    settle(page)


def boxes(page):
    """By kind and name where each box is."""
    found = page.locator(".ll-node").all()
    places = [{side: round(px) for side, px in one.bounding_box().items()} for one in found]
    return {
        (e.get_attribute("data-kind"), e.inner_text().split("\n")[0]): at for e, at in zip(found, places, strict=True)
    }


def told_apart(number, rows):
    """``rows`` with a trace id and a cell's number that show in labels."""
    counted = {"jupyter.execution_count": number}
    return [replace(r, trace_id=f"{number}" * 32, attributes={} if r.parent_id else counted) for r in rows]


def test_it_follows_new_spans_seldom_and_what_stays_keeps_its_place(graph):
    rows = [row for n in range(1, 4) for row in told_apart(n, world.trace(n, n * 4.0))]
    page = graph(rows)
    begun, before = time.monotonic(), boxes(page)
    page.locator(".ll-node").first.focus()
    page.spans.all += told_apart(9, world.trace(9, 26))
    for seq in range(2, 8):
        more(page, seq, 15 + seq)
    assert len(page.asked) == 1
    page.locator(".ll-node", has_text="cell [9]").wait_for()
    assert len(page.asked) == 2
    assert 1.5 < time.monotonic() - begun < 8
    assert page.evaluate("() => document.activeElement.ariaLabel").startswith("notebook")
    after = boxes(page)
    assert len(after) > len(before)
    assert {name: after[name] for name in before} == before


def test_a_busy_kernel_leaves_the_picture_and_says_so(graph):
    page = graph(rows_of())
    nodes = page.locator(".ll-node").count()
    page.evaluate("() => { window.busy = true; }")
    page.locator('[data-action="trace"]').click()
    page.wait_for_function(
        "() => document.querySelector('[data-field=graph]').textContent.includes('the kernel is busy')"
    )
    assert page.locator(".ll-node").count() == nodes
    page.locator('[data-action="export"]').click()
    page.wait_for_function(
        "() => document.querySelector('[data-field=export]').textContent.includes('the kernel is busy')"
    )
    page.keyboard.press("Escape")
    assert not page.locator(".ll-export").is_visible()
    page.evaluate("() => window.free()")
    page.wait_for_function("() => document.querySelectorAll('.ll-node').length === 9")
    settle(page)
    assert not page.locator(".ll-export").is_visible()  # the answer came to somebody who had gone
    assert "busy" not in page.locator('[data-field="graph"]').inner_text()


def test_nothing_is_asked_while_paused_or_on_another_tab(graph):
    page = graph(rows_of(), tab=False)
    assert page.asked == []
    page.locator('[data-tab="graph"]').click()
    page.wait_for_selector(".ll-node")
    page.locator('[data-action="pause"]').click()
    more(page, 2, 99)
    page.wait_for_timeout(2500)
    assert len(page.asked) == 1


@pytest.mark.parametrize("word", WORDS)
def test_no_word_breaks_it(graph, word):
    page = graph(world.hostile(rows_of(), word), width=700)
    assert page.evaluate(COVERED) == []
    assert page.evaluate(OUTSIDE) == []


def test_nothing_yet_says_what_to_type(graph):
    page = graph([])
    assert "%%llama" in page.locator(".ll-graph .ll-empty").inner_text()
    assert page.locator('[data-action="export"]').is_disabled()


def test_a_graph_is_sent_only_after_a_yes_and_its_link_is_shown(graph, hub):
    page = graph(rows_of())
    page.locator('[data-action="export"]').click()
    page.wait_for_selector('[data-action="confirm"]:visible')
    said = page.locator(".ll-export").inner_text()
    assert f"To 127.0.0.1:{hub.port}, as a private graph" in said
    assert "12 nodes: id, kind, label" in said
    assert "left out: prompts and answers" in said
    assert hub.requests == []
    shoot(page, "graph-export")
    page.keyboard.press("Escape")
    page.locator('[data-action="export"]').click()
    page.wait_for_selector('[data-action="confirm"]:visible')
    assert page.evaluate("() => document.activeElement.dataset.action") == "confirm"
    page.keyboard.press("Enter")
    link = page.locator(".ll-export a")
    link.wait_for()
    assert link.get_attribute("href").startswith(f"http://127.0.0.1:{hub.port}/graph/graph.html?dataset=d41d8")
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert [p for p in hub.paths if p.endswith("/arrow")]
    page.locator('[data-action="cancel"]').click()
    assert not page.locator(".ll-export").is_visible()


def test_what_the_hub_refuses_is_told_with_what_to_do(graph, hub):
    hub.refuse["/api-token-auth/"] = (400, '{"non_field_errors": ["<img src=x onerror=alert(1)>"]}')
    page = graph(rows_of())
    page.locator('[data-action="export"]').click()
    page.locator('[data-action="confirm"]').click()
    page.wait_for_selector(".ll-graph .ll-strip:not([hidden])")
    assert "refused the credentials" in page.locator(".ll-graph .ll-strip").inner_text()
    assert "check GRAPHISTRY_USERNAME" in page.locator(".ll-graph .ll-strip code").inner_text()
    assert page.locator(".llamatelemetry img").count() == 0

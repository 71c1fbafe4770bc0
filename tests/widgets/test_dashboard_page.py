"""The built dashboard in Chromium, on a model of its own: what a reader sees, presses and must never be able to run."""

from __future__ import annotations

import json
from typing import Any

import pytest
import viewworld as world
from dashboardpage import MISPLACED, REPO, settle, shoot, text
from hostile import WORDS

from llamatelemetry_jupyter.values import OWNERS
from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.browser

PAINTED = """selector => [...document.querySelectorAll(selector)].every(canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); const seen = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
    return seen.size > 4; })"""


def snap(**change: Any) -> dict[str, Any]:
    given = world.session() | change
    return snapshot(**given)


def gpus() -> dict[str, Any]:
    devices = [*world.host(30, device="GPU-aaaa"), *world.host(30, device="GPU-bbbb"), *world.host(30)]
    return snap(samples=world.Memory(devices, world.server(30, busy=[(8, 10), (14, 16), (22, 25)])))


def test_figures_are_those_of_the_snapshot(dashboard):
    made = snap()
    page = dashboard(made)
    assert text(page, "state") == "ready"
    assert text(page, "model") == "smollm2-135m"
    for name in ("calls", "input_tokens", "output_tokens", "spans"):
        assert int(text(page, name).replace(",", "")) == made["totals"][name]
    assert text(page, "tokens_per_s") == "31.7"
    assert text(page, "ttft") == "0.15 s"
    assert text(page, "slots") == "0 / 4"
    shown = {e.get_attribute("data-owner"): e.inner_text() for e in page.locator("[data-owner]").all()}
    assert shown["weights"] == "98.0 MiB"
    assert set(shown) == {one["owner"] for one in made["devices"][0]["owners"]} <= set(OWNERS)
    assert page.locator(".ll-span").count() == len(made["spans"])
    assert page.evaluate(PAINTED, ".ll-plot canvas")


@pytest.mark.parametrize(("dark", "grid"), [(False, 0xE3E6EA), (True, 0x2D3237)])
def test_charts_have_the_pages_colours_from_the_first(dashboard, dark, grid):
    page = dashboard(snap(), dark=dark)
    counted = page.evaluate(
        """wanted => { const canvas = document.querySelector('.ll-tokens canvas'); let found = 0;
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) found += (data[i] << 16 | data[i + 1] << 8 | data[i + 2]) === wanted;
        return found; }""",
        grid,
    )
    assert counted > 400


def test_a_frame_moves_figures_and_charts(dashboard):
    made = snap()
    page = dashboard(made)
    last, names = made["points"]["t_ms"][-1], [one["id"] for one in made["series"]]
    before = int(page.locator(".llamatelemetry").get_attribute("data-rows"))
    for n in range(10):
        values = {"mem/host/weights": (200 + n) * world.MIB, "tok/default/decode": 50 + n, "slots/default/busy": 2}
        page.evaluate(
            "([seq, rows]) => harness.frame(seq, rows)",
            [n + 2, [[last + 500 * (n + 1), *(values.get(i) for i in names)]]],
        )
    page.evaluate("rows => harness.frame(3, rows)", [[last + 9000, *(1 for _ in names)]])  # old: its number was used
    page.evaluate(
        "() => harness.message({type: 'frame', seq: 99, rows: 2}, [new DataView(new ArrayBuffer(8))])"
    )  # torn
    settle(page)
    root = page.locator(".llamatelemetry")
    assert root.get_attribute("data-rows") == str(before + 10)
    assert root.get_attribute("data-seq") == "11"
    assert page.locator('[data-owner="weights"]').inner_text() == "209 MiB"
    assert text(page, "tokens_per_s") == "59.0"
    assert text(page, "state") == "generating"
    assert text(page, "slots") == "2 / 4"


def test_new_spans_and_totals_come_live(dashboard):
    made = snap()
    page = dashboard(made)
    more = snap(spans=world.Spans([*world.session()["spans"].all, *world.trace(9, 26, decode_s=3)]))
    new = [one for one in more["spans"] if one not in made["spans"]]
    page.evaluate("m => harness.message(m)", {"type": "spans", "seq": 2, "spans": new, "totals": more["totals"]})
    settle(page)
    assert text(page, "spans") == str(more["totals"]["spans"])
    assert page.locator(".ll-span").first.inner_text().startswith("notebook cell")
    assert page.locator(".ll-span").count() == len(more["spans"])


@pytest.mark.parametrize("word", WORDS)
def test_no_word_breaks_the_picture(dashboard, word):
    rows = world.hostile([*world.trace(1, 8), *world.trace(2, 14)], word)
    made = json.loads(
        json.dumps(snap(spans=world.Spans(rows), handle=world.handle(word))).replace("\\ud800", "\\ufffd")
    )
    page = dashboard(made, width=700)
    assert page.evaluate(MISPLACED) == []


def test_selection_is_one_for_all_panels_and_keys_move_it(dashboard):
    page = dashboard(snap())
    spans = page.locator(".ll-spans")
    spans.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    settle(page)
    assert page.locator('.ll-span[aria-selected="true"]').inner_text().startswith("chat")
    assert "34 (12 cached) → 96 tokens · 31.7 tokens/s · first token 0.15 s" in text(page, "selected")
    assert (
        page.evaluate(
            "() => document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).ariaSelected"
        )
        == "true"
    )
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert page.locator('.ll-span[aria-selected="true"]').inner_text().startswith("notebook cell")
    page.keyboard.press("End")
    settle(page)
    assert page.locator('.ll-span[aria-selected="true"]').is_visible()
    shoot(page, "selected")
    page.keyboard.press("Escape")
    settle(page)
    assert page.locator('.ll-span[aria-selected="true"]').count() == 0
    # A click in a chart selects the request that ran then.
    page.locator(".ll-tokens .ll-over").click(
        position={"x": round(0.78 * page.locator(".ll-tokens .ll-over").bounding_box()["width"]), "y": 40}
    )
    settle(page)
    assert text(page, "selected").startswith("chat")


def test_keys_that_are_used_stay_here(dashboard):
    page = dashboard(snap())
    page.evaluate("() => { window.leaked = []; document.addEventListener('keydown', e => leaked.push(e.key)); }")
    page.locator(".ll-spans").focus()
    for key in ("ArrowDown", "Home", "x", "Escape", "Escape"):
        page.keyboard.press(key)
    # 'x' is not ours, and the second Escape had nothing to clear.
    assert page.evaluate("() => leaked") == ["x", "Escape"]
    assert page.locator(".llamatelemetry").get_attribute("data-lm-suppress-shortcuts") == "true"


def test_tab_reaches_everything_in_order(dashboard):
    page = dashboard(gpus())
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate("""() => { const e = document.activeElement; return e === document.body ? null
            : e.dataset.action ?? (e.dataset.window && 'window') ?? e.getAttribute('role') ?? e.className; }""")
        if here is None:
            break
        if reached[-1:] != [here]:
            reached.append(here)
    assert reached == [
        "ll-figure", "tab", "pause", "window", "follow", "start", "restart", "stop",
        "tab", "img", "ll-owner", "img", "listbox",
    ]  # fmt: skip


def test_one_cursor_reads_all_panels(dashboard):
    page = dashboard(snap())
    chart = page.locator(".ll-memory .ll-plot")
    chart.focus()
    now = page.locator('[data-series="tok/default/decode"]').inner_text()
    page.keyboard.press("End")
    for _ in range(11):
        page.keyboard.press("ArrowLeft")
    settle(page)
    assert (now, page.locator('[data-series="tok/default/decode"]').inner_text()) == ("0.0", "48.0")
    at = page.evaluate(
        "() => [...document.querySelectorAll('.ll-plot-cursor')].map(e => Math.round(new DOMMatrix(getComputedStyle(e).transform).e + e.parentElement.getBoundingClientRect().x))"
    )
    at.append(page.evaluate("() => Math.round(document.querySelector('.ll-cursor').getBoundingClientRect().x)"))
    assert max(at) - min(at) <= 1
    assert "weights 98.0 MiB" in chart.get_attribute("aria-label")


def test_all_panels_begin_and_end_together(dashboard):
    page = dashboard(gpus())
    page.locator('.ll-tab:has-text("host")').click()
    settle(page)
    edges = page.evaluate(
        "() => [...document.querySelectorAll('.ll-over')].map(e => { const r = e.getBoundingClientRect(); return [r.left, r.right]; })"
    )
    assert edges == [edges[0]] * 3


def test_pause_holds_everything_and_resume_catches_up(dashboard):
    made = snap()
    page = dashboard(made)
    page.locator('[data-action="pause"]').click()
    settle(page)
    last = made["points"]["t_ms"][-1]
    page.evaluate("rows => harness.frame(2, rows)", [[last + 500, *(7 * world.MIB for _ in made["series"])]])
    page.evaluate(
        "m => harness.message(m)", {"type": "spans", "seq": 3, "spans": [], "totals": made["totals"] | {"spans": 77}}
    )
    settle(page)
    assert page.locator('[data-owner="weights"]').inner_text() == "98.0 MiB"
    assert text(page, "spans") == str(made["totals"]["spans"])
    assert text(page, "fresh") == "paused"
    page.locator('[data-action="pause"]').click()
    settle(page)
    assert page.locator('[data-owner="weights"]').inner_text() == "7.0 MiB"
    assert text(page, "spans") == "77"


def test_windows_follow_and_a_closer_look(dashboard):
    page = dashboard(snap())
    assert page.locator('[data-window="120000"]').get_attribute("aria-pressed") == "true"
    everything = page.locator(".ll-span").count()
    box = page.locator(".ll-memory .ll-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 40, steps=4)
    page.mouse.up()
    settle(page)
    assert page.locator('[data-action="follow"]').get_attribute("aria-pressed") == "false"
    assert 0 < page.locator(".ll-span").count() < everything
    page.locator('[data-action="follow"]').click()
    settle(page)
    assert page.locator(".ll-span").count() == everything
    page.locator('[data-window="30000"]').click()
    settle(page)
    assert page.locator('[data-window="30000"]').get_attribute("aria-pressed") == "true"


def test_the_axis_is_moved_and_zoomed_by_wheel_and_keys(dashboard):
    page = dashboard(snap())
    shown = "() => [...document.querySelectorAll('.ll-span')].map(e => e.querySelector('.ll-span-bar').style.cssText).join()"
    follow = page.locator('[data-action="follow"]')
    for panel in (".ll-memory .ll-over", ".ll-waterfall .ll-spans"):
        box = page.locator(panel).bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 20)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)
        page.keyboard.up("Control")
        settle(page)
        assert follow.get_attribute("aria-pressed") == "false"
        before = page.evaluate(shown)
        page.mouse.wheel(60, 0)
        settle(page)
        assert page.evaluate(shown) != before
        page.mouse.wheel(-60, 0)
        settle(page)
        assert page.evaluate(shown) == before
        page.mouse.dblclick(box["x"] + 200, box["y"] + 20)
        settle(page)
        assert follow.get_attribute("aria-pressed") == "true"
        page.keyboard.press("Escape")
    for panel in (".ll-memory .ll-plot", ".ll-spans"):
        page.locator(panel).focus()
        first = page.evaluate(shown)
        for key in ("+", "Shift+ArrowLeft"):
            before = page.evaluate(shown)
            page.keyboard.press(key)
            settle(page)
            assert page.evaluate(shown) != before, key
        page.keyboard.press("0")
        settle(page)
        assert page.evaluate(shown) == first


def test_owners_are_drawn_by_choice_and_devices_by_tab(dashboard):
    page = dashboard(gpus())
    assert [tab.inner_text() for tab in page.locator(".ll-tab").all()][-1] == "host memory"
    assert page.locator('.ll-owner:has([data-owner="other"])').get_attribute("aria-pressed") == "true"
    page.locator('.ll-memory .ll-tab[aria-selected="true"]').focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert page.locator('.ll-memory .ll-tab[aria-selected="true"]').inner_text() == "host memory"
    other = page.locator('.ll-owner:has([data-owner="other"])')
    assert other.get_attribute("aria-pressed") == "false"
    before = page.locator(".ll-memory .ll-plot canvas").screenshot()
    other.click()
    settle(page)
    assert other.get_attribute("aria-pressed") == "true"
    assert page.locator(".ll-memory .ll-plot canvas").screenshot() != before


def test_empty_states_say_what_to_type(dashboard):
    nothing = {"spans": world.Spans([])}
    page = dashboard(snap(**nothing, samples=world.Memory(), handle=None, status=None))
    assert text(page, "state") == "no server"
    assert "%llama start" in text(page, "empty")
    shoot(page, "empty")
    page = dashboard(snap(**nothing))
    assert "%%llama" in text(page, "empty")
    assert not page.locator(".ll-waterfall .ll-lines").is_visible()
    page = dashboard({})  # the trait before Python filled it
    assert "%llama start" in text(page, "empty")
    late = snap(now_ns=world.T0 + 3600 * 10**9)
    page = dashboard(late)
    assert "the last began at" in text(page, "empty")
    page.locator('[data-field="empty"] button').click()
    settle(page)
    assert page.locator('.ll-span[aria-selected="true"]').count() == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 900, 700, 480, 320])
@pytest.mark.parametrize("made", [snap, gpus], ids=["host", "gpus"])
def test_nothing_overlaps_or_is_cut_off(dashboard, made, width, dark):
    page = dashboard(made(), dark=dark, width=width)
    page.locator(".ll-span").nth(1).click()
    settle(page)
    assert page.locator(".llamatelemetry").get_attribute("data-theme") == ("dark" if dark else "light")
    assert page.evaluate(MISPLACED) == []
    shoot(page, f"{made.__name__}-{width}-{'dark' if dark else 'light'}")


def test_theme_follows_every_kind_of_host(dashboard):
    page = dashboard(snap())
    root = page.locator(".llamatelemetry")
    for there, theme in (
        ("document.body.dataset.jpThemeLight = 'false'", "dark"),
        ("document.body.dataset.jpThemeLight = 'true'", "light"),
        ("delete document.body.dataset.jpThemeLight; document.body.className = 'vscode-dark'", "dark"),
        ("document.body.className = 'vscode-light'", "light"),
        ("document.body.className = ''; document.documentElement.setAttribute('theme', 'dark')", "dark"),
        ("document.documentElement.removeAttribute('theme')", "light"),
        ("document.body.style.background = '#181818'", "dark"),  # no host says it: the page's colour decides
    ):
        page.evaluate(f"() => {{ {there}; }}")
        page.wait_for_function("t => document.querySelector('.llamatelemetry').dataset.drawn === t", arg=theme)
        # The canvases have changed with the style sheet.
        bar = page.evaluate("() => getComputedStyle(document.querySelector('.ll-span-bar')).backgroundColor")
        assert bar == {"light": "rgb(95, 107, 118)", "dark": "rgb(154, 167, 179)"}[theme]
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    settle(page)
    assert root.is_visible()
    assert page.evaluate("() => getComputedStyle(document.querySelector('.ll-bar-fill')).transitionDuration") == "0s"


def test_the_static_picture_is_hidden_while_the_widget_lives(dashboard):
    page = dashboard(snap())
    page.evaluate("""() => { harness.cleanup(); document.body.insertAdjacentHTML('beforeend',
        '<p data-llamatelemetry-static="0123456789abcdef">picture</p>'); }""")
    picture = page.locator("[data-llamatelemetry-static]")
    assert picture.is_visible()
    page.evaluate("s => harness.start(s, 1, '0123456789abcdef')", snap())
    assert not picture.is_visible()
    page.evaluate("() => harness.cleanup()")
    assert picture.is_visible()


def test_a_closed_view_leaves_nothing_behind(dashboard):
    page = dashboard(snap())
    for _ in range(3):
        page.evaluate("() => { harness.cleanup(); }")
        assert page.locator(".llamatelemetry").count() == 0
        page.evaluate("() => harness.view()")
    settle(page)
    assert page.locator(".llamatelemetry").count() == 1
    # The widget itself goes on listening for its next view: snapshot, messages, answers, connection; the view: the last two.
    assert page.evaluate("() => harness.listeners()") == 6


def test_what_no_kernel_brings_news_of_is_greyed_until_one_does(dashboard):
    made = snap()
    page = dashboard(made)
    page.evaluate("() => { const later = performance.now() + 16000; performance.now = () => later; }")
    page.wait_for_selector(".llamatelemetry[data-lost]")
    assert text(page, "state") == "no data"
    assert text(page, "engine") == (
        "for 16.0 s: a cell holds the kernel, or it is gone; run the cell again: %llama dashboard"
    )
    last = made["points"]["t_ms"][-1]
    page.evaluate("rows => harness.frame(2, rows)", [[last + 500, *(0 for _ in made["series"])]])
    page.wait_for_selector(".llamatelemetry:not([data-lost])")
    assert text(page, "state") == "ready"


def test_frames_before_a_view_are_not_lost_and_a_lost_snapshot_is_asked_for(dashboard):
    made = snap()
    page = dashboard(made)
    page.evaluate("() => { harness.cleanup(); }")
    last = made["points"]["t_ms"][-1]
    page.evaluate("rows => harness.frame(2, rows)", [[last + 500, *(7 * world.MIB for _ in made["series"])]])
    page.evaluate("() => harness.view()")
    settle(page)
    assert page.locator('[data-owner="weights"]').inner_text() == "7.0 MiB"
    page.evaluate("() => harness.frame(3, [[1, 2]], {layout: 1})")
    assert page.evaluate("() => harness.sent.map(m => m.op)") == ["snapshot"]


def test_it_draws_when_something_changed_and_is_seen_and_not_else(dashboard):
    page = dashboard(snap())
    settle(page)
    page.evaluate("""() => { window.frames_ = 0; const ask = window.requestAnimationFrame;
        window.requestAnimationFrame = fn => { window.frames_ += 1; return ask(fn); }; }""")
    asked = """() => { const before = frames_; for (const seq of [2, 3]) harness.message({type: 'spans', seq, spans: []});
        return frames_ - before; }"""
    assert page.evaluate(asked) == 1
    page.evaluate("() => { document.getElementById('view').style.display = 'none'; }")
    # The browser tells in its own time that nothing is seen any more.
    page.wait_for_function(
        """() => { const before = frames_; window.seq_ = (window.seq_ ?? 3) + 1;
        harness.message({type: 'spans', seq: seq_, spans: []}); return frames_ === before; }""",
        polling=100,
    )


def test_bundles_are_small_and_ask_nobody():
    static = REPO / "llamatelemetry_jupyter" / "widgets" / "static"
    bundle = (static / "dashboard.js").read_text()
    assert len(bundle) + len((static / "dashboard.css").read_text()) <= 120_000
    for word in (
        "import(",
        "eval(",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "fetch(",
        "XMLHttpRequest",
        "https://",
        "sourceMappingURL",
    ):
        assert word not in bundle, word

"""Header, memory and controls on a model of their own: every state, what the cursor reads, what is pressed and answered."""

from __future__ import annotations

import pytest
import viewworld as world
from dashboardpage import ATTACK, MISPLACED, settle, shoot, text
from widgets.test_dashboard_page import gpus, snap

from llamatelemetry_jupyter.values import EngineBuffer, ServerStatus

pytestmark = pytest.mark.browser

BUSY = "the kernel is busy: this happens after the running cell"
#: Rows of the memory chart in which more than half of the plot has the colour of the page's text.
INKED = """() => { const canvas = document.querySelector('.ll-memory .ll-plot canvas'), rows = [];
    const ink = getComputedStyle(document.querySelector('.llamatelemetry')).color.match(/\\d+/g).map(Number);
    const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let y = 0; y < height; y++) { let n = 0; for (let x = 0; x < width; x++) { const i = (y * width + x) * 4;
        n += [0, 1, 2].every(c => Math.abs(data[i + c] - ink[c]) < 6) && data[i + 3] > 200; }
        if (n > width / 2) rows.push(y); } return rows; }"""


def say(page, seq, server, **more):
    """The server's state as a live message brings it."""
    page.evaluate("m => harness.message(m)", {"type": "spans", "seq": seq, "spans": [], "server": server, **more})
    settle(page)


def sent(page):
    return page.evaluate("() => harness.sent.filter(m => m.op !== 'snapshot')")


def answer(page, request, **reply):
    page.evaluate("m => harness.message(m)", {"type": "reply", "id": request["id"], **reply})
    page.wait_for_timeout(20)
    settle(page)


def press(page, action):
    page.locator(f'[data-action="{action}"]').click()


def can(page):
    found = page.locator('.ll-buttons:not([data-off]) .ll-button[data-action]:not([aria-disabled="true"])')
    return [one.get_attribute("data-action") for one in found.all()]


def test_the_plan_is_a_line_beside_what_is_there(dashboard):
    page = dashboard(snap())
    assert page.evaluate(INKED) == []
    assert not page.locator(".ll-plan").is_visible()
    planned = [EngineBuffer("CPU", "weights", 100 * world.MIB), EngineBuffer("CPU", "kv", 90 * world.MIB)]
    page = dashboard(snap(planned=planned))
    assert len(page.evaluate(INKED)) == 1
    assert text(page, "plan") == "190 MiB"
    assert page.locator(".ll-plan .ll-note").inner_text() == "−1.1 %"
    assert "plan 190 MiB" in page.locator(".ll-memory .ll-plot").get_attribute("aria-label")
    # Of what is drawn alone: the line is to be compared with the upper edge.
    page.locator('.ll-owner:has([data-owner="kv"])').click()
    settle(page)
    assert text(page, "plan") == "100 MiB"
    shoot(page, "plan")


def test_the_cursor_reads_every_owner_and_the_time(dashboard):
    page = dashboard(snap())
    now = text(page, "memory")
    chart = page.locator(".ll-memory .ll-over")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    settle(page)
    then = text(page, "memory")
    assert now != then
    assert now.startswith("at ") and then.startswith("at ")
    filled = page.locator('.ll-owner:has([data-owner="kv"]) .ll-note').inner_text()
    assert 25 < float(filled.removesuffix(" % filled")) < 45
    assert page.locator('.ll-owner:has([data-owner="context"]) .ll-note').inner_text() == "estimate"
    assert page.locator('[data-owner="context"]').inner_text() == "≈ 22.0 MiB"
    assert page.locator('.ll-owner:has([data-owner="weights"]) .ll-pid').inner_text() == "pid 11"
    assert "pid 10 (python)" in page.locator('.ll-owner:has([data-owner="kernel"])').get_attribute("title")


def test_the_filled_part_of_the_cache_is_drawn_apart(dashboard):
    solid = """() => { const canvas = document.querySelector('.ll-memory .ll-plot canvas'); let n = 0;
        const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const kv = i => data[i] === 0xc4 && data[i + 1] === 0x4e && data[i + 2] === 0;
        for (let y = 0; y < height; y++) { let run = 0; for (let x = 0; x < width; x++) {
            run = kv((y * width + x) * 4) ? run + 1 : 0; n += run > 24; } } return n; }"""
    made = snap()
    assert dashboard(made).evaluate(solid) > 1000
    made["series"] = [s | {"id": "gone"} if s["id"] == "filled/host" else s for s in made["series"]]
    assert dashboard(made).evaluate(solid) == 0


def test_power_is_summed_over_the_gpus_that_tell(dashboard):
    made = gpus()
    page = dashboard(made)
    assert text(page, "power") == "122 W"
    assert page.locator('[data-figure="power"] .ll-note').inner_text() == "2 GPUs"
    made = gpus()
    gone = {"since_ms": made["now_ms"] - 60_000, "power_w": None, "used_bytes": None}
    say(page, 2, made["server"], devices=[made["devices"][0], made["devices"][1] | gone, made["devices"][2]])
    assert text(page, "power") == "61 W"
    assert page.locator('[data-figure="power"] .ll-note').inner_text() == "1 of 2 GPUs"
    assert text(dashboard(snap()), "power") == "n/a"


def test_every_state_has_its_word_its_sign_and_its_buttons(dashboard):
    made = snap()
    page = dashboard(made)
    server = made["server"]
    assert can(page) == ["restart", "stop"]
    loading = server | {"state": "loading", "stage": "loading weights", "fraction": 0.45, "url": None}
    say(page, 2, loading)
    bar = page.locator('.ll-bar[role="progressbar"]')
    assert (text(page, "state"), text(page, "engine")) == ("loading", "loading weights · 45 %")
    assert (bar.get_attribute("aria-valuenow"), bar.get_attribute("aria-valuetext")) == ("45", "loading weights")
    assert page.evaluate("() => document.querySelector('.ll-bar-fill').style.width") == "45%"
    assert can(page) == ["stop"]
    shoot(page, "loading")
    say(page, 3, loading | {"state": "starting", "stage": "fetching", "fraction": None})
    assert bar.get_attribute("data-unknown") is not None
    assert bar.get_attribute("aria-valuenow") is None
    say(page, 4, server | {"state": "sleeping"})
    assert text(page, "state") == "sleeping"
    assert page.locator(".ll-sign").inner_text() == "\u25d1"
    assert not bar.is_visible()
    crash = server | {"state": "crashed", "reason": f"it was killed {ATTACK}", "remedy": "%llama start --ctx 512"}
    say(page, 5, crash)
    assert text(page, "engine") == f"it was killed {ATTACK} · try: %llama start --ctx 512"
    assert page.locator(".llamatelemetry :is(script, img)").count() == 0
    assert can(page) == ["start"]
    say(page, 6, server | {"owned": False})
    assert can(page) == ["stop"]
    assert page.locator('[data-action="stop"]').inner_text() == "Let go"
    say(page, 7, None)
    assert (text(page, "state"), can(page)) == ("no server", ["start"])


def test_what_is_pressed_is_asked_told_and_answered(dashboard):
    made = snap()
    page = dashboard(made)
    press(page, "stop")
    assert page.evaluate("() => document.activeElement.dataset.action") == "yes"
    press(page, "no")
    assert page.evaluate("() => document.activeElement.dataset.action") == "stop"
    assert sent(page) == []
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    (asked,) = sent(page)
    assert (asked["op"], asked["args"]) == ("server.stop", {"name": "default"})
    assert can(page) == []
    assert text(page, "say") == ""
    page.wait_for_timeout(750)
    assert text(page, "say") == BUSY
    page.evaluate("m => harness.message(m)", {"type": "progress", "id": asked["id"], "stage": "stopping"})
    assert text(page, "say") == "stopping"
    answer(page, asked, ok=False, error={"what": f"it will not {ATTACK}", "hint": "%llama doctor"})
    strip = page.locator(".ll-top .ll-strip")
    assert strip.inner_text().startswith(f"✕ it will not {ATTACK}")
    assert strip.locator("code").inner_text() == "%llama doctor"
    assert page.locator(".llamatelemetry :is(script, img)").count() == 0
    assert text(page, "say") == ""
    assert can(page) == ["restart", "stop"]
    # A press that cannot be is none; the next that can takes the old error away.
    page.locator('[data-action="start"]').click(force=True)
    assert len(sent(page)) == 1
    press(page, "restart")
    press(page, "yes")
    assert not strip.is_visible()
    assert sent(page)[1]["op"] == "server.restart"
    assert can(page) == ["stop"]  # a start that takes long can be ended
    answer(page, sent(page)[1], ok=True, data={})
    assert can(page) == ["restart", "stop"]


def test_an_hour_is_asked_for_once_and_added_to_what_is_there(dashboard):
    made = snap(window_s=10)
    page = dashboard(made)
    rows = int(page.locator(".llamatelemetry").get_attribute("data-rows"))
    page.locator('[data-window="3600000"]').click()
    page.locator('[data-window="3600000"]').click()
    (asked,) = sent(page)
    assert (asked["op"], asked["args"]) == ("history", {"window_s": 3600})
    page.wait_for_timeout(750)
    assert text(page, "say") == "the kernel is busy: what was before comes after the running cell"
    assert int(page.locator(".llamatelemetry").get_attribute("data-rows")) == rows  # what is there stays
    answer(page, asked, ok=True, data=snap(window_s=3600))
    assert int(page.locator(".llamatelemetry").get_attribute("data-rows")) >= rows + 38
    page.locator('[data-window="30000"]').click()
    page.locator('[data-window="3600000"]').click()
    assert len(sent(page)) == 1


@pytest.mark.parametrize("width", [1200, 700, 320])
def test_nothing_moves_when_something_is_said(dashboard, width):
    made = gpus()
    page = dashboard(made, width=width)
    place = "() => document.querySelector('.ll-memory').offsetTop"
    before = page.evaluate(place)
    page.locator('[data-figure="kv"]').click()
    assert "tokens in the cells of all slots" in text(page, "definition")
    assert page.evaluate(place) == before
    assert page.evaluate(MISPLACED) == []
    press(page, "stop")
    assert page.evaluate(place) == before
    assert page.evaluate(MISPLACED) == []
    shoot(page, f"asked-{width}")
    press(page, "yes")
    page.wait_for_timeout(750)
    assert text(page, "say") == BUSY
    assert page.evaluate(place) == before
    assert page.evaluate(MISPLACED) == []
    for seq, change in enumerate(
        ({"state": "loading", "stage": "loading weights", "fraction": 0.5}, {"queued": 12}), 2
    ):
        say(page, seq, made["server"] | change)
        assert page.evaluate(place) == before


def test_figures_are_reached_by_keys_and_explained_by_a_press(dashboard):
    page = dashboard(snap())
    page.evaluate("() => { window.leaked = []; document.addEventListener('keydown', e => leaked.push(e.key)); }")
    page.locator('[data-figure="tokens_per_s"]').focus()
    page.keyboard.press("End")
    assert page.evaluate("() => document.activeElement.dataset.figure") == "spans"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.figure") == "tokens_per_s"
    assert text(page, "definition") == ""
    page.keyboard.press("Space")
    assert text(page, "definition").startswith("decode tokens/s: (output tokens − 1) / decode time")
    assert page.locator('[data-figure="tokens_per_s"]').get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowLeft")
    assert text(page, "definition").startswith("spans: ended spans of this session")
    page.keyboard.press("Escape")
    assert text(page, "definition") == ""
    assert page.evaluate("() => leaked") == [" "]


def test_sparklines_are_drawn_anew_only_when_there_is_something_new(dashboard):
    page = dashboard(snap())
    settle(page)
    page.evaluate("""() => { window.drawn = 0; new MutationObserver(list => { window.drawn += list.length; })
        .observe(document.querySelector('.ll-figures'), {subtree: true, attributes: true, attributeFilter: ['width']}); }""")
    chart = page.locator(".ll-memory .ll-plot")
    chart.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
        settle(page)
    assert page.evaluate("() => window.drawn") == 0
    say(page, 2, snap()["server"])
    assert page.evaluate("() => window.drawn") == 6


def test_a_start_is_seen_from_the_first_message_on(dashboard):
    coming = ServerStatus("default", "starting", stage="reading the model")
    page = dashboard(snap(spans=world.Spans([]), samples=world.Memory(), handle=None, status=coming))
    assert (text(page, "state"), text(page, "engine")) == ("starting", "reading the model")
    assert can(page) == ["stop"]

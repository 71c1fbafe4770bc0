"""Header, memory and controls of a live dashboard: JupyterLab, Chromium and the real engine, also while a cell runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.engine]

PICTURES = os.environ.get("PICTURES")
SESSION = "import llamatelemetry_jupyter as lt; s = lt.current_session(); "
BUSY = "the kernel is busy: this happens after the running cell"
PAINTED = """selector => [...document.querySelectorAll(selector)].map(canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); const seen = new Map();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) {
        const c = data[i] << 16 | data[i + 1] << 8 | data[i + 2]; seen.set(c, (seen.get(c) ?? 0) + 1); }
    return [...seen.values()].filter(n => n > 4).length; })"""


@pytest.fixture
def shown(notebook):
    """``shown(*cells)``: a notebook with a live dashboard, the cells before it run; its page is returned beside it."""

    def show(*before, options="", kernel="python3"):
        opened = notebook(["%load_ext llamatelemetry", *before, f"%llama dashboard {options}".strip()], kernel=kernel)
        opened.run_all()
        opened.output(1 + len(before)).locator(".llamatelemetry[data-seq]").wait_for()
        return opened, opened.page

    return show


def text(page, name):
    return page.locator(f'.llamatelemetry [data-field="{name}"]').inner_text()


def wait(page, name, wanted, timeout_s=60):
    """Until the field's text is, or begins with, what is wanted."""
    page.wait_for_function(
        '([name, wanted]) => document.querySelector(`.llamatelemetry [data-field="${name}"]`).textContent.startsWith(wanted)',
        arg=[name, wanted],
        timeout=timeout_s * 1000,
    )


def press(page, action):
    page.locator(f'.llamatelemetry [data-action="{action}"]').click()


def can(page):
    found = page.locator('.ll-server .ll-buttons:not([data-off]) .ll-button:not([aria-disabled="true"])')
    return [one.get_attribute("data-action") for one in found.all()]


def busy(opened, code):
    """Run a cell that blocks the kernel; what it prints is not looked at."""
    opened.page.evaluate(
        """code => { const k = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        window.cell = k.requestExecute({code}); window.cellDone = false;
        window.cell.done.then(() => { window.cellDone = true; }); }""",
        code,
    )


def cell_done(page):
    return page.evaluate("() => window.cellDone")


def shoot(page, name):
    if PICTURES:
        page.locator(".llamatelemetry").screenshot(path=str(Path(PICTURES) / f"now-{name}.png"))


def names(opened):
    return opened.kernel(SESSION + "s.spans.flush(); print([r.name for r in s.spans.rows()])")


def test_a_server_is_started_restarted_and_stopped_by_button(shown):
    opened, page = shown()
    assert text(page, "state") == "no server"
    assert can(page) == ["start"]
    press(page, "start")
    wait(page, "state", "ready")
    assert text(page, "model") == "smollm2-135m"
    page.wait_for_function("() => document.querySelector('.ll-plan .ll-value')?.textContent.includes('MiB')")
    first = opened.kernel(SESSION + "print(s.handle.pid)")
    assert "server start smollm2-135m" in names(opened)
    assert "loading weights" in names(opened)
    # Asked first, and Escape takes it back: the focus is where it was.
    page.locator('[data-action="restart"]').focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.dataset.action") == "yes"
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.dataset.action") == "restart"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    opened.page.wait_for_function(
        "() => document.querySelector('[data-action=restart]').getAttribute('aria-disabled') === 'false'"
    )
    second = opened.kernel(SESSION + "print(s.handle.pid)")
    assert second != first
    press(page, "stop")
    shoot(page, "confirm")
    press(page, "yes")
    wait(page, "state", "stopped")
    assert opened.kernel(SESSION + "print(s.handles())") == "()"
    assert can(page) == ["start"]
    assert names(opened).count("server stop smollm2-135m") == 2
    # Started again it is what it was: %llama start's own settings are kept.
    press(page, "start")
    wait(page, "state", "ready")
    assert opened.errors == []


def test_a_stop_that_is_pressed_while_a_cell_runs_is_done_at_once_where_the_page_has_a_subshell(shown):
    opened, page = shown("%llama start --ctx 512")
    wait(page, "state", "ready")
    busy(opened, "import time; time.sleep(15)")
    press(page, "stop")
    press(page, "yes")
    wait(page, "state", "stopped", 12)
    assert not cell_done(page)


def test_a_stop_that_is_pressed_while_a_cell_runs_comes_after_it_on_kaggles_kernel(shown):
    opened, page = shown("%llama start --ctx 512", kernel="kaggle")
    wait(page, "state", "ready")
    busy(opened, "import time; time.sleep(6)")
    press(page, "stop")
    press(page, "yes")
    wait(page, "say", BUSY, 3)
    assert not cell_done(page)
    assert text(page, "state") == "ready"
    shoot(page, "busy")
    # What is only the page's goes on.
    press(page, "pause")
    wait(page, "fresh", "paused", 3)
    press(page, "pause")
    wait(page, "state", "stopped", 20)
    assert cell_done(page)
    assert text(page, "say") == ""
    press(page, "start")
    wait(page, "state", "ready")
    assert opened.kernel(SESSION + "print(s.manager.settings.ctx)") == "512"


HELD = (
    SESSION
    + """import os, signal, threading, time
def hold():
    while not (s.manager._now and s.manager._now.child and s.manager._now.parser.stage >= 0):
        time.sleep(0.001)
    pid = s.manager._now.child.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(pid, signal.SIGCONT)
threading.Thread(target=hold, daemon=True).start()
get_ipython().run_line_magic('llama', 'start --restart')
"""
)


def test_loading_is_shown_with_its_stage_while_the_cell_that_starts_runs(shown):
    opened, page = shown()
    busy(opened, HELD)
    wait(page, "state", "loading", 20)
    bar = page.locator('.ll-bar[data-on][role="progressbar"]')
    assert bar.is_visible()
    assert 0 < int(bar.get_attribute("aria-valuenow")) < 100
    assert text(page, "engine").startswith(bar.get_attribute("aria-valuetext"))
    assert can(page) == ["stop"]
    assert page.locator(".ll-plan .ll-value").inner_text().endswith(" MiB")  # the plan is there before the memory is
    shoot(page, "loading")
    assert not cell_done(page)
    wait(page, "state", "ready", 20)
    assert not page.locator(".ll-bar").is_visible()


def test_a_crash_says_why_while_a_cell_runs(shown):
    opened, page = shown("%llama start")
    wait(page, "state", "ready")
    busy(opened, SESSION + "import os, signal, time; os.kill(s.handle.pid, signal.SIGKILL); time.sleep(5)")
    wait(page, "state", "crashed", 4)
    assert "killed" in text(page, "engine")
    assert not cell_done(page)
    assert can(page) == ["start"]
    shoot(page, "crashed")
    press(page, "start")
    wait(page, "state", "ready")


def test_figures_have_a_history_and_say_what_they_are(shown):
    opened, page = shown("%llama start", "%llama chat --max-tokens 60 Write about llamas", "%llama chat Again")
    wait(page, "calls", "2")
    page.wait_for_function("() => document.querySelector('[data-field=prefill]').textContent !== 'n/a'")
    told = opened.kernel(
        SESSION + "a = [r for r in s.spans.rows() if r.name.startswith('chat')][-1].attributes; "
        "print(a['llama_cpp.timings.prompt_per_second'])"
    )
    assert float(text(page, "prefill").replace(",", "")) == pytest.approx(float(told), rel=0.01, abs=0.1)
    assert text(page, "power") == "n/a"
    # decode, prefill, first token, slots, KV cache are drawn; the power of no GPU is not.
    drawn = page.evaluate(PAINTED, ".llamatelemetry .ll-spark")
    assert [n >= 2 for n in drawn] == [True, True, True, True, True, False], drawn
    page.locator('[data-figure="tokens_per_s"]').focus()
    place = "() => document.querySelector('.ll-memory').offsetTop"
    before = page.evaluate(place)
    page.keyboard.press("Enter")
    assert "(output tokens − 1) / decode time" in text(page, "definition")
    page.keyboard.press("ArrowRight")
    assert text(page, "definition").startswith("prefill tokens/s: (input tokens − cached tokens) / prefill time")
    shoot(page, "definition")
    assert page.evaluate(place) == before
    page.keyboard.press("Escape")
    assert text(page, "definition") == ""
    # The plan is compared with what there is, and drawn as a line.
    assert page.locator(".ll-plan .ll-note").inner_text().endswith(" %")
    assert "plan " in page.locator(".ll-memory .ll-plot").get_attribute("aria-label")
    pids = page.locator(".ll-memory .ll-pid").all_inner_texts()
    assert f"pid {opened.kernel(SESSION + 'print(s.handle.pid)')}" in pids
    assert page.locator('[data-owner="context"]').inner_text().startswith("≈ ")
    opened.set_theme("JupyterLab Dark")
    page.wait_for_function("() => document.querySelector('.llamatelemetry').dataset.drawn === 'dark'")
    shoot(page, "dark")
    opened.set_theme("JupyterLab Light")


def test_an_hour_is_asked_for_and_comes_after_the_cell_on_kaggles_kernel(shown):
    opened, page = shown("%llama start", "import time; time.sleep(12)", options="--window 4", kernel="kaggle")
    rows = "() => Number(document.querySelector('.llamatelemetry').dataset.rows)"
    before = page.evaluate(rows)
    busy(opened, "import time; time.sleep(5)")
    page.locator('[data-window="3600000"]').click()
    wait(page, "say", "the kernel is busy: what was before comes after the running cell", 3)
    assert page.locator('[data-window="3600000"]').get_attribute("aria-pressed") == "true"
    assert page.evaluate(rows) < before + 12
    page.wait_for_function(f"n => ({rows})() > n", arg=before + 5 * 2 + 7)
    assert cell_done(page)
    assert text(page, "say") == ""
    shoot(page, "hour")

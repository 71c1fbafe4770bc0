"""Dashboards over a notebook's life in JupyterLab: several, run again, loaded again, in a second tab, without a kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rig import Notebook

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("PICTURES")
ROOT = ".llamatelemetry:not(.ll-chat)"
#: A call of a model that this machine does not have: its spans are enough for what is tested here.
CALL = """from opentelemetry import trace
with trace.get_tracer('mine').start_as_current_span('mine'):
    pass"""
#: What one kernel holds for its dashboards.
HELD = """import json, threading, ipywidgets, llamatelemetry_jupyter as lt
s = lt.current_session()
held = getattr(ipywidgets.Widget, '_all_widgets', None) or __import__('ipywidgets.widgets.widget', fromlist=['_']) ._instances
print(json.dumps({
    'feeds': [t.name for t in threading.enumerate()].count('llamatelemetry-feed'),
    'held': len(s._held), 'refreshes': len(s._on_refresh), 'widgets': len(held),
    'subscribers': len(s.spans._subscribers), 'comms': len(get_ipython().kernel.comm_manager.comms)}))"""
#: And what the page does.
PAGE = """() => ({
    roots: document.querySelectorAll('.llamatelemetry').length,
    hiding: [...document.head.querySelectorAll('style')].filter(s => s.textContent.includes('data-llamatelemetry-static')).length,
    comms: jupyterapp.shell.currentWidget.sessionContext.session.kernel._comms.size })"""


def shoot(page, name):
    if PICTURES:
        page.locator(ROOT).first.screenshot(path=str(Path(PICTURES) / f"life-{name}.png"))


def held(opened):
    return json.loads(opened.kernel(HELD))


def told(page, name):
    """A field of every dashboard on the page."""
    return page.locator(f'{ROOT} [data-field="{name}"]').all_inner_texts()


def wait(page, name, wanted, *, count=1, timeout_s=20):
    page.wait_for_function(
        """([root, name, wanted, count]) => { const found = [...document.querySelectorAll(`${root} [data-field="${name}"]`)];
        return found.length === count && found.every(e => e.textContent === wanted); }""",
        arg=[ROOT, name, wanted, count],
        timeout=timeout_s * 1000,
    )


@pytest.fixture
def shown(notebook):
    def show(*cells):
        traced = "import llamatelemetry_jupyter as lt; lt.current_session().tracing()"
        opened = notebook([f"%load_ext llamatelemetry\n{traced}", *cells])
        opened.run_all()
        opened.page.locator(f"{ROOT}[data-seq]").first.wait_for()
        return opened, opened.page

    return show


def test_several_dashboards_agree_and_a_cell_that_runs_again_replaces_its_own(shown):
    opened, page = shown("%llama dashboard", "%llama dashboard", CALL)
    wait(page, "spans", "1", count=2)
    assert told(page, "model") == ["llamatelemetry"] * 2
    before = held(opened), page.evaluate(PAGE)
    assert (before[0]["feeds"], before[1]["roots"], before[1]["hiding"]) == (2, 2, 2)
    for _ in range(3):
        opened.run_cell(1)
    opened.run_cell(3)
    wait(page, "spans", "2", count=2)
    page.wait_for_function(f"n => ({PAGE})().comms === n", arg=before[1]["comms"])
    assert (held(opened), page.evaluate(PAGE)) == before
    # What is chosen in one is that one's.
    page.locator(f'{ROOT} [data-tab="traces"]').first.click()
    assert page.locator(f'{ROOT} [data-tab="traces"][aria-selected="true"]').count() == 1
    opened.kernel("get_ipython().extension_manager.unload_extension('llamatelemetry')")
    ours = "print([t.name for t in threading.enumerate() if t.name.startswith('llamatelemetry')])"
    assert opened.kernel(f"import threading; {ours}") == "[]"
    page.wait_for_function(f"() => ({PAGE})().roots === 0")
    after = page.evaluate(PAGE)
    assert (after["hiding"], after["comms"]) == (0, before[1]["comms"] - 2 * 2)
    assert page.locator("[data-llamatelemetry-static] img").first.is_visible()
    assert opened.errors == []


def test_after_a_restart_the_last_state_stands_greyed_with_what_to_type(shown):
    opened, page = shown("%llama dashboard", CALL)
    wait(page, "spans", "1")
    page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }")
    wait(page, "state", "kernel gone")
    assert page.locator(f"{ROOT}[data-lost]").count() == 1
    assert "run the cell again: %llama dashboard" in told(page, "engine")[0]
    assert told(page, "spans") == ["1"]
    shoot(page, "gone")
    # Nothing is offered that nobody would do, and what is asked is refused at once.
    assert page.locator('.ll-buttons:not([data-off]) .ll-button:not([aria-disabled="true"])').count() == 0
    page.locator('[data-tab="graph"]').click()
    page.wait_for_function("() => document.querySelector('.ll-page:not([hidden])').textContent.includes('has ended')")
    assert "busy" not in page.locator(".ll-page:not([hidden])").inner_text()
    shoot(page, "gone-graph")
    opened.run_all()
    wait(page, "state", "no server")
    assert page.locator(f"{ROOT}[data-lost]").count() == 0
    assert page.evaluate(PAGE)["roots"] == 1
    assert opened.errors == []


def test_a_kernel_that_was_killed_is_told_as_gone(shown):
    opened, page = shown("%llama dashboard", CALL)
    wait(page, "spans", "1")
    pid = int(opened.kernel("import os; print(os.getpid())"))
    os.kill(pid, 9)
    wait(page, "state", "kernel gone")
    opened.errors.clear()  # the page's own about its lost connection


def test_a_page_that_is_loaded_again_has_what_came_since_the_last_cell(shown):
    opened, page = shown("%llama dashboard")
    wait(page, "state", "no server")
    opened.save()
    page.wait_for_timeout(4000)  # readings of a time in which no cell ends
    rows = "() => Number(document.querySelector('.llamatelemetry').dataset.rows)"
    before = page.evaluate(rows)
    opened.reload()
    page.locator(f"{ROOT}[data-seq]").wait_for()
    assert page.evaluate(rows) >= before  # at once: what no frame will bring again
    shoot(page, "again")
    assert not page.locator("[data-llamatelemetry-static]").is_visible()
    assert opened.errors == []


def test_a_second_tab_shows_the_same(shown, browser, lab):
    opened, page = shown("%llama dashboard", CALL)
    wait(page, "spans", "1")
    opened.save()
    second = Notebook(lab, browser.context.new_page(), opened.path)
    second.page.goto(f"{lab.url}/lab/tree/{opened.path.name}?token={lab.token}&reset")
    second._wait_open(kernel=True)
    try:
        wait(second.page, "spans", "1")
        opened.kernel(CALL)
        opened.kernel("import llamatelemetry_jupyter as lt; lt.current_session().spans.flush()")
        wait(page, "spans", "2")
        wait(second.page, "spans", "2")
        assert held(opened)["feeds"] == 1
    finally:
        second.page.close()

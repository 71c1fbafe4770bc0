"""The page of %llama report in Chromium, from the file, with the network off: every tab answers, no text of it runs."""

from __future__ import annotations

import pytest
import viewworld as world
from dashboardpage import ATTACK
from rig import Browser

from llamatelemetry_jupyter import reporting
from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.session import Session

pytestmark = pytest.mark.browser


@pytest.fixture
def session():
    made = Session()
    shift = now_ns() - world.T0 - 60_000_000_000
    for number in range(1, 4):
        for row in world.trace(number, number * 10, model=f"m {ATTACK}", calls=2):
            fields = {"start_ns": row.start_ns + shift, "end_ns": row.end_ns + shift}
            attributes = {"note": ATTACK, "file": "/home/somebody/x.csv"}
            if row.name.startswith("chat"):
                attributes["gen_ai.operation.name"] = "chat"
            made.spans.append(world.replace(row, **fields, attributes=attributes))
    yield made
    made.close()


def test_every_tab_answers_and_nothing_asks_for_a_kernel(session, tmp_path, browser: Browser):
    path = tmp_path / "run.html"
    path.write_text(reporting.page_of(session, 120, full=False))
    watched = browser.open_file(path)
    page = watched.page
    page.wait_for_function("() => document.querySelector('.llamatelemetry')?.dataset.drawn")
    assert page.locator('[data-field="calls"]').inner_text() == "6"
    for hidden in (".ll-server", '[data-action="pause"]'):
        assert not page.locator(hidden).first.is_visible()
    page.locator('[data-tab="traces"]').click()
    page.locator(".ll-grid .ll-line:not(.ll-head)").first.click()
    page.wait_for_selector(".ll-tree .ll-span")
    assert page.locator(".ll-tree .ll-span").count() == 9
    page.locator(".ll-tree .ll-span").nth(1).click()
    attributes = page.locator(".ll-attributes")
    attributes.locator("dd", has_text=ATTACK).wait_for()
    assert "…/x.csv" in attributes.inner_text()
    assert not page.locator('[data-action="json"]').is_visible()
    page.locator('[data-tab="graph"]').click()
    page.wait_for_selector(".ll-node")
    assert not page.locator('[data-action="export"]').is_visible()
    page.wait_for_timeout(6000)  # longer than a live dashboard waits for data before it says that none comes
    assert page.locator('[data-field="fresh"]').inner_text() == ""
    assert page.evaluate("() => window.pwned") is None
    assert (watched.errors, watched.foreign) == ([], [])
    page.close()


def test_without_scripts_there_is_the_picture(session, tmp_path):
    path = tmp_path / "run.html"
    path.write_text(reporting.page_of(session, 120, full=False))
    assert "somebody" not in path.read_text()
    with_picture = path.read_text().split("<noscript>")[1].split("</noscript>")[0]
    assert 'src="data:image/svg+xml;base64,' in with_picture
    assert "<script" not in with_picture

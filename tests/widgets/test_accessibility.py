"""axe-core finds nothing to object to in the dashboard, in any tab, light and dark, wide and narrow."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import viewworld as world
from rig import Watched

from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.browser
REPO = Path(__file__).resolve().parents[2]
AXE = REPO / "js" / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """async () => { const found = await axe.run('.llamatelemetry', {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
        rules: {region: {enabled: false}}});  // landmarks are the notebook's
    return found.violations.map(one => [one.id, one.help, one.nodes.slice(0, 3).map(n => [n.html.slice(0, 160), n.failureSummary])]); }"""


@pytest.fixture(scope="module")
def origin():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=REPO))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.parametrize("width", [900, 320])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_dashboard_has_no_barrier(origin, browser, dark, width):
    page = Watched(browser.context.new_page(), urlsplit(origin).netloc).page
    page.set_viewport_size({"width": width + 40, "height": 1000})
    page.goto(f"{origin}/js/test/harness.html")
    page.wait_for_function("() => window.harness")
    if dark:
        page.evaluate("() => document.documentElement.setAttribute('theme', 'dark')")
    page.evaluate("([s, seq]) => harness.start(s, seq)", [snapshot(**world.session()), 1])
    page.wait_for_function("() => document.querySelector('.llamatelemetry')?.dataset.drawn")
    page.add_script_tag(path=str(AXE))
    for tab in page.locator("[data-tab]").all():
        tab.click()
        page.wait_for_timeout(100)
        assert page.evaluate(_RUN) == [], tab.inner_text()
    page.close()

"""axe-core finds nothing to object to in the dashboard, in any tab, and in the tokens: light and dark, wide and narrow."""

from __future__ import annotations

import pytest
import viewworld as world
from dashboardpage import REPO
from tokenworld import ANSWER, PROMPT

from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.browser
AXE = REPO / "js" / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """async () => { const found = await axe.run('.llamatelemetry', {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
        rules: {region: {enabled: false}}});  // landmarks are the notebook's
    return found.violations.map(one => [one.id, one.help, one.nodes.slice(0, 3).map(n => [n.html.slice(0, 160), n.failureSummary])]); }"""


@pytest.mark.parametrize("width", [900, 320])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_dashboard_has_no_barrier(dashboard, dark, width):
    page = dashboard(snapshot(**world.session()), dark=dark, width=width + 40)
    page.add_script_tag(path=str(AXE))
    for tab in page.locator("[data-tab]").all():
        tab.click()
        page.wait_for_timeout(100)
        assert page.evaluate(_RUN) == [], tab.inner_text()


@pytest.mark.parametrize("width", [900, 320])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("made", [ANSWER, PROMPT], ids=["answer", "prompt"])
def test_the_tokens_have_no_barrier(tokens, made, dark, width):
    page = tokens(made.snapshot(), dark=dark, width=width + 40)
    page.add_script_tag(path=str(AXE))
    assert page.evaluate(_RUN) == []
    for opened in page.locator("summary").all():
        opened.click()
    page.locator('[data-token="3"]').focus()
    page.wait_for_timeout(100)
    assert page.evaluate(_RUN) == []

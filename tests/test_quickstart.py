"""The quickstart as a person runs it: JupyterLab, Chromium, the real engine; and its saved copy without a kernel."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from rig import to_html

REPO = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.browser, pytest.mark.engine]

QUICKSTART = REPO / "notebooks" / "01-quickstart.ipynb"
PICTURES = os.environ.get("PICTURES")  # a folder: screenshots for docs/


def shoot(page, name):
    if PICTURES:
        page.set_viewport_size({"width": 1280, "height": 1500})
        page.locator(".llamatelemetry").screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def field(page, name):
    return page.locator(f'.llamatelemetry [data-field="{name}"]').inner_text().replace(",", "")


def test_the_quickstart_runs_and_shows_what_the_store_holds(notebook, browser):
    opened = notebook(QUICKSTART)
    opened.run_all()
    page = opened.page
    totals = json.loads(
        opened.kernel(
            "import json, llamatelemetry_jupyter as lt; print(json.dumps(lt.current_session().spans.totals()))"
        )
    )
    assert totals["calls"] == 3
    assert totals["errors"] == 0
    page.wait_for_function(
        "n => document.querySelector('.llamatelemetry [data-field=spans]')?.textContent.replace(',', '') === String(n)",
        arg=totals["spans"],
    )
    assert field(page, "output_tokens") == str(totals["output_tokens"])
    assert field(page, "calls") == "3"
    assert "smollm2-135m" in field(page, "model")
    # The widget draws: its memory canvas holds more than a background.
    painted = """() => [...document.querySelectorAll('.llamatelemetry canvas')].map(c => {
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set();
        for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
        return seen.size; })"""
    page.wait_for_function(f"() => ({painted})().some(n => n > 8)")
    assert page.locator(".llamatelemetry .ll-span").count() >= 15
    # While the widget lives, the static picture is there and hidden.
    assert page.locator("[data-llamatelemetry-static]").count() == 1
    assert not page.locator("[data-llamatelemetry-static]").is_visible()
    assert page.locator(".jp-RenderedMarkdown", has_text="tokens").count() >= 3
    page.locator(".llamatelemetry").scroll_into_view_if_needed()
    shoot(page, "dashboard-light")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function("() => document.querySelector('.llamatelemetry').dataset.drawn === 'dark'")
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    shoot(page, "dashboard-dark")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    assert [e for e in opened.errors if "favicon" not in e] == []
    assert opened.foreign == []
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
    saved = json.loads(opened.path.read_text())
    outputs = [o for cell in saved["cells"] for o in cell.get("outputs", [])]
    pictures = [o for o in outputs if "data-llamatelemetry-static" in "".join(o.get("data", {}).get("text/html", ""))]
    assert len(pictures) == 1
    html = "".join(pictures[0]["data"]["text/html"])
    assert len(html) < 150_000
    assert "<script" not in html
    assert "text/plain" in pictures[0]["data"]
    # Opened by somebody else, not run: the picture and the answers are there.
    again = notebook(opened.path, wait=False)
    picture = again.page.locator("[data-llamatelemetry-static] img, .jp-RenderedHTML img[src^='data:image/svg']").first
    picture.wait_for()
    assert picture.evaluate("i => i.complete && i.naturalWidth") > 300
    assert again.page.locator(".jp-RenderedMarkdown", has_text=re.compile("tokens/s")).count() >= 1  # those on screen
    answers = [o for o in outputs if "llamatelemetry" in o.get("metadata", {})]
    assert len(answers) == 3
    assert all("tokens/s" in "".join(o["data"]["text/markdown"]) for o in answers[:2])
    # Exported and opened without a network: the same.
    offline = browser.open_file(to_html(opened.path))
    try:
        shown = offline.page.locator("[data-llamatelemetry-static] img").first
        shown.wait_for()
        assert shown.evaluate("i => i.complete && i.naturalWidth") > 300
        assert offline.page.locator(".jp-RenderedMarkdown", has_text=re.compile("tokens/s")).count() >= 2
        assert offline.page.locator("[data-llamatelemetry-static] table", has_text="smollm2-135m, ready").count() == 1
        if PICTURES:
            offline.page.locator("[data-llamatelemetry-static]").screenshot(path=str(Path(PICTURES) / "saved.png"))
    finally:
        offline.close()


def test_the_quickstart_runs_in_notebook_7(notebook):
    opened = notebook(QUICKSTART, app="notebook")
    opened.run_all()
    opened.page.wait_for_function(
        "() => document.querySelector('.llamatelemetry [data-field=calls]')?.textContent === '3'"
    )
    assert field(opened.page, "model") == "smollm2-135m"
    assert opened.page.locator(".llamatelemetry .ll-span").count() >= 15
    assert not opened.page.locator("[data-llamatelemetry-static]").is_visible()
    assert opened.failures() == []
    # Notebook 7.6's own: the first with any notebook, the second where a JupyterLab was open at the same server.
    own = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")
    assert [e for e in opened.errors if not any(words in e for words in own)] == []
    assert opened.foreign == []

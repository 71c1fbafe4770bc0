"""Dashboard, chat and graph in JupyterLab 4 and Notebook 7, each with the newest kernel and one of Kaggle's versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.engine]

PICTURES = os.environ.get("PICTURES")
CELLS = [
    "%load_ext llamatelemetry\n%llama start --ctx 1024",
    "%llama dashboard",
    "%llama chat -t 0 -n 12",
    "%%llama --max-tokens 8\nName a colour",
]
#: Notebook 7.6's own: the first with any notebook, the second where a JupyterLab was open at the same server.
OWN = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")


@pytest.mark.parametrize("kernel", ["python3", "kaggle"], ids=["newest", "kaggle"])
@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_dashboard_chat_and_graph(notebook, app, kernel):
    opened = notebook(CELLS, kernel=kernel, app=app)
    opened.run_all()
    assert opened.failures() == []
    page = opened.page
    board, chat = page.locator(".llamatelemetry:not(.ll-chat)"), page.locator(".llamatelemetry.ll-chat")
    opened.output(2)
    chat.locator('[data-field="message"]').fill("Name a colour.")
    chat.locator('[data-field="message"]').press("Enter")
    chat.locator('[data-role="assistant"][data-state="done"]').wait_for()
    # The live half: what the chat did without a cell arrives in the dashboard, and both name one model.
    opened.output(1)
    calls = "() => document.querySelector('.llamatelemetry [data-field=calls]').textContent === '2'"
    page.wait_for_function(calls)
    models = page.locator('.llamatelemetry [data-field="model"]').all_inner_texts()
    assert models == ["smollm2-135m"] * 2
    page.wait_for_function("() => document.querySelector('.ll-plan .ll-value')?.textContent.includes('MiB')")
    assert "host" in page.locator(".ll-memory").inner_text().lower() or page.locator(".ll-owner").count() > 2
    # The graph is asked for: there and back again.
    board.locator('[data-tab="graph"]').click()
    board.locator('.ll-node[data-kind="chat"]').first.wait_for()
    said = board.locator('.ll-node[data-kind="chat"]').first.get_attribute("aria-label")
    assert said.startswith("request chat smollm2-135m, 2 times"), said
    # The picture for readers without a kernel is there and hidden.
    assert page.locator("[data-llamatelemetry-static]").count() == 2
    assert not page.locator("[data-llamatelemetry-static]").first.is_visible()
    if PICTURES:
        board.screenshot(path=str(Path(PICTURES) / f"host-{app}-{kernel}.png"))
    assert [e for e in opened.errors if app == "lab" or not any(words in e for words in OWN)] == []
    assert opened.foreign == []

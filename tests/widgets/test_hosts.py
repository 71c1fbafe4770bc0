"""Dashboard, chat and graph in JupyterLab 4 and Notebook 7 with kernels of several hosts' versions, and the host check.

A real Kaggle, Colab or VS Code is not here: what is, is the versions of their kernels and widgets (constraints/).
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser
REPO = Path(__file__).resolve().parents[2]

PICTURES = os.environ.get("PICTURES")
CELLS = [
    "%load_ext llamatelemetry\n%llama start --ctx 1024",
    "%llama dashboard",
    "%llama chat -t 0 -n 12",
    "%%llama --max-tokens 8\nName a colour",
    "%llama doctor --host",
]
VERSIONS = {"python3": "ipywidgets 8.", "kaggle": "ipywidgets 8.1.5", "colab": "ipywidgets 7.7.1"}
#: What the host check asks of a page, and every one of these does.
DONE = {
    "page to kernel", "kernel to page", "bytes, page to kernel", "bytes, kernel to page", "picture beside the widget",
    "hidden while it lives", "outputs change in place",
}  # fmt: skip
#: Notebook 7.6's own: the first with any notebook, the second where a JupyterLab was open at the same server.
OWN = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")
#: JupyterLab's widgets' manager has no layout of ipywidgets 7; ours needs none.
OLD = "Module @jupyter-widgets/base, version ^1.2.0 is not registered"


def wrong(opened, app="lab", kernel="python3"):
    """Errors of the page but those that are the host's own."""
    own = (*(OWN if app == "notebook" else ()), *((OLD,) if kernel == "colab" else ()))
    return [error for error in opened.errors if not any(words in error for words in own)]


def lines(text):
    """The host check's block as a mapping."""
    first, *rest = text.strip().splitlines()
    assert first == "llamatelemetry host check"
    return {name: found.strip() for name, _, found in (line.partition(":") for line in rest)}


def answered(page):
    """The block once the page has answered everything, and the output beside it says so, too."""
    page.wait_for_function(
        """() => ['[data-field=report]', '[data-updated]'].every(
            one => document.querySelector(one)?.textContent.includes('no answer') === false)"""
    )
    return lines(page.locator('[data-field="report"]').inner_text())


@pytest.mark.engine
@pytest.mark.parametrize(
    ("app", "kernel"),
    [("lab", "python3"), ("lab", "kaggle"), ("lab", "colab"), ("notebook", "python3"), ("notebook", "kaggle")],
)
def test_dashboard_chat_and_graph(notebook, app, kernel):
    opened = notebook(CELLS, kernel=kernel, app=app)
    opened.run_all()
    assert opened.failures() == []
    page = opened.page
    board, chat = page.locator(".llamatelemetry[data-seq]"), page.locator(".llamatelemetry.ll-chat")
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
    assert page.locator('[data-owner="weights"]').inner_text().endswith("MiB")
    # The graph is asked for: there and back again.
    board.locator('[data-tab="graph"]').click()
    board.locator('.ll-node[data-kind="chat"]').first.wait_for()
    said = board.locator('.ll-node[data-kind="chat"]').first.get_attribute("aria-label")
    assert said.startswith("request chat smollm2-135m, 2 times"), said
    # The page says which cell runs, so that one which is run again knows its own.
    names = "import llamatelemetry_jupyter as lt; print(*map(len, map(str.split, lt.current_session()._held)))"
    assert opened.kernel(names) == "2 2 3"
    # The pictures for readers without a kernel are there and hidden.
    assert page.locator("[data-llamatelemetry-static]").count() == 3
    assert page.locator("[data-llamatelemetry-static]:visible").count() == 0
    if PICTURES:
        board.screenshot(path=str(Path(PICTURES) / f"host-{app}-{kernel}.png"))
    opened.output(4)
    found = answered(page)
    assert VERSIONS[kernel] in found["kernel"]
    light = page.evaluate("() => document.body.dataset.jpThemeLight")  # as another test left it
    assert found["theme"] == f"{'light' if light == 'true' else 'dark'}, by data-jp-theme-light={light}"
    assert {name for name, word in found.items() if word == "yes"} == DONE
    assert wrong(opened, app, kernel) == []
    assert opened.foreign == []


def test_the_host_checks_notebook_says_whether_it_was_saved(notebook):
    cells = nbformat.read(REPO / "notebooks" / "99-host-check.ipynb", as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code" and "sleep" not in cell.source]
    last = len(sources) - 1
    opened = notebook(sources)
    opened.run_all()
    assert opened.failures() == []
    opened.output(last)
    found = answered(opened.page)
    assert found["host"].startswith("jupyter JupyterLab 4.")
    assert "Chrome" in found["browser"]
    assert found["widget is shown"].startswith("yes, ")
    assert found["saved with its outputs"] == "not yet: save the notebook, then run this cell again"
    # The output beside it says the same, and is what a page without widgets shows.
    assert lines(opened.outputs()[last][1]["data"]["text/plain"]) == found
    if PICTURES:
        opened.page.locator(".llamatelemetry").last.screenshot(path=str(Path(PICTURES) / "check.png"))
    opened.save()
    opened.run_cell(last)
    opened.page.wait_for_function(
        "() => document.querySelector('[data-field=report]')?.textContent.includes('without the widgets')"
    )
    assert answered(opened.page)["saved with its outputs"] == "yes, without the widgets' state"
    assert wrong(opened) == []
    assert opened.foreign == []


def test_without_a_page_the_host_check_says_that_nobody_answered(tmp_path):
    from rig import execute

    book = execute(["%load_ext llamatelemetry\n%llama doctor --host"], tmp_path / "check.ipynb")
    found = lines(book.cells[0].outputs[-1].data["text/plain"])
    assert found["widget is shown"] == found["page to kernel"] == "no answer"

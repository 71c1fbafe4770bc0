"""The rig itself: a notebook runs in JupyterLab, a widget draws and talks back, on both sets of versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Browser, Notebook, execute, to_html

pytestmark = pytest.mark.browser

_WIDGET = """
import anywidget, traitlets
class Box(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
        const button = document.createElement("button");
        button.className = "rig-box"; button.textContent = "n = " + model.get("n");
        button.addEventListener("click", () => { model.set("n", model.get("n") + 1); model.save_changes(); });
        model.on("change:n", () => { button.textContent = "n = " + model.get("n"); });
        el.appendChild(button); } };'''
    n = traitlets.Int(3).tag(sync=True)
box = Box()
"""


@pytest.mark.parametrize("kernel", ["python3", "kaggle"])
def test_a_widget_draws_and_talks_to_its_kernel(notebook: Callable[..., Notebook], kernel: str) -> None:
    nb = notebook([_WIDGET, "box"], kernel=kernel)
    nb.run_all()
    button = nb.output(1).locator("button.rig-box")
    button.wait_for()
    button.click()
    nb.page.wait_for_function("() => document.querySelector('.rig-box').textContent === 'n = 4'")
    assert nb.kernel("print(box.n)") == "4"
    assert nb.failures() == []
    assert nb.errors == []
    assert nb.foreign == []


def test_a_failing_cell_is_seen(notebook: Callable[..., Notebook]) -> None:
    nb = notebook(["1 / 0", "print('never')"])
    nb.run_all()
    assert nb.failures() == ["ZeroDivisionError: division by zero"]
    assert nb.outputs()[1] == []


def test_a_saved_notebook_opens_offline_as_html(browser: Browser, tmp_path: Path) -> None:
    ran = execute(["from IPython.display import HTML", "HTML('<b class=\"rig-bold\">kept</b>')"], tmp_path / "nb.ipynb")
    assert "kept" in ran.cells[1].outputs[0].data["text/html"]
    shown = browser.open_file(to_html(tmp_path / "nb.ipynb"))
    try:
        assert shown.page.locator(".rig-bold").inner_text() == "kept"
        assert shown.foreign == []
        assert shown.errors == []
    finally:
        shown.close()

"""An executed copy of each notebook shows its pictures without its kernel: as an offline page, and untrusted in JupyterLab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rig import execute, to_html

pytestmark = [pytest.mark.browser, pytest.mark.engine]

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
#: Every picture under a selector: what it is, and how wide it is when its page has read it.
WIDTHS = """async selector => { const all = [...document.querySelectorAll(selector + ' img')];
    for (const one of all) { one.loading = 'eager'; await one.decode().catch(() => {}); }
    return all.map(one => [one.alt || one.src.slice(0, 60), one.naturalWidth]); }"""


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def ran(request, tmp_path_factory):
    """The notebook after it ran without a reader, and how many pictures its outputs hold."""
    path = tmp_path_factory.mktemp(request.param.stem) / request.param.name
    book = execute(request.param, path)
    html = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    return path, len(re.findall(r'<img[^>]+src="data:image/', html))


def test_as_a_page_without_a_network(ran, browser):
    path, pictures = ran
    offline = browser.open_file(to_html(path))
    try:
        widths = offline.page.evaluate(WIDTHS, ".jp-OutputArea-output")
        assert len(widths) == pictures
        assert [one for one in widths if one[1] < 200] == []
        assert offline.page.locator(".jp-OutputArea-output").count() >= 3
        # Nothing but plotly's script, which a figure of it cannot do without, is asked for.
        assert [
            url for url in offline.foreign if "plot" not in url and "html-manager" not in url and "require" not in url
        ] == []
    finally:
        offline.close()


def test_untrusted_in_jupyterlab(ran, notebook):
    path, pictures = ran
    book = notebook(path, wait=False)
    trusted = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.some(c => c.metadata.trusted)"
    assert not book.page.evaluate(trusted)
    seen = {}
    for cell in range(book.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length")):
        output = book.output(cell)  # JupyterLab draws what is near the screen
        for image in output.locator("img[src^='data:image/']").all():
            image.evaluate("async i => { await i.decode().catch(() => {}); }")
            seen[cell, image.get_attribute("src")] = image.evaluate("i => i.naturalWidth")
    assert len(seen) == pictures
    assert [width for width in seen.values() if width < 200] == []
    assert book.failures() == []

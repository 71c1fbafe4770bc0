"""The Traces tab in a real JupyterLab over the real engine: while nothing runs, while a cell runs, and after it."""

from __future__ import annotations

import json

import pytest
from dashboardpage import PICTURES

pytestmark = [pytest.mark.browser, pytest.mark.engine]

CELLS = [
    "%load_ext llamatelemetry",
    "%llama start smollm2-135m --ctx 2048 --slots 2",
    "%llama dashboard",
    "%%llama --max-tokens 24\nName three colours.",
    "import llamatelemetry_jupyter as lt",
    "%%llama --max-tokens 8\nAnd one more.",
]
ROWS = ".ll-tracelist .ll-rows .ll-line"
SPANS = ".ll-tree .ll-rows .ll-span"


@pytest.mark.parametrize("kernel", ["python3", "kaggle"])
def test_traces_are_read_while_nothing_runs_and_while_a_cell_runs(notebook, tmp_path, kernel):
    opened = notebook(CELLS, kernel=kernel)
    page = opened.page
    opened.run_all(timeout=240)
    assert opened.failures() == []
    opened.output(2)
    dashboard = page.locator(".llamatelemetry")
    dashboard.locator('[data-tab="traces"]').click()
    page.wait_for_function("([rows]) => document.querySelectorAll(rows).length >= 3", arg=[ROWS])
    # Every trace of the store is listed, with the tokens that the store counted.
    told = json.loads(
        opened.kernel(
            "import json; s = lt.current_session().spans; "
            "print(json.dumps([len(s.roots(99)), s.totals()['output_tokens']]))"
        )
    )
    page.wait_for_function("([rows, n]) => document.querySelectorAll(rows).length === n", arg=[ROWS, told[0]])
    out = [one for one in dashboard.locator(f'{ROWS} [data-col="output_tokens"]').all_inner_texts() if one != "n/a"]
    assert sum(map(int, out)) == told[1]
    dashboard.locator(ROWS, has_text="smollm2").nth(1).click()
    page.wait_for_function("([spans]) => document.querySelector(spans + '[data-strip]')", arg=[SPANS])
    names = dashboard.locator(f"{SPANS} .ll-span-name").all_inner_texts()
    assert [name.removeprefix("━ ").split(" ")[0] for name in names] == [
        "notebook", "chat", "p50", "queue", "prefill", "decode",
    ]  # fmt: skip
    assert "host memory used" in dashboard.locator(".ll-lane").first.inner_text()
    dashboard.locator(SPANS).nth(1).click()
    page.wait_for_function("() => document.querySelector('.ll-attributes')?.innerText.includes('gen_ai.usage')")
    assert dashboard.locator('[data-action="curl"]').is_visible()
    # A cell runs: zoom and selection go on. Where the page has a subshell, Python answers all the same; on Kaggle's
    # kernel that comes after the cell, and this is said.
    go = tmp_path / "go"
    page.evaluate(
        """code => { jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}); }""",
        f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)",
    )
    before = dashboard.locator(".ll-axis").inner_text()
    dashboard.locator(".ll-tree .ll-rows").focus()
    page.keyboard.press("+")
    page.wait_for_function("before => document.querySelector('.ll-axis').innerText !== before", arg=before)
    dashboard.locator(ROWS, has_text="smollm2").nth(0).click()
    if kernel == "kaggle":
        page.wait_for_function(
            "() => document.querySelector('.ll-traces .ll-strip').innerText.includes('running cell')"
        )
        assert dashboard.locator(SPANS).count() == 5  # as they came live
        assert dashboard.locator(f"{SPANS}[data-strip]").count() == 0
    else:
        page.wait_for_function("([spans]) => document.querySelector(spans + '[data-strip]')", arg=[SPANS])
    go.touch()
    page.wait_for_function("() => document.querySelector('.ll-traces .ll-strip').hidden", timeout=30_000)
    page.wait_for_function("([spans]) => document.querySelector(spans + '[data-strip]')", arg=[SPANS])
    assert [error for error in opened.errors if "favicon" not in error] == []
    assert opened.foreign == []
    if PICTURES:
        dashboard.screenshot(path=f"{PICTURES}/lab-traces.png")

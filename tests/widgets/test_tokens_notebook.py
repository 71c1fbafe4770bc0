"""The token widget in JupyterLab on the real engine: shown, saved, reloaded, in a batch run, after unloading."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from rig import execute, to_html

pytestmark = [pytest.mark.browser, pytest.mark.engine]
PICTURES = os.environ.get("PICTURES")
VIEW = "application/vnd.jupyter.widget-view+json"
START = "%load_ext llamatelemetry\n%llama start --ctx 2048"
HOSTILE = "a <script>window.pwned = 1</script>\t🦙 <|im_start|>\n\u202eb"
CELLS = [
    START,
    f"%%llama tokens --raw\n{HOSTILE}",
    "%%llama --logprobs -t 0 -n 40\nWhy is the sky blue?",
    "%llama tokens --answer",
]


@pytest.mark.parametrize("kernel", ["python3", "kaggle"])
def test_tokens_of_a_prompt_and_an_answer(notebook, kernel):
    book = notebook([*CELLS, "t = %llama tokens Hi", "t"], kernel=kernel)
    book.run_all()
    assert book.failures() == []
    outputs = book.outputs()
    for cell in (1, 3, 5):
        widget, twin = outputs[cell]
        assert (VIEW in widget["data"], "text/html" in widget["data"]) == (True, False)
        assert {"text/html", "text/plain"} == set(twin["data"])
    assert outputs[4] == [], "an assignment shows nothing"
    page = book.page
    book.output(1)
    prompt = page.locator(".llamatelemetry.ll-tokens").first
    prompt.locator(".ll-token").first.wait_for()
    assert "prompt" in prompt.inner_text()
    assert page.locator("[data-llamatelemetry-static]").first.is_hidden(), "the strip is for pages without widgets"
    assert page.evaluate("() => window.pwned") is None
    output = book.output(3)
    answer = output.locator(".llamatelemetry.ll-tokens")
    answer.locator(".ll-token").first.wait_for()
    said = book.kernel("print(''.join(t.text for t in _llama.tokens if t.kind == 'text') == _llama.text, _llama.model)")
    assert said == "True smollm2-135m"
    first = answer.locator(".ll-token").first
    first.focus()
    page.keyboard.press("ArrowRight")
    assert "token 2 of" in answer.locator(".ll-detail").inner_text()
    assert answer.locator(".ll-detail tbody tr").count() >= 5
    # It needs no kernel, and the page that is loaded again asks it for the same.
    page.keyboard.press("End")
    assert answer.locator('[aria-selected="true"]').get_attribute("data-token") != "1"
    for theme in ("Light", "Dark"):
        book.set_theme(f"JupyterLab {theme}")
        page.wait_for_timeout(500)
        assert answer.get_attribute("data-theme") == theme.lower()
        if PICTURES and kernel == "python3":
            answer.screenshot(path=str(Path(PICTURES) / f"tokens-{theme.lower()}.png"))
    book.save()
    book.reload()
    book.output(3)
    page.locator(".llamatelemetry.ll-tokens .ll-token").first.wait_for()
    assert (book.errors, book.foreign) == ([], [])


def test_a_saved_notebook_and_a_batch_run_show_the_strip(browser, tmp_path):
    path = tmp_path / "batch.ipynb"
    book = execute(CELLS, path)
    for cell in (book.cells[1], book.cells[3]):
        (only,) = cell.outputs
        assert only.output_type == "execute_result", "no widget where nobody watches"
        assert VIEW not in only.data
        assert len(only.data["text/html"]) < 150_000
    assert "logprob  probability  instead" in book.cells[3].outputs[0].data["text/plain"]
    html = browser.open_file(to_html(path))
    page = html.page
    page.get_by_text("As a table").first.wait_for()
    assert page.evaluate("() => window.pwned") is None
    assert page.locator("sub", has_text="−").count() > 10
    assert page.locator("details table").count() == 2
    html.close()


def test_an_untrusted_notebook_shows_the_strip(notebook, tmp_path):
    path = tmp_path / "other.ipynb"
    execute(CELLS, path)
    saved = nbformat.read(path, as_version=4)
    for cell in saved.cells:
        cell.metadata["trusted"] = False
    nbformat.write(saved, path)
    book = notebook(path, wait=False)
    output = book.output(3)
    chip = output.locator("span[title^='token 0']")
    chip.wait_for()
    assert chip.evaluate("e => getComputedStyle(e).display") == "inline-block"
    if PICTURES:
        output.screenshot(path=str(Path(PICTURES) / "tokens-untrusted.png"))
    assert book.page.evaluate("() => window.pwned") is None
    assert "perplexity" in output.inner_text()


def test_after_unloading_the_value_shows_itself_as_plain_html(notebook):
    book = notebook([START, "t = %llama tokens Hi there", "%unload_ext llamatelemetry", "t"])
    book.run_all()
    (only,) = book.outputs()[3]
    assert only["output_type"] == "execute_result"
    assert VIEW not in only["data"]
    assert "token 0" in "".join(only["data"]["text/html"])

"""The chat in JupyterLab and Chromium on the real engine: what a person types, sees, stops, and must never be able to run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hostile import LIVE, SAFE
from rig import Watched, to_html

pytestmark = [pytest.mark.browser, pytest.mark.engine]

PICTURES = os.environ.get("PICTURES")
START = "%load_ext llamatelemetry\n%llama start --ctx 2048"
SEA = "Tell me about the sea."
#: What hangs out of the chat.
OUTSIDE = """() => { const root = document.querySelector('.ll-chat'), frame = root.getBoundingClientRect(), out = [];
    for (const e of root.querySelectorAll('*')) { const r = e.getBoundingClientRect();
        if (e.getClientRects().length && r.width && !e.closest('pre, .ll-scroll, .ll-sr') && r.right > frame.right + 1)
            out.push([e.className, r.right - frame.right]); }
    return out; }"""
TURNS = """
from llamatelemetry_jupyter.conversation import Said
import llamatelemetry_jupyter as lt
panel = [held for name, held in lt.current_session()._held.items() if name.startswith('chat ')][-1]
talk = panel.conversation
"""


@pytest.fixture
def chat(notebook):
    """``chat(cell, kernel=…)``: a notebook whose last cell shows a chat; no error may have come, no host been asked."""
    opened = []

    def show(cell="%llama chat -t 0 -n 150", *, kernel="python3", first=START):
        book = notebook([first, cell], kernel=kernel)
        opened.append(book)
        book.run_all()
        book.output(1)
        root = book.page.locator(".llamatelemetry.ll-chat")
        root.wait_for()
        return book, root

    yield show
    assert all((book.errors, book.foreign) == ([], []) for book in opened), [(b.errors, b.foreign) for b in opened]


def shoot(root, name):
    if PICTURES:
        root.screenshot(path=str(Path(PICTURES) / f"chat-{name}.png"))


def answered(root, count=1, state="done"):
    root.locator(f'[data-role="assistant"][data-state="{state}"]').nth(count - 1).wait_for(timeout=120_000)


def focused(page):
    return page.evaluate("() => document.activeElement.dataset.action ?? document.activeElement.dataset.field ?? ''")


def tab_to(page, wanted, key="Tab"):
    for _ in range(60):
        if focused(page) == wanted:
            return
        page.keyboard.press(key)
    raise AssertionError(f"no {wanted} within reach of {key}")


def test_a_conversation_by_keyboard_alone(chat):
    book, root = chat()
    page = book.page
    root.locator('[data-field="message"]').focus()
    page.keyboard.type("Name three")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("colours.")
    page.keyboard.press("Enter")
    answered(root)
    assert root.locator('[data-role="user"] .ll-said').inner_text() == "Name three\ncolours."
    assert focused(page) == "message"
    assert page.evaluate("() => document.activeElement.value") == ""
    facts = root.locator('[data-role="assistant"] [data-field="facts"]').inner_text()
    facts = facts.removeprefix("■ stopped at the token limit · ")
    assert re.fullmatch(r"[\d,]+ tokens · [\d.]+ m?s · [\d.]+ tokens/s · first token [\d.]+ m?s", facts), facts
    said = root.locator('[role="status"]').inner_text()
    assert said.startswith("Model: ")
    # Edit what was said, and let it be answered again.
    tab_to(page, "edit", "Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("Name three animals.")
    page.keyboard.press("Enter")
    root.locator('[data-turn="4"][data-state="done"]').wait_for()
    assert root.locator(".ll-turn").count() == 2
    assert root.locator('[data-role="user"] .ll-said').inner_text() == "Name three animals."
    tab_to(page, "regenerate", "Shift+Tab")
    page.keyboard.press("Enter")
    root.locator('[data-turn="6"][data-state="done"]').wait_for()
    tab_to(page, "trace", "Shift+Tab")
    page.keyboard.press("Space")
    command = root.locator(".ll-trace code").inner_text()
    trace = command.removeprefix("%llama trace ")
    rows = book.kernel(TURNS + f"print([r.name for r in lt.current_session().spans.rows(trace_id='{trace}')])")
    assert "chat smollm2-135m" in rows
    # A long answer, stopped.
    tab_to(page, "clear")
    page.keyboard.press("Space")
    root.get_by_text("Nothing was said yet.").wait_for()
    tab_to(page, "message", "Shift+Tab")
    page.keyboard.type(SEA)
    page.keyboard.press("Enter")
    root.locator('[data-state="running"] .ll-open > *').first.wait_for()
    assert root.get_attribute("data-state") == "generating"
    page.keyboard.press("Escape")
    root.locator('[data-role="assistant"][data-state="stopped"]').wait_for(timeout=3000)
    assert "stopped" in root.locator('[data-turn="8"] [data-field="facts"]').inner_text()
    assert "stopped" in book.outputs()[1][-1]["data"]["text/plain"]


def test_parameters_and_errors(chat):
    book, root = chat("%llama chat")
    page = book.page
    root.get_by_text("Parameters").click()
    root.locator('[data-parameter="max_tokens"]').fill("4")
    root.locator('[data-parameter="temperature"]').fill("-1")
    root.locator('[data-parameter="system"]').fill("Be a poet.")
    message = root.locator('[data-field="message"]')
    message.fill(SEA)
    message.press("Enter")
    strip = root.locator('.ll-strip[role="alert"]')
    strip.wait_for()
    assert "temperature must be a number at least 0" in strip.inner_text()
    assert message.input_value() == SEA  # nothing typed is lost
    root.locator('[data-parameter="temperature"]').fill("0")
    message.press("Enter")
    answered(root)
    assert (
        "stopped at the token limit · 4 tokens"
        in root.locator('[data-role="assistant"] [data-field="facts"]').inner_text()
    )
    assert strip.is_hidden()
    told = json.loads(book.kernel(TURNS + "import json; print(json.dumps(talk.parameters))"))
    assert told == {"temperature": 0, "max_tokens": 4, "system": "Be a poet."}
    shoot(root, "parameters")
    root.locator('[data-action="cells"]').click()
    root.get_by_text("The cells are below this one.").first.wait_for()
    model = "window.jupyterapp.shell.currentWidget.content.model"
    cells = page.evaluate(f"() => {model}.toJSON().cells.map(c => [c.cell_type, [c.source].flat().join('')])")
    assert cells[2] == ["code", f'%%llama --raw -s "Be a poet." -t 0 -n 4\n{SEA}']
    assert cells[3][0] == "markdown"
    root.locator('[data-action="clear"]').click()
    root.get_by_text("Nothing was said yet.").wait_for()


def test_a_page_that_is_loaded_again_and_a_second_tab_have_it_all(chat, browser):
    book, root = chat("%llama chat -t 0 -n 250")
    message = root.locator('[data-field="message"]')
    message.fill(SEA)
    message.press("Enter")
    root.locator('[data-state="running"] .ll-open > *').first.wait_for()
    book.save()
    book.reload()
    book.output(1)
    root.wait_for()
    second = Watched(browser.context.new_page(), book.lab.url.partition("://")[2])
    second.page.goto(f"{book.lab.url}/lab/workspaces/second/tree/{book.path.name}?token={book.lab.token}")
    other = second.page.locator(".llamatelemetry.ll-chat")
    other.wait_for()
    answered(root)
    answered(other)
    whole = book.kernel(TURNS + "print(talk.turns[-1].text)")
    squeezed = re.sub(r"\s+", "", whole)
    for where in (root, other):
        assert re.sub(r"\s+", "", where.locator('[data-role="assistant"] .ll-said').inner_text()) == squeezed
    # What one tab says, the other shows.
    other.locator('[data-field="message"]').fill("Name three colours.")
    other.locator('[data-action="send"]').click()
    answered(root, 2)
    assert second.errors == []
    second.close()


def test_a_restarted_kernel_leaves_the_last_state_and_says_why(chat):
    book, root = chat()
    root.locator('[data-field="message"]').fill("Name three colours.")
    root.locator('[data-action="send"]').click()
    answered(root)
    text = root.locator('[data-role="assistant"] .ll-said').inner_text()
    book.page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"
    )
    strip = root.locator('.ll-strip[role="alert"]')
    strip.wait_for()
    assert "The kernel was restarted" in strip.inner_text()
    assert root.get_attribute("data-state") == "unreachable"
    assert root.locator('[data-role="assistant"] .ll-said').inner_text() == text
    shoot(root, "gone")
    book.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )
    book.run_all()
    root.locator('[data-field="message"]').fill("Name three colours.")
    root.locator('[data-action="send"]').click()
    answered(root)


def test_stop_works_on_kaggles_kernel_and_a_busy_one_says_so(chat):
    book, root = chat("%llama chat -t 0 -n 900", kernel="kaggle")
    message = root.locator('[data-field="message"]')
    message.fill(SEA)
    message.press("Enter")
    root.locator('[data-state="running"] .ll-open > *').first.wait_for()
    root.locator('[data-action="stop"]').click()
    answered(root, state="stopped")
    # While a cell runs, this kernel hears nothing; an answer of before it goes on.
    root.locator('[data-action="clear"]').click()
    root.get_by_text("Nothing was said yet.").wait_for()
    message.fill(SEA)
    message.press("Enter")
    root.locator('[data-turn="4"][data-state="running"] .ll-open > *').first.wait_for()
    book.page.evaluate(
        """() => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute(
            {code: 'import time; time.sleep(3)'}); }"""
    )
    before = len(root.locator('[data-turn="4"] .ll-said').inner_text())
    root.locator('[data-action="stop"]').click()
    root.get_by_text("The kernel is busy").wait_for()
    book.page.wait_for_function(
        "n => document.querySelector('[data-turn=\"4\"] .ll-said').innerText.length > n", arg=before
    )
    answered(root, state="stopped")
    root.locator('.ll-strip[role="alert"]').wait_for(state="hidden")


def test_nothing_that_a_model_or_a_user_writes_runs(chat, browser):
    """In the notebook and in its saved page; every field of a turn is in test_hostile_text.py."""
    book, root = chat()
    attacks = [word for word in SAFE if len(word) < 200][::5]
    book.kernel(
        TURNS
        + f"""
for n, attack in enumerate({attacks!r}):
    talk.turns.append(Said(1000 + 2 * n, 'user', attack, model=attack))
    talk.turns.append(Said(1001 + 2 * n, 'assistant', attack, model=attack, reasoning=attack, state='failed',
        finish_reason=attack, trace_id=attack, error={{'what': attack, 'hint': attack}}))
talk._changed()
"""
    )
    root.locator(f'[data-turn="{1001 + 2 * len(attacks) - 2}"]').wait_for()
    assert book.page.evaluate(LIVE, ".ll-chat") == []
    root.locator(".ll-log").hover()
    shoot(root, "hostile")
    # Messages and states that are none leave the widget as it is.
    shown = root.locator(".ll-turn").count()
    book.kernel(
        TURNS
        + """
for strange in (None, 5, 'x', [], {}, {'type': 'piece'}, {'type': 'piece', 'turn': 1001, 'seq': 'x', 'text': {}},
                {'type': 'reply'}, {'type': 'reply', 'id': {}}, {'type': 'piece', 'turn': {}, 'seq': 10**400, 'text': 'x'}):
    try: panel._widget.send(strange)
    except Exception as error: print(type(error))
panel._widget.about = {'model': 5, 'server': [], 'hint': 'x', 'parameters': 'x', 'omitted': 'x'}
panel._widget.turns = [{}, {'id': 'x'}, *panel.conversation.shown()]
"""
    )
    book.page.wait_for_timeout(300)
    assert root.locator(".ll-turn").count() == shown
    # The page that is kept: the twin of the same words.
    html = to_html(book.save())
    kept = browser.open_file(html)
    kept.page.wait_for_timeout(300)
    assert kept.page.evaluate(LIVE, ".jp-OutputArea-output") == []
    assert kept.page.get_by_text(attacks[0]).count()
    kept.close()


def test_code_and_markdown_in_both_themes_and_narrow(chat):
    book, root = chat()
    text = Path(__file__).with_name("answer.md").read_text()
    book.kernel(
        TURNS
        + f"""
talk.turns.append(Said(1, 'user', 'Show me what you can write, please: a list, a table and code.'))
talk.turns.append(Said(2, 'assistant', {text!r}, model='smollm2-135m', tokens=412, seconds=7.4, ttft_s=0.21,
    tokens_per_s=56.3, finish_reason='stop', reasoning='The user wants an example.', dropped=2))
talk.turns.append(Said(3, 'user', 'And now?'))
talk.turns.append(Said(4, 'assistant', 'It broke', state='failed', seconds=1.0,
    error={{'what': 'the connection to http://127.0.0.1:1 was lost', 'hint': '%llama status'}}))
talk._changed()
"""
    )
    root.locator('[data-turn="4"]').wait_for()
    book.page.evaluate("() => document.querySelector('.ll-log').style.maxHeight = 'none'")
    assert root.locator(".ll-code .ll-keyword").first.inner_text() == "def"
    assert root.locator("table td").count() == 4
    for theme in ("Light", "Dark"):
        book.set_theme(f"JupyterLab {theme}")
        for width in (None, "320px"):
            root.evaluate("(e, w) => { e.style.width = w ?? ''; }", width)
            book.page.wait_for_timeout(300)
            assert book.page.evaluate(OUTSIDE) == []
            shoot(root, f"{theme.lower()}{width or ''}")
    book.set_theme("JupyterLab Light")
    root.locator(".ll-code").get_by_role("button").click()


def test_three_dashboards_and_a_long_answer_add_less_than_a_megabyte(notebook):
    book = notebook([START, "%llama dashboard", "%llama dashboard", "%llama dashboard", "%llama chat -t 0 -n 2000"])
    book.run_all()
    book.output(4)
    book.page.locator(".ll-chat").wait_for()
    # The size of an answer's text counts, not who wrote it: 2,000 words, and their marks.
    book.kernel(
        TURNS
        + """
talk.turns += [Said(1, 'user', 'Write two thousand words.'), Said(2, 'assistant', '**words** of it ' * 667, tokens=2000)]
talk._changed()
"""
    )
    book.page.locator('[data-turn="2"]').wait_for()
    state = "import ipywidgets, json; print(len(json.dumps(ipywidgets.Widget.get_manager_state())))"
    stored = int(book.kernel(state)) + len(json.dumps(book.outputs()))
    assert "words" in json.dumps(book.outputs()[4])
    assert 200_000 < stored <= 1_000_000, stored

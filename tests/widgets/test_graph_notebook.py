"""The dashboard's graph in JupyterLab, of a session with the real engine: seen, opened, and sent to a server of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from graphistryhub import hub

pytestmark = [pytest.mark.browser, pytest.mark.engine]
__all__ = ["hub"]

PICTURES = os.environ.get("PICTURES")
SPAN = """from opentelemetry import trace
with trace.get_tracer('mine').start_as_current_span('<img src=x onerror=window.pwned=1>'):
    pass"""
#: Nobody else runs meanwhile: a front end of today may reach a kernel that merely runs a cell (subshells).
HOLD = "import ctypes; ctypes.PyDLL(None).usleep(3_000_000)"
CELLS = [
    "%load_ext llamatelemetry",
    "%llama start smollm2-135m --ctx 2048 --slots 2",
    "%llama chat --max-tokens 8 Say hello",
    "%%llama --max-tokens 8\nName a colour",
    SPAN,
    "%llama dashboard",
]


def shoot(page, name):
    if PICTURES:
        page.locator(".llamatelemetry").screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def test_a_session_is_seen_opened_and_sent(notebook, hub):
    account = {name: value for name, value in os.environ.items() if name.startswith("GRAPHISTRY_")}
    opened = notebook(
        [f"import os; os.environ |= {account!r} | dict(NO_PROXY='127.0.0.1', no_proxy='127.0.0.1')", *CELLS]
    )
    opened.run_all()
    assert opened.failures() == []
    page = opened.page
    opened.output(len(CELLS))
    page.locator('.llamatelemetry [data-tab="graph"]').click()
    chat = page.locator('.ll-node[data-kind="chat"]')
    chat.wait_for()
    said = [one.get_attribute("aria-label") for one in page.locator(".ll-node").all()]
    for beginning in (
        "notebook notebook",
        "trace trace ",
        "request chat smollm2-135m, 2 times, p50",
        "decode decode, 2 times",
        "other span server start smollm2-135m",
        "model smollm2-135m, 3 times",
        "device CPU, 2 times",
        "other span <img src=x",
    ):
        assert [one for one in said if one.startswith(beginning)], (beginning, said)
    assert page.evaluate("() => window.pwned") is None
    assert page.locator(".llamatelemetry img").count() == 0
    shoot(page, "graph-light")
    opened.set_theme("JupyterLab Dark")
    page.wait_for_selector('.llamatelemetry[data-drawn="dark"]')
    shoot(page, "graph-dark")

    # A kernel that is held answers later; the picture stays, and moving it needs no kernel.
    nodes = page.locator(".ll-node").count()
    page.evaluate(
        """code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute(
            {code, store_history: false}); }""",
        HOLD,
    )
    page.wait_for_timeout(300)
    page.locator('[data-action="trace"]').click()
    page.wait_for_function("() => document.querySelector('[data-field=graph]').textContent.includes('kernel is busy')")
    assert page.locator(".ll-node").count() == nodes
    page.locator('[data-action="larger"]').click()
    page.wait_for_function("n => document.querySelectorAll('.ll-node').length < n", arg=nodes)
    page.locator('[data-action="session"]').click()
    page.wait_for_function("n => document.querySelectorAll('.ll-node').length >= n", arg=nodes)

    page.locator('[data-action="export"]').click()
    page.locator('[data-action="confirm"]').wait_for()
    assert hub.requests == []
    page.locator('[data-action="confirm"]').click()
    link = page.locator(".ll-export a")
    link.wait_for()
    assert link.get_attribute("href").startswith(f"http://127.0.0.1:{hub.port}/graph/graph.html?dataset=d41d8")
    arrived = b"".join(request.body for request in hub.requests if request.path.endswith("/arrow"))
    assert b"chat smollm2-135m" in arrived
    assert b"Say hello" not in arrived
    page.locator('[data-action="cancel"]').click()

    chat.click()
    page.wait_for_selector('[data-tab="traces"][aria-selected="true"]')
    page.locator('[data-tab="now"]').click()
    assert (
        page.locator('.ll-traces .ll-span[aria-selected="true"]')
        .inner_text()
        .removeprefix("\u2501 ")
        .startswith("chat smollm2-135m")
    )
    assert opened.errors == []

"""Dashboard and chat on pages as the hosts make them: their variables, classes and attributes; every text can be read."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import viewworld as world
from dashboardpage import REPO, settle
from rig import Watched

from llamatelemetry_jupyter.conversation import Said
from llamatelemetry_jupyter.views.model import snapshot

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("PICTURES")
AXE = REPO / "js" / "node_modules" / "axe-core" / "axe.min.js"
CONTRAST = """async () => { const found = await axe.run('.llamatelemetry', {runOnly: ['color-contrast']});
    return found.violations.flatMap(one => one.nodes.slice(0, 3).map(n => [n.html.slice(0, 120), n.failureSummary])); }"""
COLOURS = """() => { const root = document.querySelector('.llamatelemetry'), {backgroundColor, color, borderTopColor} =
    getComputedStyle(root); return {theme: root.dataset.theme, ground: backgroundColor, ink: color, edge: borderTopColor}; }"""
SHARE = Path(sys.prefix) / "share" / "jupyter"
if not (SHARE / "lab").exists():
    pytest.skip("JupyterLab is not in this environment", allow_module_level=True)


def lab_theme(name: str) -> str:
    """The variables of one of JupyterLab's own themes."""
    return (SHARE / "lab" / "themes" / "@jupyterlab" / f"theme-{name}-extension" / "index.css").read_text()


def stand_alone() -> str:
    """What the widgets' manager outside of JupyterLab puts on a page: JupyterLab's names with light values."""
    script = (SHARE / "nbextensions" / "jupyter-js-widgets" / "extension.js").read_text()
    found = re.search(r":root \{(?:(?!:root).)*?--jp-layout-color0: white;.*?\\n\}", script, re.DOTALL)
    return found[0].replace("\\n", "\n").replace('\\"', '"')


@dataclass(frozen=True)
class Host:
    """A page's attributes and style sheet, and what is expected of them; ``None``: our own colours."""

    dark: bool
    html: dict[str, str] = field(default_factory=dict)
    body: dict[str, str] = field(default_factory=dict)
    css: str = ""
    ground: str | None = None
    ink: str | None = None


def lab(theme: str, ground: str, ink: str) -> Host:
    dark = theme != "light"
    return Host(dark, body={"data-jp-theme-light": str(not dark).lower()}, css=lab_theme(theme), ground=ground, ink=ink)


def vscode(kind: str, ground: str, ink: str, border: str = "") -> Host:
    """What the webview of a notebook's outputs is given."""
    classes = f"vscode-{kind}" + (" vscode-high-contrast" if kind == "high-contrast-light" else "")
    names = {"editor-background": ground, "editor-foreground": ink} | ({"contrastBorder": border} if border else {})
    css = ":root {" + "".join(f"--vscode-{name}: {value};" for name, value in names.items()) + "}"
    css += "body { background: var(--vscode-editor-background) }" + stand_alone()
    body = {"class": classes, "data-vscode-theme-kind": f"vscode-{kind}"}
    return Host(kind in ("dark", "high-contrast"), body=body, css=css, ground=ground, ink=ink)


def colab(dark: bool) -> Host:
    css = stand_alone() + ("body { background: #383838 !important }" if dark else "")
    return Host(dark, html={"theme": "dark"} if dark else {}, css=css)


def kaggle(dark: bool) -> Host:
    """Nothing is known that it says: the page's own colour decides."""
    return Host(dark, css=stand_alone() + ("body { background: #202124 !important }" if dark else ""))


HOSTS = {
    "lab-light": lab("light", "#ffffff", "#000000"),
    "lab-dark": lab("dark", "#111111", "#ffffff"),
    "lab-high-contrast": lab("dark-high-contrast", "#111111", "#ffffff"),
    "vscode-light": vscode("light", "#ffffff", "#3b3b3b"),
    "vscode-dark": vscode("dark", "#1f1f1f", "#cccccc"),
    "vscode-high-contrast": vscode("high-contrast", "#000000", "#ffffff", "#6fc3df"),
    "vscode-high-contrast-light": vscode("high-contrast-light", "#ffffff", "#292929", "#0f4a85"),
    "colab-light": colab(dark=False),
    "colab-dark": colab(dark=True),
    "kaggle-light": kaggle(dark=False),
    "kaggle-dark": kaggle(dark=True),
}


@pytest.fixture
def hosted(origin, browser):
    """``hosted(host, widget, traits)``: that widget on a page of that host."""
    opened = []

    def show(host, widget, traits):
        watched = Watched(browser.context.new_page(), urlsplit(origin).netloc)
        opened.append(watched)
        page = watched.page
        page.set_viewport_size({"width": 900, "height": 1000})
        page.goto(f"{origin}/js/test/harness.html?widget={widget}")
        page.wait_for_function("() => window.harness")
        page.add_style_tag(content=host.css)
        page.evaluate(
            """([html, body]) => { for (const [e, all] of [[document.documentElement, html], [document.body, body]])
                for (const [name, value] of Object.entries(all)) e.setAttribute(name, value); }""",
            [host.html, host.body],
        )
        page.evaluate("traits => harness.begin(traits)", traits)
        page.wait_for_selector(".llamatelemetry[data-theme]")
        page.add_script_tag(path=str(AXE))
        settle(page)
        return page

    yield show
    told = [(w.errors, w.foreign) for w in opened]
    for one in opened:
        one.page.close()
    assert all(one == ([], []) for one in told), told


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


def check(page, host):
    found = page.evaluate(COLOURS)
    assert found["theme"] == ("dark" if host.dark else "light")
    assert found["ground"] == rgb(host.ground or ("#111111" if host.dark else "#ffffff"))
    assert found["ink"] == rgb(host.ink or ("#eef0f2" if host.dark else "#1f2328"))
    if "contrastBorder" in host.css:
        assert found["edge"] == rgb(re.search(r"contrastBorder: (#\w+)", host.css)[1])


@pytest.mark.parametrize("name", HOSTS)
def test_a_dashboard_can_be_read_on_every_host(hosted, name):
    host = HOSTS[name]
    page = hosted(host, "dashboard", {"snapshot": snapshot(**world.session()), "seq": 1, "static_id": ""})
    check(page, host)
    for tab in page.locator("[data-tab]").all():
        tab.click()
        settle(page)
        assert page.evaluate(CONTRAST) == [], tab.inner_text()
    page.locator('[data-tab="now"]').click()
    settle(page)
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"theme-{name}.png"))


@pytest.mark.parametrize("name", [name for name in HOSTS if "dark" in name or "contrast" in name])
def test_a_chat_can_be_read_where_it_is_dark_or_high_contrast(hosted, name):
    host = HOSTS[name]
    answer = "A **llama** says `print('hum')`:\n\n```python\n# a comment\nprint('hum', 42)\n```\n\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    failed = {"what": "the server is gone", "hint": "%llama start"}
    turns = [
        asdict(Said(1, "user", "What does a llama say?")),
        asdict(
            Said(2, "assistant", answer, model="smollm2-135m", tokens=42, seconds=1.5, ttft_s=0.1, tokens_per_s=30.0)
        ),
        asdict(Said(3, "user", "And then?")),
        asdict(Said(4, "assistant", "Hu", state="failed", error=failed)),
    ]
    about = {"server": "default", "model": "smollm2-135m", "hint": None, "omitted": 3, "parameters": {}}
    page = hosted(host, "chat", {"turns": turns, "about": about, "static_id": "", "cell_id": ""})
    check(page, host)
    page.locator(".ll-turn").nth(3).wait_for()
    assert page.evaluate(CONTRAST) == []
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"theme-chat-{name}.png"))

"""The built widgets on a page of their own, for the browser tests of their views."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from dashboardpage import REPO
from rig import Watched, served


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with served(REPO) as url:
        yield url


@pytest.fixture
def dashboard(page_of):
    """``dashboard(snapshot, dark=False, width=900)``: the page with a running dashboard."""
    return functools.partial(page_of, "dashboard", "seq")


@pytest.fixture
def tokens(page_of):
    """``tokens(snapshot, dark=False, width=900)``: the page with the widget of those tokens."""
    return functools.partial(page_of, "tokens", "tokens")


@pytest.fixture
def page_of(origin, browser):
    """``page_of(widget, mark, snapshot)``: its page, once it carries ``data-mark``; no error may have come at the end."""
    opened = []

    def show(widget, mark, made, *, dark=False, width=900, seq=1):
        watched = Watched(browser.context.new_page(), urlsplit(origin).netloc)
        opened.append(watched)
        page = watched.page
        page.set_viewport_size({"width": width, "height": 1000})
        page.goto(f"{origin}/js/test/harness.html?widget={widget}")
        page.wait_for_function("() => window.harness")
        if dark:
            page.evaluate("() => document.documentElement.setAttribute('theme', 'dark')")
        page.evaluate("([s, seq]) => harness.start(s, seq)", [made, seq])
        page.wait_for_function("mark => document.querySelector('.llamatelemetry')?.dataset[mark]", arg=mark)
        return page

    yield show
    told = [(w.errors, w.foreign) for w in opened]
    for one in opened:
        one.page.close()
    assert all(one == ([], []) for one in told), told

"""The built dashboard on a page of its own, for the browser tests of its views."""

from __future__ import annotations

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
def dashboard(origin, browser):
    """``dashboard(snapshot, dark=False, width=900)``: the page with a running widget; no error may have come at the end."""
    opened = []

    def show(made, *, dark=False, width=900, seq=1):
        watched = Watched(browser.context.new_page(), urlsplit(origin).netloc)
        opened.append(watched)
        page = watched.page
        page.set_viewport_size({"width": width, "height": 1000})
        page.goto(f"{origin}/js/test/harness.html")
        page.wait_for_function("() => window.harness")
        if dark:
            page.evaluate("() => document.documentElement.setAttribute('theme', 'dark')")
        page.evaluate("([s, seq]) => harness.start(s, seq)", [made, seq])
        page.wait_for_function("() => document.querySelector('.llamatelemetry')?.dataset.seq")
        return page

    yield show
    told = [(w.errors, w.foreign) for w in opened]
    for one in opened:
        one.page.close()
    assert all(one == ([], []) for one in told), told

"""An output that is rewritten: at most ten times a second, and never left behind."""

from __future__ import annotations

import time

import IPython.display
import pytest

from llamatelemetry_jupyter.live import Live

pytestmark = pytest.mark.floor


class ZMQInteractiveShell:
    """A kernel's shell by its name, which is all that is asked of it."""


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, with the times."""
    told = []

    def show(data, **_):
        told.append((time.monotonic(), data["text/plain"]))

    monkeypatch.setattr(IPython.display, "display", show)
    monkeypatch.setattr(IPython.display, "update_display", show)
    return told


def test_the_last_state_is_shown_without_another_call(shown):
    live = Live(ZMQInteractiveShell())
    state = ["one"]
    for _ in range(50):
        live.soon(lambda: {"text/plain": state[0]})
    state[0] = "newest"
    deadline = time.monotonic() + 5
    while len(shown) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [text for _, text in shown] == ["one", "newest"]
    assert shown[1][0] - shown[0][0] >= 0.09


def test_what_is_shown_at_the_end_is_not_overwritten(shown):
    live = Live(ZMQInteractiveShell())
    for _ in range(3):
        live.soon(lambda: {"text/plain": "growing"})
    live.update({"text/plain": "whole"})
    time.sleep(0.25)
    assert [text for _, text in shown] == ["growing", "whole"]


def test_a_terminal_gets_no_updates(shown):
    live = Live(None)
    live.soon(lambda: {"text/plain": "x"})
    live.update({"text/plain": "x"})
    assert shown == []

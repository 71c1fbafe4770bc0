"""What the dashboard's buttons do: the same as the commands, on threads, beside cells that do it too."""

from __future__ import annotations

import threading

import pytest

from llamatelemetry_jupyter import operations
from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.errors import CommandError, ServerError
from llamatelemetry_jupyter.session import Session

pytestmark = pytest.mark.engine


@pytest.fixture
def session():
    made = Session()
    yield made
    made.close()


@pytest.fixture
def press(session):
    """``press(op, **args)``: what it brings; ``press.stages`` is what it told meanwhile."""
    known, stages = operations.of(session), []

    def press(op, **args):
        return known[op](progress=lambda step: stages.append((step.what, step.fraction)), **args)

    press.stages = stages
    return press


def names(session):
    session.spans.flush()
    return [row.name for row in session.spans.rows()]


def test_a_start_without_a_word_is_the_default_model_and_leaves_the_same_spans_as_a_command(session, press):
    told = press("server.start")
    assert told == {"name": "default", "model": "smollm2-135m", "url": session.handle.url}
    assert press.stages[0] == ("starting", None)
    assert press.stages[-1] == ("ready", 1.0)
    by_button = names(session)
    press("server.stop")
    session.start("smollm2-135m")
    by_command = names(session)[len(by_button) + 1 :]
    assert by_command == by_button
    assert by_button[-1] == "server start smollm2-135m"
    assert [event.kind for event in session.events].count("ready") == 2


def test_a_start_brings_back_what_was_and_keeps_what_runs(session, press):
    first = session.start("smollm2-135m", ctx=512, slots=2)
    assert press("server.start")["url"] == first.url
    assert session.handle is first
    assert press("server.stop") == {"state": "stopped"}
    assert process_start(first.pid) is None
    press("server.start")
    assert (session.manager.settings.ctx, session.manager.settings.slots) == (512, 2)
    again = session.handle
    press("server.restart")
    assert session.handle.pid != again.pid
    assert session.manager.settings.ctx == 512
    other = press("server.start", name="second", model="smollm2-135m")
    assert {one.name for one in session.handles()} == {"default", "second"}
    assert other["name"] == "second"


def test_what_cannot_be_done_says_so(session, press):
    with pytest.raises(ServerError, match="no server was started"):
        press("server.restart")
    with pytest.raises(CommandError, match="letters, digits"):
        press("server.start", name="../x")
    owner = Session()
    try:
        handle = owner.start("smollm2-135m", ctx=512)
        session.attach(handle.url, handle.api_key)
        with pytest.raises(CommandError, match="is attached"):
            press("server.restart")
        assert press("server.stop") == {"state": "stopped"}  # let go
        assert owner.handle is handle
    finally:
        owner.close()


@pytest.mark.parametrize("round_", range(3))
def test_buttons_and_cells_at_once_leave_one_server_or_none(session, press, round_):
    failures = []

    def attempt(what):
        try:
            what()
        except ServerError as error:
            failures.append(str(error))

    threads = [
        threading.Thread(target=attempt, args=(what,))
        for what in (
            lambda: press("server.start"),
            lambda: session.start("smollm2-135m", ctx=512),
            lambda: press("server.stop"),
            lambda: press("server.start"),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all("stopped while it started" in one for one in failures), failures
    assert len(session.managers) == 1
    spawned = {event.data["pid"] for event in session.events if event.kind == "spawned"}
    left = {session.handle.pid} if session.handle else set()
    assert {pid for pid in spawned if process_start(pid) is not None} == left


def test_history_is_as_long_as_was_asked_and_a_day_at_most(session, press):
    session.sampler.start()
    made = press("history", window_s=3600)
    assert made["window_s"] == 3600
    assert press("history", window_s=1e9)["window_s"] == 86_400
    assert made["titles"]

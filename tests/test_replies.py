"""Requests of a widget's front end are answered off the main thread, each once, whatever they hold."""

from __future__ import annotations

import threading
import time

import pytest

from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.progress import Step
from llamatelemetry_jupyter.replies import Replies

pytestmark = pytest.mark.floor


def until(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def refuse(progress):
    raise CommandError("no such trace", hint="%llama spans")


def fail(progress):
    raise ZeroDivisionError("division by zero")


def double(progress, n):
    progress(Step("doubling", 1, 2))
    return {"n": 2 * n, "thread": threading.current_thread().name}


@pytest.fixture
def asked():
    sent = []
    replies = Replies(sent.append, {"double": double, "refuse": refuse, "fail": fail})

    def ask(content):
        replies.on_message(None, content)
        until(lambda: any(one["type"] == "reply" for one in sent))
        return sent

    ask.replies, ask.sent = replies, sent
    return ask


def test_an_answer_comes_from_a_thread_of_its_own_with_progress_before(asked):
    progress, reply = asked({"id": "a-1", "op": "double", "args": {"n": 4}})
    assert progress == {"type": "progress", "id": "a-1", "stage": "doubling", "fraction": 0.5}
    assert reply["data"] == {"n": 8, "thread": "llamatelemetry-request"}
    assert (reply["id"], reply["ok"]) == ("a-1", True)


def test_an_error_of_ours_says_what_happened_and_what_to_type(asked):
    (reply,) = asked({"id": 7, "op": "refuse", "args": {}})
    assert reply == {
        "type": "reply", "id": 7, "ok": False, "error": {"what": "no such trace", "hint": "%llama spans"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"id": "a", "op": "fail", "args": {}}, "ZeroDivisionError: division by zero"),
        ({"id": "a", "op": "double", "args": {"m": 1}}, "unexpected keyword argument"),
        ({"id": "a", "op": "double", "args": {"n": object}}, "TypeError"),
    ],
)
def test_any_other_error_is_told_too(asked, content, says, caplog):
    reply = asked(content)[-1]
    assert says in reply["error"]["what"]
    assert "a request of a widget failed" in caplog.text


@pytest.mark.parametrize(
    "content",
    [None, 5, "double", [], {}, {"op": "double", "args": {"n": 1}}, {"id": 1, "op": "nothing", "args": {}},
     {"id": 1, "op": "double", "args": [1]}, {"id": {}, "op": "double", "args": {}}, {"id": 1, "op": None, "args": {}}],
)  # fmt: skip
def test_what_is_no_request_is_passed_over(asked, content):
    asked.replies.on_message(None, content)
    time.sleep(0.02)
    assert asked.sent == []


def test_only_so_many_run_at_once():
    go, sent = threading.Event(), []
    replies = Replies(sent.append, {"wait": lambda progress: go.wait(20)})
    for number in range(20):
        replies.on_message(None, {"id": number, "op": "wait", "args": {}})
    assert [one["error"]["what"] for one in sent] == ["too many requests at once"] * 12
    go.set()
    until(lambda: len(sent) == 20)
    replies.on_message(None, {"id": "later", "op": "wait", "args": {}})
    until(lambda: sent[-1]["id"] == "later")


def test_where_threads_cannot_send_the_answer_is_made_in_place():
    sent = []
    Replies(sent.append, {"double": double}, threads=False).on_message(
        None, {"id": 1, "op": "double", "args": {"n": 1}}
    )
    assert sent[-1]["data"]["thread"] == threading.current_thread().name


def test_a_widget_that_is_gone_is_no_error():
    def send(content):
        raise RuntimeError("comm closed")

    replies = Replies(send, {"double": double}, threads=False)
    replies.on_message(None, {"id": 1, "op": "double", "args": {"n": 1}})

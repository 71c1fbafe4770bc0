"""A widget's requests reach a real kernel from every page, whichever page was answered before and is gone."""

from __future__ import annotations

import queue
import time

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = [pytest.mark.floor]

WIDGET = """
from llamatelemetry_jupyter.replies import Replies
from llamatelemetry_jupyter.widgets.dashboard import Dashboard
widget = Dashboard()
widget.on_msg(Replies(widget.send, {"echo": lambda progress, word: word}).on_message)
print(widget.comm.comm_id)
"""


@pytest.fixture
def client(tmp_path):
    manager, client = start_new_kernel(cwd=str(tmp_path))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def subshell(client, request, **content):
    """The reply to a request about subshells."""
    message = client.session.msg(request, content)
    client.control_channel.send(message)
    return client.get_control_msg(timeout=10)["content"]


def page(client):
    """The id of a new page's subshell; ``None`` where the kernel has none."""
    asked = client.kernel_info()
    # A slow kernel was asked more than once whether it is there: other answers may still come.
    while (told := client.get_shell_msg(timeout=20))["parent_header"].get("msg_id") != asked:
        pass
    features = told["content"].get("supported_features", [])
    return subshell(client, "create_subshell_request")["subshell_id"] if "kernel subshells" in features else None


def echo(client, comm_id, subshell_id, word, timeout_s=10):
    """What the widget answers to a request of a page; ``None`` when nothing comes."""
    content = {
        "comm_id": comm_id,
        "data": {"method": "custom", "content": {"id": word, "op": "echo", "args": {"word": word}}},
    }
    message = client.session.msg("comm_msg", content)
    message["header"]["subshell_id"] = subshell_id
    client.shell_channel.send(message)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            told = client.get_iopub_msg(timeout=0.5)
        except queue.Empty:
            continue
        data = told["content"].get("data", {})
        if told["msg_type"] == "comm_msg" and data.get("content", {}).get("id") == word:
            return data["content"]["data"]
    return None


def test_a_page_is_answered_after_the_page_that_was_answered_last_is_gone(client):
    request = client.execute(WIDGET)
    comm_id = ""
    while not comm_id:
        message = client.get_iopub_msg(timeout=60)
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == request:
            comm_id = message["content"]["text"].strip()
    first = page(client)
    assert echo(client, comm_id, first, "one") == "one"
    if first is not None:
        assert subshell(client, "delete_subshell_request", subshell_id=first)["status"] == "ok"
    second = page(client)
    assert echo(client, comm_id, second, "two") == "two"
    assert echo(client, comm_id, None, "three") == "three"

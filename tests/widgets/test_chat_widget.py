"""The chat's Python half in a real kernel: who gets a widget, what its front end may ask, what goes on by itself."""

from __future__ import annotations

import time

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.floor

VIEW = "application/vnd.jupyter.widget-view+json"


class Kernel:
    """A kernel as a front end sees it: cells with ids, comm messages, and all that comes on iopub."""

    def __init__(self, cwd):
        self.manager, self.client = start_new_kernel(cwd=str(cwd))
        self.heard = []
        self.requests = 0

    def cell(self, code, cell_id="", *, stdin=True):
        """Run a cell; returns its outputs as ``(kind, content)``."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": stdin}
        message = self.client.session.msg("execute_request", content | {"stop_on_error": False})
        message["metadata"] = {"cellId": cell_id}
        self.client.shell_channel.send(message)
        here = message["header"]["msg_id"]
        begun = len(self.heard)
        self.until(lambda m: m["parent_header"].get("msg_id") == here and self.status(m) == "idle", begun)
        kinds = ("display_data", "stream", "error")
        mine = [m for m in self.heard[begun:] if m["parent_header"].get("msg_id") == here]
        return [(m["msg_type"], m["content"]) for m in mine if m["msg_type"] in kinds]

    @staticmethod
    def status(message):
        return message["content"].get("execution_state") if message["msg_type"] == "status" else None

    def until(self, condition, begun=None, timeout_s=90):
        """The first message for which ``condition`` holds, among those since ``begun`` (now)."""
        at = len(self.heard) if begun is None else begun
        end = time.monotonic() + timeout_s
        while True:
            while at < len(self.heard):
                if condition(self.heard[at]):
                    return self.heard[at]
                at += 1
            assert time.monotonic() < end, "did not come"
            self.heard.append(self.client.get_iopub_msg(timeout=timeout_s))

    def ask(self, comm, op, **args):
        """What the widget replies to a request."""
        self.requests += 1
        content = {"method": "custom", "content": {"id": self.requests, "op": op, "args": args}}
        begun, number = len(self.heard), self.requests
        self.client.shell_channel.send(self.client.session.msg("comm_msg", {"comm_id": comm, "data": content}))
        return self.until(lambda m: custom(m).get("id") == number, begun)["content"]["data"]["content"]

    def state(self, comm):
        """The newest state that the widget has told."""
        found = {}
        for message in self.heard:
            content = message["content"]
            if message["msg_type"] in ("comm_open", "comm_msg") and content["comm_id"] == comm:
                found |= content["data"].get("state", {})
        return found

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def custom(message):
    found = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
    return found.get("content") or {}


def settled(state):
    """A condition: the newest turn is in ``state``."""

    def holds(message):
        turns = (
            message["content"].get("data", {}).get("state", {}).get("turns")
            if message["msg_type"] == "comm_msg"
            else None
        )
        return bool(turns) and turns[-1]["state"] == state

    return holds


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    assert not made.cell("%load_ext llamatelemetry")
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(kernel):
    kernel.cell("%llama start --ctx 2048")
    return kernel


def shown(kernel, cell_id, line="%llama chat -t 0 -n 20"):
    """The comm of the widget that a cell shows, and the id of its twin."""
    outputs = [content for kind, content in kernel.cell(line, cell_id) if kind == "display_data"]
    (widget,) = (one["data"][VIEW]["model_id"] for one in outputs if VIEW in one["data"])
    (twin,) = (one for one in outputs if "text/html" in one["data"])
    return widget, twin["transient"]["display_id"]


def test_the_widget_carries_its_bundle_and_its_state():
    from llamatelemetry_jupyter.widgets.chat import ChatWidget

    widget = ChatWidget(turns=[{"id": 1}], about={"model": None}, static_id="0123456789abcdef", cell_id="a")
    state = widget.get_state()
    assert "export{" in state["_esm"].replace(" ", "")
    assert len(state["_esm"]) <= 150_000
    assert ".ll-chat" in state["_css"]
    assert (state["turns"], state["about"]) == ([{"id": 1}], {"model": None})
    assert repr(widget) == "llamatelemetry chat (live; a page without widgets shows the transcript beside it)"
    widget.close()


def test_where_nobody_is_there_to_type_two_lines_say_how_to_ask(kernel):
    outputs = kernel.cell("%llama chat", stdin=False)  # as nbclient and papermill send it
    assert [kind for kind, _ in outputs] == ["stream"]
    assert outputs[0][1]["text"].splitlines() == [
        "%llama chat TEXT asks the model and shows its answer here",
        "  try: %llama chat Why is the sky blue?",
    ]
    outputs = kernel.cell("import os\nos.environ['LLAMATELEMETRY_BATCH'] = '1'\n%llama chat")
    kernel.cell("del os.environ['LLAMATELEMETRY_BATCH']")
    assert [kind for kind, _ in outputs] == ["stream"]


def test_without_a_server_the_widget_says_what_to_type(kernel):
    comm, _ = shown(kernel, "no-server")
    about = kernel.state(comm)["about"]
    assert (about["model"], about["hint"]["hint"]) == (None, "%llama start")
    reply = kernel.ask(comm, "chat.send", text="hi")
    assert (reply["ok"], reply["error"]["hint"]) == (False, "%llama start")


@pytest.mark.engine
def test_a_question_is_answered_by_a_kernel_that_runs_no_cell(served):
    comm, twin = shown(served, "one")
    assert served.state(comm)["about"]["model"] == "smollm2-135m"
    begun = len(served.heard)
    reply = served.ask(comm, "chat.send", text="Name three colours.", parameters={"temperature": 0, "max_tokens": 20})
    assert reply["ok"]
    served.until(settled("done"), begun)
    turns = served.state(comm)["turns"]
    pieces = [custom(m) for m in served.heard[begun:] if custom(m).get("type") == "piece"]
    assert turns[-1]["text"] == "".join(one["text"] for one in pieces)
    assert turns[-1]["id"] == reply["data"]
    update = served.until(lambda m: m["msg_type"] == "update_display_data", begun)["content"]
    assert update["transient"]["display_id"] == twin
    served.until(
        lambda m: m["msg_type"] == "update_display_data" and turns[-1]["text"] in m["content"]["data"]["text/plain"],
        begun,
    )
    assert served.ask(comm, "chat.turn", turn=reply["data"])["data"]["text"] == turns[-1]["text"]
    cells = served.ask(comm, "chat.cells")["data"]["cells"]
    assert [one["kind"] for one in cells] == ["code", "markdown"]


@pytest.mark.engine
def test_stop_and_interrupt_are_two_things(served):
    comm, _ = shown(served, "two", "%llama chat -t 0 -n 900")
    begun = len(served.heard)
    served.ask(comm, "chat.send", text="Tell me about the sea.")
    served.until(lambda m: custom(m).get("text"), begun)
    served.manager.interrupt_kernel()
    seq = max(custom(m).get("seq", 0) for m in served.heard[begun:])
    served.until(lambda m: custom(m).get("seq", 0) > seq + 1, begun)  # it goes on
    asked = time.monotonic()
    assert served.ask(comm, "chat.stop")["data"] is True
    served.until(settled("stopped"), begun)
    assert time.monotonic() - asked < 2
    assert served.state(comm)["turns"][-1]["finish_reason"] == "interrupted"


@pytest.mark.engine
def test_a_cell_that_runs_again_goes_on_and_another_cell_begins_anew(served):
    comm, _ = shown(served, "three")
    begun = len(served.heard)
    served.ask(comm, "chat.send", text="Name three colours.")
    again, _ = shown(served, "three")  # in the middle of the answer
    assert again != comm
    served.until(settled("done"), begun)
    assert [one["role"] for one in served.state(again)["turns"]] == ["user", "assistant"]
    assert served.state(again)["turns"][-1]["state"] == "done"
    closed = [m for m in served.heard[begun:] if m["msg_type"] == "comm_close" and m["content"]["comm_id"] == comm]
    assert closed
    other, _ = shown(served, "four")
    assert served.state(other)["turns"] == []


@pytest.mark.engine
def test_the_end_of_a_cell_brings_the_server_of_now(served):
    comm, _ = shown(served, "five")
    served.cell("%llama stop")
    served.cell("1")
    assert served.state(comm)["about"]["model"] is None
    served.cell("%llama start --ctx 2048")
    assert served.state(comm)["about"]["model"] == "smollm2-135m"


@pytest.mark.engine
def test_unloading_ends_the_answer_and_the_widget(served):
    comm, _ = shown(served, "six", "%llama chat -n 900")
    begun = len(served.heard)
    served.ask(comm, "chat.send", text="Tell me about the sea.")
    served.cell("%unload_ext llamatelemetry")
    assert [m for m in served.heard[begun:] if m["msg_type"] == "comm_close" and m["content"]["comm_id"] == comm]
    threads = served.cell("import threading; print([t.name for t in threading.enumerate() if 'chat' in t.name])")
    assert threads[0][1]["text"].strip() == "[]"
    served.cell("%load_ext llamatelemetry")

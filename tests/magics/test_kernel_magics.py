"""%llama in a real kernel: one output per answer, interrupts, a killed engine."""

from __future__ import annotations

import os
import signal
import time

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = [pytest.mark.floor, pytest.mark.engine]


class Kernel:
    """A kernel whose cells are run and whose outputs are collected as a notebook would."""

    def __init__(self, cwd):
        self.manager, self.client = start_new_kernel(cwd=str(cwd))

    def run(self, code, *, during=None, timeout=90):
        """``(reply, outputs)``; ``during(outputs)`` is called after each message until it returns true."""
        # After an error ipykernel aborts what comes at once; these cells are all meant to run.
        request = self.client.execute(code, store_history=True, stop_on_error=False)
        outputs, displays = [], {}
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "display_data":
                displays[content["transient"]["display_id"]] = len(outputs)
            if kind in ("display_data", "execute_result", "error", "stream"):
                outputs.append((kind, content))
            elif kind == "update_display_data":
                outputs[displays[content["transient"]["display_id"]]] = ("display_data", content)
            if during and during(outputs):
                during = None
        # A slow kernel was asked more than once whether it is there: other answers may still come.
        while (reply := self.client.get_shell_msg(timeout=timeout))["parent_header"].get("msg_id") != request:
            pass
        return reply["content"], outputs

    def value(self, expression):
        reply, outputs = self.run(f"print({expression})")
        assert reply["status"] == "ok", outputs
        return "".join(content["text"] for kind, content in outputs if kind == "stream").strip()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    for code in ("%load_ext llamatelemetry", "%llama start --ctx 2048"):
        reply, outputs = made.run(code)
        assert reply["status"] == "ok", outputs
    made.run("import functools, llamatelemetry_jupyter as lt, time\ns = lt.current_session()")
    yield made
    made.close()


LONG = "%%llama -n 1500 -t 0 --out long\nCount from one to five hundred, one number per line."


def endless(kernel):
    """The model does not end by itself: the disturbance always comes in the middle of the answer."""
    kernel.run("c = s.engine().client\nc.chat_stream = functools.partial(c.chat_stream, ignore_eos=True)")


def streaming(outputs):
    return any(kind == "display_data" and "text/markdown" in content["data"] for kind, content in outputs)


def test_an_answer_is_one_output_that_holds_the_final_state(kernel):
    reply, outputs = kernel.run("%%llama -n 12 -t 0\nSay <script>alert(1)</script> <img src=x onerror=alert(2)>")
    assert reply["status"] == "ok"
    assert [kind for kind, _ in outputs] == ["display_data"]
    data = outputs[0][1]["data"]
    assert "12 tokens" in data["text/markdown"]
    assert "<script" not in data["text/markdown"]
    assert "<img" not in data["text/markdown"]
    assert outputs[0][1]["metadata"]["llamatelemetry"]["output_tokens"] == 12


def test_the_value_shows_itself_in_a_later_cell(kernel):
    kernel.run("answer = %llama chat -n 4 -t 0 Hello")
    reply, outputs = kernel.run("answer")
    assert [kind for kind, _ in outputs] == ["execute_result"]
    assert "4 tokens" in outputs[0][1]["data"]["text/plain"]


def test_an_interrupt_cancels_keeps_the_text_and_marks_the_span(kernel):
    def interrupt(outputs):
        if streaming(outputs):
            kernel.manager.interrupt_kernel()
            return True
        return False

    endless(kernel)
    reply, outputs = kernel.run(LONG, during=interrupt)
    assert reply["status"] == "error"
    assert [kind for kind, _ in outputs] == ["display_data", "error"]
    assert len(outputs[1][1]["traceback"]) == 2
    assert "interrupted" in outputs[0][1]["data"]["text/markdown"]
    assert kernel.value("long.finish_reason, len(long.text) > 0") == "interrupted True"
    last = "[r for r in s.spans.rows() if r.name.startswith('chat')][-1]"
    assert kernel.value(f"{last}.status, {last}.error_type") == "error KeyboardInterrupt"
    kernel.run(
        "c = s.engine().client\nend = time.monotonic() + 10\nwhile any(x.busy for x in c.slots()) and time.monotonic() < end: time.sleep(.05)"
    )
    assert kernel.value("any(x.busy for x in c.slots())") == "False"
    assert kernel.run("%llama chat -n 2 -t 0 again")[0]["status"] == "ok"


def test_a_killed_engine_leaves_the_partial_answer_and_its_span(kernel):
    pid = int(kernel.value("__import__('llamatelemetry_jupyter').current_session().handle.pid"))

    def kill(outputs):
        if streaming(outputs):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    endless(kernel)
    reply, outputs = kernel.run(LONG, during=kill)
    assert reply["status"] == "error"
    assert [kind for kind, _ in outputs] == ["display_data", "error"]
    assert len(outputs[1][1]["traceback"]) == 2
    assert kernel.value("long.finish_reason, len(long.text) > 0") == "error True"
    last = "[r for r in s.spans.rows() if r.name.startswith('chat')][-1]"
    assert kernel.value(f"{last}.status") == "error"
    deadline = time.monotonic() + 10
    while (
        "crashed" not in (said := " ".join(kernel.run("%llama chat hi")[0].get("traceback", [])))
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    assert "killed" in said
    assert "%llama start" in said
    assert kernel.run("%llama start --ctx 2048")[0]["status"] == "ok"

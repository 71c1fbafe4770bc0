"""A server is started once, found again, watched, stopped, and never left behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.errors import GGUFError, ModelError, ServerError
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings

pytestmark = pytest.mark.engine


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def status(url, path, key=None):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    return connection.getresponse().status


@pytest.fixture
def manager():
    made = ServerManager(name="process")
    yield made
    made.stop()


def test_a_started_server_says_what_it_is(manager, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there: loopback must not ask a proxy
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "777")
    stages = []
    handle = manager.start(ServerSettings(ctx=1024), on_progress=lambda stage, fraction: stages.append(fraction))
    assert (handle.slots, handle.ctx_per_slot, handle.model.id) == (1, 1024, "smollm2-135m")
    assert urlsplit(handle.url).hostname == "127.0.0.1"
    assert stages == sorted(stages)
    assert {b.owner for b in handle.buffers} == {"weights", "kv", "compute", "output"}
    assert handle.api_key not in repr(handle)
    command = Path(f"/proc/{handle.pid}/cmdline").read_bytes()
    assert handle.api_key.encode() not in command
    assert status(handle.url, "/props", "wrong") == 401
    assert status(handle.url, "/props", handle.api_key) == 200
    assert manager.start(ServerSettings(ctx=1024)) is handle
    with pytest.raises(ServerError, match="already running") as other:
        manager.start(ServerSettings(ctx=512))
    assert "--restart" in other.value.hint
    assert status(handle.url, "/props", handle.api_key) == 200
    manager.stop()
    assert manager.state() == "stopped"
    assert manager.handle is None
    assert process_start(handle.pid) is None


def test_a_killed_engine_is_noticed_with_its_reason(manager):
    handle = manager.start(ServerSettings(ctx=512))
    os.kill(handle.pid, signal.SIGKILL)
    assert until(lambda: manager.state() == "crashed")
    assert "killed" in manager.last_crash
    assert manager.handle is None
    assert manager.start(ServerSettings(ctx=512)).pid != handle.pid


def test_a_server_can_be_started_from_any_thread(manager):
    found = []
    thread = threading.Thread(target=lambda: found.append(manager.start(ServerSettings(ctx=512))))
    thread.start()
    thread.join(60)
    assert found[0].pid == manager.handle.pid


def test_a_taken_port_is_named(manager):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerError, match="port is taken") as problem:
            manager.start(ServerSettings(ctx=512, port=taken.getsockname()[1]))
    assert problem.value.hint.startswith("%llama start")
    assert manager.state() == "crashed"


def test_bad_files_are_refused_before_an_engine_is_started(manager, tmp_path, model_path):
    cut = tmp_path / "cut.gguf"
    with model_path.open("rb") as whole:
        cut.write_bytes(whole.read(40_000_000))
    text = tmp_path / "text.gguf"
    text.write_text("not a model at all, just words")
    for path, error in ((cut, GGUFError), (text, GGUFError), (tmp_path / "gone.gguf", ModelError)):
        with pytest.raises(error) as problem:
            manager.start(ServerSettings(model=str(path)))
        assert problem.value.hint
    with pytest.raises(ModelError, match="smollm2-135m"):
        manager.start(ServerSettings(model="smolm2-135m"))


PARENT = """
import os, signal, time
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
handle = ServerManager().start(ServerSettings(ctx=512))
print(handle.pid, handle.url, handle.api_key, flush=True)
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
while True:
    time.sleep(60)
"""


def test_interrupts_of_a_cell_leave_the_server_up_and_the_end_of_the_kernel_ends_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        pid, url, key = parent.stdout.readline().split()
        for _ in range(20):
            os.killpg(parent.pid, signal.SIGINT)  # what a notebook's Stop button does
            assert parent.stdout.readline() == "interrupted\n"
        assert status(url, "/props", key) == 200
        parent.kill()
        parent.wait()
        assert until(lambda: process_start(int(pid)) is None)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()

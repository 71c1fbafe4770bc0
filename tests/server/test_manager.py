"""A server is started once, found again, watched, stopped, and never left behind."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import fakellama
import pytest
from downloadhost import File as Hosted
from downloadhost import download_host
from gpu.replay import Replay

from llamatelemetry_jupyter.environment import kernel_key, process_start, runtime_dir
from llamatelemetry_jupyter.errors import GGUFError, ModelError, ServerError
from llamatelemetry_jupyter.server import probe
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.runtime import find_runtime
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.values import ServerHandle

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
    handle = manager.start(ServerSettings(ctx=1024), on_progress=lambda step: stages.append(step.fraction))
    assert (handle.slots, handle.ctx_per_slot, handle.model.id) == (1, 1024, "smollm2-135m")
    assert urlsplit(handle.url).hostname == "127.0.0.1"
    assert stages == sorted(stages)
    assert {b.owner for b in handle.buffers} == {"weights", "kv", "compute", "output"}
    assert handle.api_key not in repr(handle)
    command = Path(f"/proc/{handle.pid}/cmdline").read_bytes()
    assert handle.api_key.encode() not in command
    assert status(handle.url, "/props", "wrong") == 401
    assert status(handle.url, "/props", handle.api_key) == 200
    assert handle.engine.startswith(("xllamacpp 20", "llama-server"))
    assert {"chat", "metrics", "slots"} <= handle.capabilities
    assert manager.start(ServerSettings(ctx=1024)) is handle
    changed = manager.start(ServerSettings(ctx=512))
    assert (changed.ctx_per_slot, process_start(handle.pid)) == (512, None)
    handle = changed
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


def test_a_block_ends_its_server_also_with_a_request_in_flight():
    with ServerManager("block") as manager:
        handle = manager.start(ServerSettings(ctx=2048, warmup=False))
        address = urlsplit(handle.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        body = json.dumps({"messages": [{"role": "user", "content": "Count."}], "max_tokens": 1500, "ignore_eos": True})
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {handle.api_key}"})
        assert until(lambda: any(s["is_processing"] for s in probe.get(handle.url, "/slots", handle.api_key)[1]))
        began = time.monotonic()
    took = time.monotonic() - began
    assert process_start(handle.pid) is None
    assert took < 5  # llama.cpp itself waits for that client, 120 s once
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.getresponse().read()
    connection.close()


def test_a_model_on_the_cpu_beside_gpus_is_an_event_and_a_warning(manager, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Replay("t4x2", at=0.0))
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    events = []
    manager._on_event = events.append
    manager.start(ServerSettings(ctx=512, warmup=False))
    ((cause, remedy),) = manager.warnings
    assert "the model runs on the CPU" in cause
    assert remedy == "%llama install --engine cuda"
    assert [e.data["cause"] for e in events if e.kind == "warning"] == [cause]
    manager.stop()
    manager.start(ServerSettings(ctx=512, warmup=False, gpu_layers=0))
    assert manager.warnings == ()


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
    assert str(runtime_dir()) in str(problem.value)  # where the log is
    manager.stop()
    assert (manager.state(), manager.last_crash) == ("stopped", None)


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


def test_events_tell_a_servers_life(manager):
    events = []
    manager._on_event = events.append
    handle = manager.start(ServerSettings(ctx=512))
    address = urlsplit(handle.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {handle.api_key}"})
    assert connection.getresponse().status == 200
    connection.close()
    assert until(lambda: any(e.kind == "request" for e in events))
    (request,) = (e for e in events if e.kind == "request")
    assert request.data["decode_tokens"] == 4
    manager.stop()
    kinds = [e.kind for e in events]
    assert kinds[0] == "spawned"
    assert kinds[-1] == "stopped"
    assert {"load_stage", "buffer", "ready"} <= set(kinds)
    assert not any(t.name == "llamatelemetry-server" for t in threading.enumerate())


def test_the_state_file_is_private_and_goes_with_the_server(manager):
    path = runtime_dir() / f"{kernel_key()}.process.server.json"
    stale = runtime_dir() / "999999999-1.default.log"
    stale.write_text("of a kernel that is gone")
    handle = manager.start(ServerSettings(ctx=512))
    assert ServerHandle.from_json(path.read_text()) == handle
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(handle.log_path).stat().st_mode & 0o777 == 0o600
    assert not stale.exists()
    os.kill(handle.pid, signal.SIGKILL)
    assert until(lambda: not path.exists())


def test_replacing_and_restarting_give_a_new_engine(manager):
    first = manager.start(ServerSettings(ctx=512))
    second = manager.start(ServerSettings(ctx=1024), replace=True)
    assert (second.ctx_per_slot, process_start(first.pid)) == (1024, None)
    assert manager.restart().ctx_per_slot == 1024
    os.kill(manager.handle.pid, signal.SIGKILL)
    assert until(lambda: manager.state() == "crashed")
    assert manager.restart().ctx_per_slot == 1024
    assert manager.state() == "ready"


def test_what_interrupts_a_start_leaves_nothing_running(manager):
    pids = []
    manager._on_event = lambda event: pids.append(event.data["pid"]) if event.kind == "spawned" else None

    def interrupt(step):
        if step.fraction and step.fraction >= 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.start(ServerSettings(ctx=512), on_progress=interrupt)
    assert process_start(pids[0]) is None
    assert (manager.state(), manager.handle) == ("stopped", None)
    with pytest.raises(ServerError, match="not ready after 0 s") as problem:
        manager.start(ServerSettings(ctx=512), timeout_s=0.0)
    assert "--timeout" in problem.value.hint
    assert process_start(pids[1]) is None


def test_a_status_tells_a_start_from_its_first_moment(manager):
    seen = []
    assert (manager.status().state, manager.asked) == ("stopped", None)
    manager.start(ServerSettings(ctx=512), on_progress=lambda *_: seen.append(manager.status()))
    assert {one.state for one in seen} >= {"starting", "loading"}
    fractions = [one.fraction for one in seen if one.fraction is not None]
    assert fractions == sorted(fractions)
    assert seen[-1].model == "smollm2-135m"
    assert seen[-1].predicted == manager.handle.predicted != ()
    ready = manager.status()
    assert (ready.state, ready.stage, ready.fraction) == ("ready", None, None)
    assert ready.predicted == manager.handle.predicted
    os.kill(manager.handle.pid, signal.SIGKILL)
    assert until(lambda: manager.status().state == "crashed")
    crash = manager.status()
    assert (crash.model, crash.reason) == ("smollm2-135m", manager.last_crash)
    assert crash.remedy.startswith("%llama start")
    assert crash.predicted == ()
    assert manager.asked.ctx == 512


def test_a_stop_ends_a_start_that_is_still_fetching(manager):
    stops = []

    def stop_at_first(*_):
        if not stops:
            stops.append(threading.Thread(target=manager.stop))
            stops[0].start()
            assert until(lambda: manager._unwanted)

    with download_host() as host:
        host.files["/slow/model.gguf"] = Hosted(b"GGUF" + bytes(32 << 20))
        with pytest.raises(ServerError, match="was stopped while it started"):
            manager.start(
                ServerSettings(model=f"{host.url}/slow/model.gguf#sha256={64 * '0'}"), on_progress=stop_at_first
            )
    stops[0].join(10)
    assert manager.state() == "stopped"
    assert manager.start(ServerSettings(ctx=512)).pid  # that stop was for that start


def test_a_forked_child_neither_has_nor_ends_its_parents_server(manager):
    handle = manager.start(ServerSettings(ctx=512))
    child = os.fork()
    if child == 0:
        manager.stop()
        os._exit(0 if manager.handle is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert status(handle.url, "/props", handle.api_key) == 200
    assert manager.handle is handle


def test_an_address_in_a_models_text_does_not_get_the_key(manager, model_path, tmp_path):
    got = []

    class Decoy(BaseHTTPRequestHandler):
        def do_GET(self):
            got.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Decoy) as decoy:
        threading.Thread(target=decoy.serve_forever, daemon=True).start()
        line = f"\n0.00.000.001 I srv          init: listening on http://127.0.0.1:{decoy.server_port}\n"
        raw = model_path.read_bytes()
        # The engine shows what the model's chat template makes of an example before it listens.
        start = raw.index(b"{% for message in messages %}")
        length = int.from_bytes(raw[start - 8 : start], "little")
        raw = raw[:start] + line.encode().ljust(length) + raw[start + length :]
        path = tmp_path / "forged.gguf"
        path.write_bytes(raw)
        try:
            handle = manager.start(ServerSettings(model=str(path), ctx=512))
            assert urlsplit(handle.url).port != decoy.server_port
            assert str(decoy.server_port) in "".join(manager.log(400))
        finally:
            decoy.shutdown()
    assert got == []


@pytest.fixture
def binary(tmp_path):
    """A real ``llama-server`` where one is on PATH, else its double around the real engine."""
    return find_runtime(shutil.which("llama-server") or fakellama.write(tmp_path / "llama-server"))


def test_a_binary_gets_the_same_settings_as_the_wheel(manager, binary, monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_TOOLS", "all")  # would let the model run commands
    settings = ServerSettings(
        ctx=1024, slots=2, threads=1, batch=256, ubatch=64, cache_type_k="q8_0", warmup=False, seed=7, flash_attention="on",
        context_shift=True, swa_full=True, cache_reuse=16, chat_template="chatml", reasoning="off", reasoning_format="none",
        reasoning_budget=9, spec_type="ngram-simple", fit=False, sleep_idle_seconds=600, load_mode="none", kv_offload=False,
        gpu_layers=0,
    )  # fmt: skip
    if "--log-jsonl" in binary.features:  # the real one has every flag
        settings = replace(
            settings, kv_unified=True, threads_batch=2, split_mode="none", main_gpu=0, tensor_split=(1,), cpu_moe="all",
            fit_margin_mib=512, draft_max=4, mmproj_offload=False,
        )  # fmt: skip
    found = []
    for runtime in (binary, find_runtime("xllamacpp")):
        handle = manager.start(settings, runtime, replace=True)
        _, props = probe.get(handle.url, "/props", handle.api_key)
        _, slots = probe.get(handle.url, "/slots", handle.api_key)
        del props["media_marker"]  # random
        found.append((props, slots, handle.slots, handle.ctx_per_slot, handle.buffers, handle.capabilities))
        command = Path(f"/proc/{handle.pid}/cmdline").read_bytes()
        assert handle.api_key.encode() not in command
        if runtime is binary:
            assert set(manager.command[1:]) <= set(command.decode().split("\0"))
            flags = {word for word in manager.command if word.startswith("--")}
        environment = Path(f"/proc/{handle.pid}/environ").read_bytes().split(b"\0")
        assert not [one for one in environment if one.startswith(b"LLAMA_ARG_")]
    sampling = found[0][0]["default_generation_settings"]["params"]
    assert (sampling["seed"], found[0][0]["chat_template"][:20]) == (7, found[1][0]["chat_template"][:20])
    assert handle.engine.startswith("xllamacpp")
    assert found[0] == found[1]
    assert found[0][2] == 2
    # The wheel has no command line: it is told as the binary's.
    assert manager.command[0] == "xllamacpp"
    assert flags <= {word for word in manager.command if word.startswith("--")} | {"--log-jsonl"}
    manager.stop()
    assert manager.command is None


def test_a_real_binary_tells_its_life_and_its_failures(manager, binary, tmp_path):
    """With the double this shows what text logs can; with a real binary also JSON lines and its own refusals."""
    events = []
    manager._on_event = events.append
    handle = manager.start(ServerSettings(ctx=512, warmup=False), binary)
    kinds = [e.kind for e in events]
    assert kinds[0] == "spawned"
    assert kinds[-1] == "ready"
    assert {"load_stage", "fit", "buffer"} <= set(kinds)
    assert {b.owner for b in handle.buffers} == {"weights", "kv", "compute", "output"}
    whole = Path(handle.log_path).read_text()
    assert ('"type":"fit_memory_breakdown"' in whole) == ("--log-jsonl" in binary.features)
    manager.stop()
    no_gguf = tmp_path / "x.gguf"
    no_gguf.write_text("not a model")
    wrong = [({"ctx": 1 << 23}, "memory is not enough")]
    if "--log-jsonl" in binary.features:
        wrong += [
            ({"lora": (str(no_gguf),)}, "the adapter .* does not belong"),
            ({"mmproj": str(no_gguf)}, "the projector .* does not belong"),
            ({"draft_model": str(no_gguf)}, "the draft model does not fit"), ({"devices": ("CUDA9",)}, "invalid device: CUDA9"),
            ({"rpc": "127.0.0.1:9"}, "RPC backend"), ({"slot_save_path": "/no/such/"}, "there is no folder /no/such/"),
            ({"chat_template": "{% bad"}, "chat template cannot be used"),
        ]  # fmt: skip
    for settings, said in wrong:
        with pytest.raises(ServerError, match=said) as problem:
            manager.start(ServerSettings(**{"ctx": 512, "warmup": False, **settings}), binary)
        assert problem.value.hint


FLOOD = """#!/bin/sh
case "$1" in --help|--version) exec {engine} "$@";; esac
head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 200 >&2
exec {engine} "$@"
"""


def test_megabytes_of_log_do_not_hold_a_start_up(manager, tmp_path):
    engine, flooding = fakellama.write(tmp_path / "engine"), tmp_path / "llama-server"
    flooding.write_text(FLOOD.format(engine=engine))
    flooding.chmod(0o755)
    handle = manager.start(ServerSettings(ctx=512, warmup=False), find_runtime(flooding))
    assert Path(handle.log_path).stat().st_size > 3_000_000  # 45 pipes full
    assert {b.owner for b in handle.buffers} == {"weights", "kv", "compute", "output"}  # read to its end


PARENT = """
import os, signal
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
handle = ServerManager().start(ServerSettings(ctx=512))
print(handle.pid, handle.url, handle.api_key, flush=True)
while True:
    signal.pause()
"""


def guards(engine):
    """Processes of the engine's session: its watcher."""
    done = subprocess.run(["ps", "-o", "pid=", "-s", str(engine)], capture_output=True, text=True, check=False)
    return done.stdout.split()


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
        assert until(lambda: not guards(int(pid)))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()

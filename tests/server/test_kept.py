"""A server that was meant to stay is found again after its kernel; nothing else stays, and nobody else's is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from llamatelemetry_jupyter.environment import kernel_key, process_start, runtime_dir
from llamatelemetry_jupyter.errors import ServerError
from llamatelemetry_jupyter.server import probe
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.server.state import State, abandoned, end_abandoned, remove_stale_files
from llamatelemetry_jupyter.session import Session

pytestmark = pytest.mark.engine

# A kernel that starts a server and ends: in good order, or by a signal.
KERNEL = """
import os, signal, sys
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
keep, how = sys.argv[1] == "keep", sys.argv[2]
manager = ServerManager("mine")
handle = manager.start(ServerSettings(ctx=512, warmup=False), keep=keep)
print(handle.pid, flush=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "lives":
    signal.pause()
"""


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def kernel(keep, how):
    process = subprocess.Popen([sys.executable, "-c", KERNEL, keep, how], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    if how != "lives":
        process.wait(20)
    process.stdout.close()
    return pid, process


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_kept_server_is_taken_over_by_the_next_kernel(how):
    pid, _ = kernel("keep", how)
    session = Session()
    try:
        (state,) = abandoned()
        assert (state.handle.pid, state.kept, state.verified()) == (pid, True, True)
        assert state.path.stat().st_mode & 0o777 == 0o600
        remove_stale_files()  # what another kernel does at its start: files of a living server stay
        assert state.path.exists()
        handle = session.attach()
        assert (handle.pid, handle.owned, handle.name) == (pid, True, "default")
        assert abandoned() == []
        assert not state.path.exists()
        assert (runtime_dir() / f"{kernel_key()}.default.server.json").exists()
        assert session.engine().chat("Hi", max_tokens=2).output_tokens == 2
        assert until(lambda: any(e.kind == "request" for e in session.events))  # its log is followed again
        manager = session.manager
        assert manager.kept
        assert manager.log(5)
        again = manager.restart(ctx=1024)
        assert (again.ctx_per_slot, again.pid != pid, process_start(pid)) == (1024, True, None)
        session.stop()
        assert process_start(again.pid) is None
    finally:
        session.close()
        end_abandoned()


def test_a_session_that_ends_leaves_what_is_kept_and_ends_the_rest():
    session = Session()
    kept = session.start("smollm2-135m", name="kept", keep=True, ctx=512, warmup=False)
    other = session.start("smollm2-135m", name="other", ctx=512, warmup=False)
    session.close()
    try:
        assert process_start(other.pid) is None
        assert probe.get(kept.url, "/props", kept.api_key)[0] == 200
        assert abandoned() == []  # this kernel lives
        assert end_abandoned() == ()
        assert process_start(kept.pid) == kept.pid_start
    finally:
        os.kill(kept.pid, signal.SIGTERM)
        assert until(lambda: process_start(kept.pid) is None)


def test_orphans_are_ended_and_a_living_kernels_server_is_not():
    alone, _ = kernel("keep", "killed")
    theirs, living = kernel("keep", "lives")
    try:
        assert [handle.pid for handle in end_abandoned()] == [alone]
        assert process_start(alone) is None
        assert process_start(theirs) is not None
    finally:
        living.kill()
        living.wait()
        assert [handle.pid for handle in end_abandoned()] == [theirs]
    assert not list(runtime_dir().glob(f"{living.pid}-*"))


def test_an_orphan_whose_guard_was_killed_is_found_and_one_that_is_being_ended_is_not():
    pid, living = kernel("no", "lives")
    watchers = [child.pid for child in psutil.Process(pid).children()]
    assert len(watchers) == 1
    os.kill(watchers[0], signal.SIGSTOP)  # a guard that has not noticed yet
    living.kill()
    living.wait()
    assert abandoned() == []
    os.kill(watchers[0], signal.SIGKILL)
    assert until(lambda: [state.handle.pid for state in abandoned()] == [pid])
    (state,) = abandoned()
    with ServerManager("heir") as one, ServerManager("late") as other:
        handle = one.adopt(state)
        assert (handle.pid, one.kept) == (pid, True)
        with pytest.raises(ServerError, match="another notebook has just taken"):
            other.adopt(state)
        assert probe.get(handle.url, "/props", handle.api_key)[0] == 200
    assert process_start(pid) is None


def test_a_state_file_that_lies_is_not_believed(tmp_path):
    with ServerManager("truth") as manager:
        handle = manager.start(ServerSettings(ctx=512, warmup=False))
        state = State.read(runtime_dir() / f"{kernel_key()}.truth.server.json")
        assert state.verified()
        assert state.settings.ctx == 512
        lies = [
            replace(handle, pid_start=handle.pid_start + 1), replace(handle, pid=os.getpid(), pid_start=process_start(os.getpid())),
            replace(handle, api_key="wrong"), replace(handle, slots=7), replace(handle, settings_hash="0" * 16),
            replace(handle, model=replace(handle.model, path="/other.gguf")), replace(handle, url="http://127.0.0.1:9"),
        ]  # fmt: skip
        for lie in lies:
            assert not replace(state, handle=lie).verified()
        with ServerManager("second") as second, pytest.raises(ServerError, match="is not the one that was kept"):
            second.adopt(replace(state, handle=lies[2]))
    # Files that are no state, or of somebody else's making, are passed over.
    for number, text in enumerate(["", "{", "[]", json.dumps({"name": 1})]):
        (runtime_dir() / f"99999999{number}-1.x.server.json").write_text(text)
    assert abandoned() == []
    remove_stale_files()
    assert not list(runtime_dir().glob("99999999*"))


def test_start_keeps_one_that_runs_only_by_a_restart(tmp_path):
    with ServerManager("later") as manager:
        first = manager.start(ServerSettings(ctx=512, warmup=False))
        kept = manager.start(ServerSettings(ctx=512, warmup=False), keep=True)
        assert kept.pid != first.pid
        assert manager.start(ServerSettings(ctx=512, warmup=False)) is kept

"""Fault campaigns: what is broken on purpose, many times at random moments, and what must never be lost.

``make faults`` runs them whole and writes build/faults/results.json; ``make test`` runs a tenth (SCALE).
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import otherservers
import psutil
import pytest
from faultproxy import fault_proxy

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.environment import kernel_key, process_start, runtime_dir
from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import ServerEvent, ServerHandle

pytestmark = pytest.mark.faults

ASK = [{"role": "user", "content": "Tell me what llamas eat and where they live."}]
FIXED = {"temperature": 0.0, "seed": 1, "ignore_eos": True}


def times(whole: int, scale: float) -> int:
    return max(3, round(whole * scale))


def until(condition: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_answer_cut_anywhere_keeps_what_came(
    server: ServerHandle, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried, survived, begun = random.Random(7), times(300, scale), 0, time.monotonic()
    client = LlamaCppClient(server.url, server.api_key, timeout_s=60)
    whole = client.chat(ASK, max_tokens=24, **FIXED).text
    with fault_proxy(server.url) as proxy:  # how long an answer is on the wire
        LlamaCppClient(proxy.url, server.api_key, timeout_s=60).chat(ASK, max_tokens=24, **FIXED)
        length = proxy.sent
    for _ in range(tried):
        after, reset = chance.randrange(length - 200), chance.random() < 0.5
        with fault_proxy(server.url, cut_after=after, reset=reset, piece=chance.choice([None, 1, 97])) as proxy:
            stream = LlamaCppClient(proxy.url, server.api_key, timeout_s=60).chat_stream(ASK, max_tokens=24, **FIXED)
            told = ""
            try:
                with stream:
                    for event in stream:
                        told += event.text if event.kind == "text" else ""
                complete = stream.answer.finish_reason == "length" and told == whole  # cut behind the finish reason
            except LlamaError:
                complete = stream.answer.finish_reason == "error" and whole.startswith(told)
        survived += complete and stream.answer.text == told
    assert until(lambda: not any(slot.busy for slot in client.slots())), "a cut request still runs"
    fault_report(
        id="answer_cut",
        what="the connection of a streamed answer cut at a random byte, FIN or RST: an error, and every token that came is kept",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


def test_an_engine_killed_mid_answer_is_noticed_and_starts_again(
    model_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried, survived, begun = random.Random(7), times(30, scale), 0, time.monotonic()
    manager = ServerManager(name="campaign")
    try:
        for _ in range(tried):
            handle = manager.start(ServerSettings(model=str(model_path), ctx=1024))
            assert handle.pid is not None
            stream = LlamaCppClient(handle.url, handle.api_key, timeout_s=60).chat_stream(ASK, max_tokens=400, **FIXED)
            told, at = "", chance.randrange(1, 30)
            try:
                with stream:
                    for event in stream:
                        told += event.text if event.kind == "text" else ""
                        if event.kind == "text" and event.index == at:
                            os.kill(handle.pid, signal.SIGKILL)
            except LlamaError:
                noticed = until(lambda: manager.state() == "crashed")
                survived += noticed and bool(told) and stream.answer.text == told and bool(manager.last_crash)
    finally:
        manager.stop()
    fault_report(
        id="engine_killed",
        what="kill -9 of the engine at a random token: the partial answer is kept, the crash is told, the next start works",
        tried=tried,
        survived=survived,
        lost=tried - survived,
        seconds=time.monotonic() - begun,
    )
    assert survived == tried


# A kernel with all of it: engine, sampler, and a stream of spans; it says so, and goes on until it is killed.
_KERNEL = """
import sys, time
import llamatelemetry_jupyter as lt
from llamatelemetry_jupyter.values import SpanRow
session = lt.current_session()
handle = session.start(sys.argv[1], ctx=512)
print(handle.pid, session.sampler.pid, session.spans.path, flush=True)
number = 0
while True:
    for _ in range(20):
        session.spans.append(SpanRow("%032x" % (number // 5 + 1), "%016x" % (number + 1), None, "x", "internal", number, number + 1))
        number += 1
    print(number, flush=True)
    time.sleep(0.01)
"""


def test_a_killed_kernel_leaves_no_process_and_its_spans(
    model_path: Path, tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried, survived, begun = random.Random(7), times(30, scale), 0, time.monotonic()
    most_lost = 0
    for turn in range(tried):
        environment = os.environ | {"LLAMATELEMETRY_DATA": str(tmp_path / str(turn))}
        kernel = subprocess.Popen(
            [sys.executable, "-c", _KERNEL, str(model_path)],
            env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert kernel.stdout is not None
        engine, sampler, path = kernel.stdout.readline().split(maxsplit=2)
        assert int(kernel.stdout.readline()) > 0
        time.sleep(chance.uniform(0, 0.8))  # the moment of the kill; nothing is waited for
        kernel.kill()
        written = int(kernel.stdout.read().split("\n")[-2])
        kernel.wait()
        ended = until(lambda pids=(int(engine), int(sampler)): not any(process_start(pid) for pid in pids))
        store = SpanStore(Path(path.strip()))
        ids = [row.span_id for row in store.rows() if row.name == "x"]  # beside those of the server's start
        store.close()
        most_lost = max(most_lost, written - len(ids))
        # A beginning of what was appended, without a hole; the tail is what one group commit holds.
        survived += ended and ids == [f"{n + 1:016x}" for n in range(len(ids))]
    fault_report(
        id="kernel_killed",
        what="kill -9 of a kernel that writes spans: engine and sampler end, the file holds every span up to the last group",
        tried=tried,
        survived=survived,
        lost=f"≤ {most_lost} spans of the last group",
        seconds=time.monotonic() - begun,
    )
    assert survived == tried
    # The files of a dead kernel (its server's key among them) go when the next one starts.
    assert len([one for one in runtime_dir().glob("*.server.json") if not one.name.startswith(kernel_key())]) <= 1


@contextmanager
def counted(id: str, what: str, tried: int, report: Callable[..., None]) -> Iterator[Callable[[bool], None]]:
    """Counts what survived, reports it, and fails when anything was lost."""
    begun, kept = time.monotonic(), [0]

    def count(survived: bool) -> None:
        kept[0] += survived

    yield count
    report(
        id=id, what=what, tried=tried, survived=kept[0], lost=tried - kept[0], seconds=time.monotonic() - begun
    )  # fmt: skip
    assert kept[0] == tried


QUICK = {"ctx": 512, "warmup": False}


def test_a_stop_during_the_load_ends_the_start(
    model_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(3), times(40, scale)
    what = (
        "stop from another thread at a random moment of a start: the start gives up, no engine is left, the next works"
    )
    with ServerManager("early") as manager, counted("stop_during_load", what, tried, fault_report) as count:
        for _ in range(tried):
            pids: list[int] = []
            manager._on_event = lambda e, pids=pids: pids.append(e.data["pid"]) if e.kind == "spawned" else None
            told: list[object] = []

            def start(told: list[object] = told) -> None:
                try:
                    told.append(manager.start(ServerSettings(str(model_path), **QUICK)))
                except LlamaError as error:
                    told.append(error)

            thread = threading.Thread(target=start)
            thread.start()
            assert until(lambda pids=pids: pids)
            time.sleep(chance.uniform(0, 0.5))  # the moment of the stop; nothing is waited for
            manager.stop()
            thread.join(30)
            gone = all(process_start(pid) is None for pid in pids)
            honest = isinstance(told[0], ServerHandle) or "stopped while it started" in str(told[0])
            count(gone and honest and manager.state() == "stopped" and manager.last_crash is None)


def test_a_stop_with_a_request_in_flight_does_not_wait_for_it(
    model_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(4), times(20, scale)
    what = "stop at a random moment of a request, streamed or not: the engine is gone within seconds, the client gets an error"
    with ServerManager("busy") as manager, counted("stop_in_flight", what, tried, fault_report) as count:
        for turn in range(tried):
            handle = manager.start(ServerSettings(str(model_path), ctx=4096, warmup=False))
            client = LlamaCppClient(handle.url, handle.api_key, timeout_s=60)
            told: list[object] = []

            def ask(client: LlamaCppClient = client, told: list[object] = told, streamed: bool = turn % 2 == 0) -> None:
                try:
                    if streamed:
                        with client.chat_stream(ASK, max_tokens=3500, **FIXED) as stream:
                            told.extend(stream)
                    else:
                        told.append(client.chat(ASK, max_tokens=3500, **FIXED))
                    told.append("whole")
                except LlamaError as error:
                    told.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            watcher = LlamaCppClient(handle.url, handle.api_key, timeout_s=60)
            assert until(lambda watcher=watcher: any(slot.busy for slot in watcher.slots()))
            time.sleep(chance.uniform(0, 0.3))  # the moment of the stop
            begun = time.monotonic()
            manager.stop()
            took = time.monotonic() - begun
            thread.join(30)
            assert handle.pid is not None
            count(process_start(handle.pid) is None and took < 8 and isinstance(told[-1], LlamaError))


def test_a_port_that_is_stolen_gets_no_key(model_path: Path, scale: float, fault_report: Callable[..., None]) -> None:
    chance, tried = random.Random(5), times(20, scale)
    what = "another program takes the chosen port between choice and bind: an error that names it, and it never sees the key"
    with ServerManager("robbed") as manager, counted("port_stolen", what, tried, fault_report) as count:
        for _ in range(tried):
            heard: list[bytes] = []
            with socket.socket() as choice:
                choice.bind(("127.0.0.1", 0))
                port = choice.getsockname()[1]
            thieves: list[socket.socket] = []
            threads: list[threading.Thread] = []

            def listen(thief: socket.socket, heard: list[bytes] = heard) -> None:
                while True:
                    try:
                        peer, _ = thief.accept()
                    except OSError:
                        return
                    with peer:
                        heard.append(peer.recv(65536))
                        peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')

            def steal(
                event: ServerEvent,
                port: int = port,
                thieves: list[socket.socket] = thieves,
                threads: list[threading.Thread] = threads,
            ) -> None:
                if event.kind != "spawned":
                    return
                time.sleep(chance.uniform(0, 0.1))
                thief = socket.socket()
                try:
                    thief.bind(("127.0.0.1", port))
                    thief.listen()
                except OSError:  # the engine was quicker
                    thief.close()
                    return
                thieves.append(thief)
                threads.append(threading.Thread(target=listen, args=(thief,)))
                threads[0].start()

            manager._on_event = steal
            try:
                handle = manager.start(ServerSettings(str(model_path), port=port, **QUICK))
                fine = not thieves and handle.url.endswith(f":{port}")
            except LlamaError as error:
                fine = bool(thieves) and f"the port is taken: {port}" in str(error)
            finally:
                for thief in thieves:
                    thief.shutdown(socket.SHUT_RDWR)
                    threads[0].join(10)
                    thief.close()
                manager.stop()
            count(fine and not any(b"Authorization" in one for one in heard))


# A kernel whose files cannot grow beyond a number of bytes: what a full disk is to the engine's log.
_FULL = """
import os, resource, sys
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
with ServerManager("full") as manager:
    handle = manager.start(ServerSettings(sys.argv[1], ctx=512, warmup=False))
    client = LlamaCppClient(handle.url, handle.api_key)
    tokens = sum(client.chat([{"role": "user", "content": "Hi"}], max_tokens=4).output_tokens for _ in range(3))
    print(tokens, manager.state(), os.path.getsize(handle.log_path))
"""


def test_a_full_disk_for_the_log_stalls_nothing(
    model_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(6), times(10, scale)
    what = "the log cannot grow beyond a random size: the engine starts, answers and stops all the same"
    with counted("log_disk_full", what, tried, fault_report) as count:
        for _ in range(tried):
            limit = chance.randrange(10_000, 16_000)  # above the state file, below the log
            done = subprocess.run(
                [sys.executable, "-c", _FULL, str(model_path), str(limit)], capture_output=True, text=True, timeout=120
            )
            count(done.returncode == 0 and done.stdout.split() == ["12", "ready", str(limit)])


def test_spoilt_answers_of_another_server_end_in_our_errors(scale: float, fault_report: Callable[..., None]) -> None:
    chance, tried = random.Random(8), times(300, scale)
    what = "attach to a server whose answers are cut, spoilt or sent byte by byte: a handle or our error, within the timeout"

    def spoil(data: bytes) -> bytes:
        spoilt = bytearray(data)
        for _ in range(chance.randrange(1, 8)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        return bytes(spoilt)

    with ServerManager("spoilt") as manager, counted("attach_spoilt", what, tried, fault_report) as count:
        for turn in range(tried):
            answer = (otherservers.vllm, otherservers.ray, otherservers.Router())[turn % 3]
            rules = ({"edit": spoil}, {"cut_after": chance.randrange(400)}, {"piece": 1, "delay_s": 0.001})[
                turn // 3 % 3
            ]
            with otherservers.serving(answer) as url, fault_proxy(url, **rules) as proxy:
                begun = time.monotonic()
                try:
                    manager.attach(proxy.url, timeout_s=1.0)
                    fine = manager.handle is not None
                except LlamaError as error:
                    fine = bool(error.hint) and manager.handle is None
                count(fine and time.monotonic() - begun < 20)
                manager.stop()


def test_many_cycles_leave_nothing_behind(model_path: Path, scale: float, fault_report: Callable[..., None]) -> None:
    tried = times(200, scale)
    what = "start and stop again and again: no process, port, descriptor, thread or file is left"
    settings = ServerSettings(str(model_path), **QUICK)

    def left() -> tuple[object, ...]:
        files = sorted(p.name for p in runtime_dir().iterdir() if ".cycle." in p.name)
        return (
            len(psutil.Process().children(recursive=True)), len(os.listdir("/proc/self/fd")),
            sorted(t.name for t in threading.enumerate()), files,
        )  # fmt: skip

    with counted("start_stop_cycles", what, tried, fault_report) as count:
        manager = ServerManager("cycle")
        manager.start(settings)
        manager.stop()  # its log and its folder of slots stay until the kernel has gone
        before = left()
        for _ in range(tried):
            handle = manager.start(settings)
            assert handle.pid is not None
            manager.stop()
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", int(handle.url.rsplit(":", 1)[1])))
            count(process_start(handle.pid) is None and until(lambda: left() == before, 10))

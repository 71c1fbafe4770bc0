"""Fault campaigns: what is broken on purpose, many times at random moments, and what must never be lost.

``make faults`` runs them whole and writes build/faults/results.json; ``make test`` runs a tenth (SCALE).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faultproxy import fault_proxy

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.environment import kernel_key, process_start, runtime_dir
from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import ServerHandle

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
        ids = [row.span_id for row in store.rows()]
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

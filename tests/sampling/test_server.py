"""Server samples: from the real engine, and from servers that answer late, not at all or something else."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from realengine import Engine, running_engine

from llamatelemetry_jupyter import environment
from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.sampling.process import SamplerProcess
from llamatelemetry_jupyter.sampling.server import LATE_S, ServerProbe, ServerWatch
from llamatelemetry_jupyter.values import EngineBuffer, ServerHandle

MIB = 1 << 20


def handle(url, **more):
    values = {"api_key": "k", "backend": "llama.cpp", "owned": False, "pid": None, "pid_start": None}
    values |= {"model": None, "slots": 2, "ctx_per_slot": 1024} | more
    return ServerHandle(name="default", url=url, **values)


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------- the real engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


def chat(engine: Engine, prompt: str, tokens: int, *, cancel_after: int | None = None) -> dict[str, int]:
    """Usage of a completion; of a cancelled one the number of chunks that were read."""
    parts = urlsplit(engine.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "ignore_eos": True}
    body["stream"] = cancel_after is not None
    headers = {"Authorization": f"Bearer {engine.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    if cancel_after is not None:
        for _ in range(2 * (cancel_after + 1)):  # an event is two lines; the first one has no token
            response.readline()
        response.close()
        connection.close()
        return {}
    usage = json.loads(response.read())["usage"]
    connection.close()
    return usage


@pytest.mark.engine
def test_while_it_generates_a_slot_is_busy_tokens_grow_and_at_the_end_they_equal_the_usage(engine):
    probe = ServerProbe(handle(engine.url, api_key=engine.key))
    before = probe.read()
    assert (before.state, before.slots_busy, before.slots, before.queued) == ("ready", 0, 2, 0)
    assert before.kv_capacity == 2048
    usages = []
    for prompt in ("Tell me about llamas. " * 8, "Tell me about llamas. " * 8):  # the second comes from the cache
        worker = threading.Thread(target=lambda p=prompt: usages.append(chat(engine, p, 60)))
        worker.start()
        seen = []
        while worker.is_alive():
            seen.append(probe.read())
            time.sleep(0.03)
        worker.join()
        busy = [s for s in seen if s.state == "generating"]
        assert busy
        assert {s.slots_busy for s in busy} == {1}
        growing = [s.output_tokens_total for s in busy]
        assert growing == sorted(growing)
        assert len(set(growing)) > 3, "no live tokens"
    after = probe.read()
    assert (after.state, after.slots_busy) == ("ready", 0)
    assert after.output_tokens_total - before.output_tokens_total == sum(u["completion_tokens"] for u in usages)
    assert after.input_tokens_total - before.input_tokens_total == sum(u["prompt_tokens"] for u in usages)
    assert usages[1]["prompt_tokens_details"]["cached_tokens"] > 0
    # The last token is never put into the cache.
    assert after.kv_tokens >= usages[1]["total_tokens"] - 1


@pytest.mark.engine
def test_cached_tokens_of_a_running_prefill_are_not_counted_twice(engine):
    probe = ServerProbe(handle(engine.url, api_key=engine.key))
    begin = "What do alpacas eat? " * 90  # more than what follows: counted twice it would be more than all
    used = [chat(engine, begin, 2)]
    before = probe.read().input_tokens_total
    worker = threading.Thread(target=lambda: used.append(chat(engine, begin + "Tell me about llamas. " * 30, 2)))
    worker.start()
    seen = []
    while worker.is_alive():
        seen.append(probe.read().input_tokens_total)
    worker.join()
    assert used[1]["prompt_tokens_details"]["cached_tokens"] > 200
    assert max(seen) - before <= used[1]["prompt_tokens"]
    assert probe.read().input_tokens_total - before == used[1]["prompt_tokens"]


@pytest.mark.engine
def test_a_cancelled_request_counts_what_it_made_and_what_follows_counts_on(engine):
    probe = ServerProbe(handle(engine.url, api_key=engine.key))
    before = probe.read().output_tokens_total
    chat(engine, "Write a long story.", 900, cancel_after=20)
    until(lambda: probe.read().state == "ready")
    between = probe.read().output_tokens_total
    assert 20 <= between - before < 900
    usage = chat(engine, "Say hello.", 5)
    assert probe.read().output_tokens_total - between == usage["completion_tokens"]


@pytest.mark.engine
def test_two_requests_at_once_make_two_busy_slots_and_a_third_one_waits(engine):
    probe = ServerProbe(handle(engine.url, api_key=engine.key))
    workers = [threading.Thread(target=chat, args=(engine, f"Count to {n}.", 60)) for n in (10, 20, 30)]
    for worker in workers:
        worker.start()
    seen = []
    while any(w.is_alive() for w in workers):
        seen.append(probe.read())
        time.sleep(0.02)
    assert max(s.slots_busy for s in seen) == 2
    assert max(s.queued for s in seen) == 1


@pytest.mark.engine
def test_the_sampler_finds_a_server_by_its_state_file_and_splits_its_memory(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path))
    pid = engine.process.pid
    buffers = (EngineBuffer("CPU", "kv", 45 * MIB), EngineBuffer("CPU_Mapped", "weights", 92 * MIB))
    served = handle(engine.url, api_key=engine.key, pid=pid, pid_start=process_start(pid), buffers=buffers, owned=True)
    state = tmp_path / f"{environment.kernel_key()}.default.server.json"
    sampler = SamplerProcess()
    wish = sampler.want(5)
    sampler.start()
    try:
        until(lambda: sampler.source.latest().devices)
        state.write_text(served.to_json()[:40])  # half a file is no server
        state.write_text(served.to_json())

        def owners():
            latest = sampler.source.latest()
            return {o.owner: o for o in latest.devices[0].owners[0]} if latest.servers else {}

        until(lambda: "kv" in owners() and owners()["kv"].filled_bytes is not None)
        found = owners()
        assert (found["kv"].bytes, found["kv"].pid, found["kv"].process) == (45 * MIB, pid, "default")
        assert 0 < found["kv"].filled_bytes < 45 * MIB
        # Pages of the file count by share: other tests' engines may map it too.
        assert 10 * MIB < found["weights"].bytes < 93 * MIB
        assert found["weights"].source == "measured"
        assert found["context"].bytes > 0
        latest = sampler.source.latest()
        assert sum(o.bytes for o in latest.devices[0].owners[0]) == latest.devices[0].total_bytes[0]
        assert latest.servers[0].state[0] == "ready"
        state.unlink()
        until(lambda: sampler.source.latest().servers[0].state[0] == "stopped")
        until(lambda: "kv" not in {o.owner for o in sampler.source.latest().devices[0].owners[0]})
    finally:
        wish.close()
        sampler.stop()
    assert sampler.log_path.read_text() == ""
    assert engine.key not in sampler.source.path.read_bytes().decode("latin-1")


_SLEEPY = """
import sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.api_keys, p.endpoint_metrics, p.endpoint_slots = sys.argv[1], ["k"], True, True
p.n_ctx, p.n_parallel, p.port, p.sleep_idle_seconds, p.warmup = 512, 1, 0, 1, False
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.engine
def test_watching_does_not_keep_a_server_awake_nor_wake_it(monkeypatch):
    monkeypatch.setattr("realengine._HOST", _SLEEPY)
    with running_engine() as engine:
        sleepy = replace(engine, key="k")
        probe = ServerProbe(handle(engine.url, slots=1))
        chat(sleepy, "Say hello.", 3)
        awake = probe.read()
        assert awake.state == "ready"
        assert awake.kv_tokens > 0

        def asleep():
            time.sleep(0.2)
            return probe.read().state == "sleeping"

        until(asleep, 20)
        for _ in range(5):
            sample = probe.read()
            assert (sample.state, sample.slots_busy, sample.kv_tokens) == ("sleeping", 0, 0)
        assert sample.output_tokens_total == awake.output_tokens_total
        usage = chat(sleepy, "Say hello.", 4)
        assert probe.read().output_tokens_total == awake.output_tokens_total + usage["completion_tokens"]


# ------------------------------------------------------------------------------------------------ servers in trouble


class Scripted(http.server.ThreadingHTTPServer):
    """Answers as the engine does, with counters and slots that a test sets; may be late, refuse, or say nonsense."""

    daemon_threads = True

    def __init__(self):
        self.counters = {"requests_processing": 0, "tokens_predicted_total": 0, "n_decode_total": 0}
        self.slots = [{"id": 0, "n_ctx": 512, "is_processing": False}]
        self.props = {"is_sleeping": False}
        self.status: dict[str, int] = {}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.gate.wait(30)
        metrics = "".join(f"# TYPE x counter\nllamacpp:{k} {v}\n" for k, v in self.server.counters.items())
        texts = {
            "/metrics": metrics,
            "/slots": json.dumps(self.server.slots),
            "/props": json.dumps(self.server.props),
            "/v1/models": "{}",
        }
        body = texts.get(self.path, "").encode()
        self.send_response(self.server.status.get(self.path, 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_there_is_unreachable_and_a_dead_process_of_ours_has_crashed():
    url = f"http://127.0.0.1:{free_port()}"
    assert ServerProbe(handle(url)).read().state == "unreachable"
    gone = handle(url, owned=True, pid=2**22 - 1, pid_start=5.0)
    sample = ServerProbe(gone).read()
    assert (sample.state, sample.slots_busy, sample.output_tokens_total) == ("crashed", None, None)


@pytest.mark.parametrize(("status", "state"), [(503, "loading"), (401, "unreachable"), (500, "unreachable")])
def test_refusals(scripted, status, state):
    scripted.status = dict.fromkeys(("/metrics", "/props", "/slots"), status)
    probe = ServerProbe(handle(scripted.url))
    assert probe.read().state == state
    scripted.status = {}
    assert probe.read().state == "ready"


def test_an_idle_server_is_asked_for_its_slots_once(scripted):
    probe = ServerProbe(handle(scripted.url))
    for _ in range(4):
        probe.read()
    assert scripted.asked.count("/slots") == 1
    scripted.counters["n_decode_total"] = 3  # a request came and went between two readings
    for _ in range(3):
        probe.read()
    assert scripted.asked.count("/slots") == 2


def test_without_metrics_or_slots_there_is_still_a_state(scripted):
    scripted.status = {"/metrics": 501, "/slots": 501}
    sample = ServerProbe(handle(scripted.url)).read()
    assert (sample.state, sample.kv_tokens, sample.output_tokens_total) == ("ready", None, None)
    scripted.status = {"/slots": 501}
    scripted.counters["requests_processing"] = 2
    sample = ServerProbe(handle(scripted.url)).read()
    assert (sample.state, sample.slots_busy) == ("generating", 2)


def test_totals_never_fall_for_a_request_that_no_counter_ever_saw(scripted):
    probe = ServerProbe(handle(scripted.url))
    scripted.counters |= {"requests_processing": 1, "n_decode_total": 30}
    scripted.slots[0] |= {"is_processing": True, "n_prompt_tokens": 50, "next_token": [{"n_decoded": 30}]}
    probe.read()
    assert probe.read().output_tokens_total == 30
    scripted.counters |= {"requests_processing": 0}
    scripted.slots[0] |= {"is_processing": False, "next_token": [{"n_decoded": 0}]}
    assert probe.read().output_tokens_total == 30
    scripted.counters |= {"tokens_predicted_total": 7, "n_decode_total": 37}
    assert probe.read().output_tokens_total == 37


def test_a_running_prefill_counts_live_and_a_new_server_behind_the_address_starts_anew(scripted):
    probe = ServerProbe(handle(scripted.url))
    # As the engine does it: a prompt's cached tokens are counted when its prefill begins.
    scripted.counters |= {"prompt_tokens_total": 100, "prompt_tokens_cached_total": 25, "requests_processing": 1}
    scripted.slots[0] |= {"is_processing": True, "n_prompt_tokens_processed": 64, "n_prompt_tokens_cache": 5}
    probe.read()
    assert probe.read().input_tokens_total == 189
    scripted.counters = {"requests_processing": 0, "prompt_tokens_total": 3}
    scripted.slots = [{"id": 0, "n_ctx": 512, "is_processing": False}]
    assert probe.read().input_tokens_total == 3


def test_a_slot_that_still_shows_the_request_before_is_not_counted_twice(scripted):
    probe = ServerProbe(handle(scripted.url))
    stale = {"is_processing": True, "n_prompt_tokens_processed": 85, "n_prompt_tokens_cache": 0}
    scripted.counters |= {"prompt_tokens_total": 85, "requests_processing": 1}
    scripted.slots[0] |= {**stale, "id_task": 2}  # task 1 had 85 tokens, task 2 has not begun its own
    assert probe.read().input_tokens_total == 85
    scripted.slots[0] |= {"n_prompt_tokens_processed": 4}
    assert probe.read().input_tokens_total == 89


def test_one_pool_of_cells_is_not_counted_per_slot(scripted):
    scripted.slots = [{"id": n, "n_ctx": 512, "n_prompt_tokens": 100, "is_processing": False} for n in range(4)]
    assert ServerProbe(handle(scripted.url)).read().kv_capacity == 2048
    unified = handle(scripted.url, capabilities=frozenset({"kv_unified"}))
    assert ServerProbe(unified).read().kv_capacity == 512


def test_nonsense_is_unreachable_not_a_crash_of_the_sampler(scripted):
    scripted.slots = {"error": "none"}
    assert ServerProbe(handle(scripted.url)).read().state == "unreachable"
    scripted.slots = [17]
    assert ServerProbe(handle(scripted.url)).read().state == "unreachable"


def test_other_backends_are_only_asked_whether_they_live(scripted):
    sample = ServerProbe(handle(scripted.url + "/v1", backend="vllm")).read()
    assert (sample.state, sample.slots_busy) == ("ready", None)
    assert scripted.asked == ["/v1/models"]


def test_a_late_answer_keeps_the_last_state_and_only_one_question_open(scripted):
    written = []
    watch = ServerWatch(handle(scripted.url), lambda: 5.0, written.append)
    try:
        until(lambda: written)
        assert watch.late() is None
        scripted.gate.clear()
        until(lambda: (late := watch.late()) is not None and late.state == "ready")
        late = watch.late()
        assert (late.slots_busy, late.kv_tokens, late.output_tokens_total) == (None, None, None)
        asked = len(scripted.asked)
        time.sleep(2 * LATE_S)
        assert len(scripted.asked) == asked
        scripted.gate.set()
        count = len(written)
        until(lambda: len(written) > count)
        assert written[-1].state == "ready"
    finally:
        watch.stop()

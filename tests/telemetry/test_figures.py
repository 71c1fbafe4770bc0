"""Each figure against its second source: one dialogue with the real engine, a proxy and a sampler beside it."""

from __future__ import annotations

import math
import re
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
from faultproxy import FaultProxy

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.errors import RequestError
from llamatelemetry_jupyter.inference.tokens import written
from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.plan import Device, placed
from llamatelemetry_jupyter.models.shape import shape_of
from llamatelemetry_jupyter.sampling.process import SamplerProcess
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.telemetry.figures import FIGURES, figure, titles
from llamatelemetry_jupyter.telemetry.join import Readings
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tracer import Telemetry
from llamatelemetry_jupyter.values import DeviceSample, Samples
from llamatelemetry_jupyter.views.model import prefill_rate
from llamatelemetry_jupyter.views.series import rates
from llamatelemetry_jupyter.views.tokens import Tokens

pytestmark = pytest.mark.engine
SLOTS, CTX = 2, 1024
MIB = 1 << 20
_ROUNDED = 0.011 * MIB  # the log's figures
PROMPT = [{"role": "user", "content": "Tell me about llamas, please. " * 6}]
ALL = [one for group in FIGURES.values() for one in group]


def until(condition, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def ask(client, tokens):
    stream = client.chat_stream(PROMPT, max_tokens=tokens, ignore_eos=True, temperature=0)
    for _ in stream:
        pass
    return stream.answer


@pytest.fixture(scope="module")
def world(model_path, tmp_path_factory):
    """Two calls in a row through a proxy, three at once on two slots, one that is refused."""
    events, passed = [], []
    own = pytest.MonkeyPatch()
    own.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))  # a ring without others' servers
    manager, sampler = ServerManager("figures", on_event=events.append), SamplerProcess()
    store = SpanStore(tmp_path_factory.mktemp("figures") / "s.sqlite", samples=sampler.source)
    telemetry = Telemetry(store)
    proxy = wish = None
    try:
        # A copy of its own: of pages that other engines of these tests map too, each would have its share only.
        model = shutil.copy(model_path, tmp_path_factory.mktemp("model"))
        handle = manager.start(ServerSettings(model=str(model), ctx=CTX, slots=SLOTS))
        sampler.start()
        wish = sampler.want(10)
        until(lambda: sampler.source.latest().servers)
        telemetry.attach()
        parts = urlsplit(handle.url)
        proxy = FaultProxy((parts.hostname, parts.port), edit=lambda data: passed.append((now_ns(), data)) or data)
        direct = LlamaCppClient.of(handle, observer=telemetry.observer)
        proxied = LlamaCppClient(proxy.url, handle.api_key, telemetry.observer, timeout_s=60)
        counted = [direct.metrics()]
        calls, watched = [], []
        for _ in range(2):
            del passed[:]
            begun = time.perf_counter()
            answer = ask(proxied, 40)
            calls.append(SimpleNamespace(answer=answer, stopwatch_s=time.perf_counter() - begun, passed=list(passed)))
            counted.append(direct.metrics())
        workers = [threading.Thread(target=ask, args=(direct, 100)) for _ in range(3)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            before_ns = now_ns()
            watched.append((before_ns, direct.metrics(), now_ns()))
        with pytest.raises(RequestError):
            direct.chat([{"role": "user", "content": "too long " * 3000}])
        ended_ns = now_ns()
        until(lambda: sum(one.kind == "request" for one in events) == 5)
        # A reading that ends soon after the last answer may have been asked for before it, with a slot that is busy.
        settled_ns = ended_ns + 500_000_000
        until(
            lambda: all(
                one.t_ns[-1] > settled_ns
                for one in (*sampler.source.latest().servers, *sampler.source.latest().devices)
            )
        )
        store.flush()
        until(lambda: not store._unjoined)
        rows = {row.span_id: row for row in store.rows()}
        for call in calls:
            call.row = rows[call.answer.span_id]
            call.phases = {row.name: row for row in rows.values() if row.parent_id == call.row.span_id}
        yield SimpleNamespace(
            handle=handle, store=store, sampler=sampler, client=direct, calls=calls, watched=watched, counted=counted,
            rows=[row for row in rows.values() if row.name.startswith("chat")], every=list(rows.values()),
            log=[one.data for one in events if one.kind == "request"], final=direct.metrics(),
            samples=sampler.source.window(0, now_ns()), shape=shape_of(gguf.check(str(model_path))),
        )  # fmt: skip
    finally:
        telemetry.detach()
        for one in (proxy, wish):
            if one is not None:
                one.close()
        sampler.stop()
        manager.stop()
        store.close()
        own.undo()


def gained(world, number, name):
    """How much a counter of /metrics grew by the call ``number``."""
    return world.counted[number + 1].values[name] - world.counted[number].values[name]


def server(world):
    return world.samples.servers[0]


def host(world):
    (found,) = [one for one in world.sampler.source.latest().devices if one.device == "host"]
    return found.row(-1)


def owned(world, owner):
    return sum(one.bytes for one in host(world).owners if one.owner == owner)


# ------------------------------------------------------------------------------------------------------------ requests


def duration_s(world):
    for call in world.calls:
        assert 0 < call.row.duration_s <= call.stopwatch_s
        # The request's text is made before it is sent.
        assert sum(one.duration_s for one in call.phases.values()) <= call.row.duration_s
        assert call.phases["decode"].end_ns == call.row.end_ns


def input_tokens(world):
    for number, call in enumerate(world.calls):
        read = gained(world, number, "prompt_tokens_total") + gained(world, number, "prompt_tokens_cached_total")
        assert call.row.input_tokens == call.answer.input_tokens == read


def cached_tokens(world):
    first, second = (call.row.cached_tokens for call in world.calls)
    assert [first, second] == [gained(world, number, "prompt_tokens_cached_total") for number in (0, 1)]
    assert second > first


def output_tokens(world):
    for number, call in enumerate(world.calls):
        assert call.row.output_tokens == gained(world, number, "tokens_predicted_total") == 40


def ttft_s(world):
    for call in world.calls:
        (first_ns, *_) = [t_ns for t_ns, data in call.passed if re.search(rb'"content":"[^"]', data)]
        proxys_s = (first_ns - call.phases["queue"].start_ns) / 1e9
        assert call.row.attributes["llama_cpp.timings.prompt_ms"] / 1e3 <= proxys_s <= call.row.ttft_s
        assert call.row.ttft_s < call.row.duration_s


def queue_s(world):
    waiting = [(t0, t1) for t0, metrics, t1 in world.watched if metrics.queued]
    assert waiting
    queues = sorted((row for row in world.every if row.name == "queue"), key=lambda row: row.duration_s)
    longest = queues[-1]
    for t0, t1 in waiting:  # the server said so at some moment between the two
        assert t1 >= longest.start_ns
        assert t0 <= longest.end_ns
    for call in world.calls:
        times = call.answer.timings
        assert call.phases["queue"].duration_s == pytest.approx(times.queue_s, abs=1e-6)
        assert times.queue_s == pytest.approx(times.ttft_s - times.prefill_s)


def phase(name):
    def check(world):
        told = [one[f"{name}_s"] for one in world.log]
        for row in world.rows:
            if row.status != "error":
                of = {"prefill": "prompt_ms", "decode": "predicted_ms"}[name]
                ours = row.attributes[f"llama_cpp.timings.{of}"] / 1e3
                assert any(abs(ours - one) <= 1e-5 for one in told)  # printed to 0.01 ms
        for call in world.calls:
            told_ms = call.row.attributes[f"llama_cpp.timings.{of}"]
            assert getattr(call.answer.timings, f"{name}_s") == pytest.approx(told_ms / 1e3, rel=1e-12)

    return check


def decode_tokens_per_s(world):
    for row in world.rows:
        if row.status != "error":
            told = row.attributes["llama_cpp.timings.predicted_per_second"]
            assert row.decode_tokens_per_s == pytest.approx(told, rel=1e-6)


def prefill_tokens_per_s(world):
    for row in world.rows:
        if row.status != "error":
            told = row.attributes["llama_cpp.timings.prompt_per_second"]
            tokens = row.input_tokens - (row.cached_tokens or 0)
            assert prefill_rate(row) == pytest.approx(told, rel=1e-3, abs=0.06)
            assert tokens == row.attributes["llama_cpp.timings.prompt_n"]


def token_gap(world):
    for call in world.calls:
        gaps = sorted(world.store.gaps(call.row.span_id))
        assert len(gaps) == call.row.output_tokens - 1
        for name, rank in (("p50", 19), ("p95", 36), ("max", 38)):
            assert call.row.attributes[f"llama_cpp.token_gap.{name}_s"] == pytest.approx(gaps[rank], abs=1e-6)
        assert sum(gaps) <= call.phases["decode"].duration_s + 1e-4


def energy_j(_world):
    """On a replay: 60 s of a load that comes and goes, read twice a second."""

    def power_w(t_s):
        return 30 + 40 * math.sin(t_s / 7) ** 2

    def joules(t_s):
        return 30 * t_s + 20 * (t_s - 3.5 * math.sin(2 * t_s / 7))

    readings = [
        DeviceSample(int(n * 0.5e9), "GPU-1", 0, 0, power_w=power_w(n / 2), energy_j=1000 + joules(n / 2))
        for n in range(120)
    ]
    known = Readings(Samples.of(readings, ()))
    for begin_s, end_s in ((3.2, 21.7), (10.1, 12.4), (0.5, 59.0)):
        inside = [begin_s, *(n / 2 for n in range(120) if begin_s < n / 2 < end_s), end_s]
        integral = sum((power_w(a) + power_w(b)) / 2 * (b - a) for a, b in pairwise(inside))
        assert known.during(int(begin_s * 1e9), int(end_s * 1e9)).energy_j == pytest.approx(integral, rel=0.01)


def peak_bytes(world):
    status = Path(f"/proc/{world.handle.pid}/status").read_text()
    most = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    for row in world.rows:
        if row.status != "error":
            # The kernel counts pages per CPU and adds them up now and then.
            assert owned(world, "weights") < row.peak_bytes <= most * 1.02


# -------------------------------------------------------------------------------------------------------------- totals


def counted(query):
    def check(world, name):
        world.store.flush()
        with closing(sqlite3.connect(world.store.path)) as connection:
            (found,) = connection.execute(query).fetchone()
        assert world.store.totals()[name] == found > 0

    return check


_CALLS = "from spans where json_extract(attributes, '$.\"gen_ai.operation.name\"') = 'chat'"

# ------------------------------------------------------------------------------------------------------------- servers


def tokens_total(which):
    def check(world):
        total = getattr(server(world), f"{which}_tokens_total")
        used = sum(getattr(row, f"{which}_tokens") for row in world.rows if row.status != "error")
        known = [one for one in total if one is not None]
        assert known[-1] - known[0] == used
        assert known == sorted(known)

    return check


def rate(which):
    def check(world):
        series = server(world)
        total = getattr(series, f"{which}_tokens_total")
        found = rates(series.t_ns, total)
        known = [index for index, one in enumerate(total) if one is not None]
        summed = sum(found[b] * (series.t_ns[b] - series.t_ns[a]) / 1e9 for a, b in pairwise(known))
        assert summed == pytest.approx(total[known[-1]] - total[known[0]], abs=0.01 * len(known))

    return check


def slots(world):
    assert {one for one in server(world).slots if one is not None} == {SLOTS}


def slots_busy(world):
    told = max(metrics.processing for _, metrics, _ in world.watched)
    assert max(one for one in server(world).slots_busy if one is not None) == told == SLOTS
    assert server(world).slots_busy[-1] == world.final.processing == 0


def queued(world):
    told = max(metrics.queued for _, metrics, _ in world.watched)
    assert max(one for one in server(world).queued if one is not None) == told == 3 - SLOTS
    assert server(world).queued[-1] == 0


def kv_tokens(world):
    newest = {one["slot"]: one for one in world.log}
    for one in newest.values():
        assert one["kv_tokens"] == one["input_tokens"] + one["decode_tokens"] - 1
    assert server(world).kv_tokens[-1] == sum(one["kv_tokens"] for one in newest.values())


def kv_capacity(world):
    assert server(world).kv_capacity[-1] == SLOTS * CTX == world.handle.slots * world.handle.ctx_per_slot


# -------------------------------------------------------------------------------------------------------------- memory


def weights(world):
    tensors = sum(one.bytes for one in world.shape.tensors)
    assert owned(world, "weights") == pytest.approx(tensors, abs=_ROUNDED)


def kv(world):
    cells = SLOTS * CTX
    formula = sum((layer.key_width + layer.value_width) * cells * 2 for layer in world.shape.layers)
    assert owned(world, "kv") == pytest.approx(formula, abs=_ROUNDED)
    (cache,) = [one for one in host(world).owners if one.owner == "kv"]
    assert cache.filled_bytes == pytest.approx(cache.bytes * server(world).kv_tokens[-1] / (SLOTS * CTX), abs=1)


def compute(world):
    share = placed(world.shape, (), Device("host", 1 << 40, "host"), Demand(CTX, slots=SLOTS), 0).shares[-1]
    assert owned(world, "compute") == pytest.approx(share.compute, rel=0.05, abs=MIB)


def output(world):
    assert owned(world, "output") == pytest.approx(world.shape.vocabulary * SLOTS * 4, abs=_ROUNDED)


def is_held(world, pid, owners):
    """Of a file that others map too, each has its share; who else maps it is looked at seldom."""
    process = psutil.Process(pid)
    until(lambda: sum(owned(world, one) for one in owners) == pytest.approx(process.memory_full_info().pss, rel=0.03))


def context(world):
    is_held(world, world.handle.pid, ("weights", "kv", "compute", "output", "context"))


def kernel(world):
    is_held(world, psutil.Process().pid, ("kernel",))


def whole(world):
    now = host(world)
    assert sum(one.bytes for one in now.owners) == now.total_bytes
    assert all(one.bytes >= 0 for one in now.owners)


def limit():
    """The control group's limit, where it has one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(path).exists() and (text := Path(path).read_text().strip()) != "max":
            return int(text)
    return 1 << 62


def free(world):
    machine = psutil.virtual_memory()
    if limit() >= machine.total:
        assert owned(world, "free") == pytest.approx(machine.available, abs=0.1 * machine.total)
    else:
        assert owned(world, "free") <= limit()


def total_bytes(world):
    assert host(world).total_bytes == min(psutil.virtual_memory().total, limit())


def used_bytes(world):
    now = host(world)
    assert now.used_bytes == sum(one.bytes for one in now.owners if one.owner != "free")


# -------------------------------------------------------------------------------------------------------------- tokens


def logprob(world):
    client = LlamaCppClient.of(world.handle)
    asked = {"n_predict": 1, "n_probs": 100_000, "temperature": 1.5, "seed": 1}
    told = client.request("POST", "/completion", {"prompt": "One, two, three", **asked})
    (place,) = told["completion_probabilities"]
    vocabulary = {one["id"]: one["logprob"] for one in place["top_logprobs"]}
    assert len(vocabulary) == client.models()[0].vocabulary
    assert math.fsum(map(math.exp, vocabulary.values())) == pytest.approx(1, abs=2e-3)
    stream = client.complete("One, two, three", max_tokens=1, n_probs=3, temperature=0)
    (event,) = [one for one in stream.tokens if one.kind == "text"]
    assert event.logprob == pytest.approx(vocabulary[event.token_id], abs=0.05)


def perplexity(world):
    client = LlamaCppClient.of(world.handle)
    answer = client.chat(PROMPT, max_tokens=8, temperature=0, ignore_eos=True, logprobs=True, top_logprobs=1)
    told = [math.exp(one.logprob) for one in answer.tokens if one.logprob is not None]
    assert told
    assert Tokens(written(answer), "answer").perplexity == pytest.approx(math.prod(told) ** (-1 / len(told)))


CHECKS = {
    "duration_s": duration_s,
    "input_tokens": input_tokens,
    "cached_tokens": cached_tokens,
    "output_tokens": output_tokens,
    "ttft_s": ttft_s,
    "queue_s": queue_s,
    "prefill_s": phase("prefill"),
    "decode_s": phase("decode"),
    "decode_tokens_per_s": decode_tokens_per_s,
    "prefill_tokens_per_s": prefill_tokens_per_s,
    "token_gap": token_gap,
    "energy_j": energy_j,
    "peak_bytes": peak_bytes,
    "spans": lambda world: counted("select count(*) from spans")(world, "spans"),
    "traces": lambda world: counted("select count(distinct trace_id) from spans")(world, "traces"),
    "calls": lambda world: counted(f"select count(*) {_CALLS}")(world, "calls"),
    "errors": lambda world: counted("select count(*) from spans where status = 'error'")(world, "errors"),
    "total_input_tokens": lambda world: counted(f"select sum(input_tokens) {_CALLS}")(world, "input_tokens"),
    "total_output_tokens": lambda world: counted(f"select sum(output_tokens) {_CALLS}")(world, "output_tokens"),
    "input_tokens_total": tokens_total("input"),
    "output_tokens_total": tokens_total("output"),
    "input_rate": rate("input"),
    "output_rate": rate("output"),
    "slots": slots,
    "slots_busy": slots_busy,
    "queued": queued,
    "kv_tokens": kv_tokens,
    "kv_capacity": kv_capacity,
    "weights": weights,
    "kv": kv,
    "compute": compute,
    "output": output,
    "context": context,
    "kernel": kernel,
    "other": whole,
    "free": free,
    "used_bytes": used_bytes,
    "total_bytes": total_bytes,
    # The last: they ask the server once more, and its counters go on.
    "logprob": logprob,
    "perplexity": perplexity,
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_figure_is_what_its_second_source_says(world, name):
    CHECKS[name](world)


# ----------------------------------------------------------------------------------------------------------- the table


def test_every_figure_that_is_said_to_be_compared_is():
    assert {one.id for one in ALL if one.compared} == set(CHECKS)


def test_a_definition_is_whole_and_one_line():
    assert len({one.id for one in ALL}) == len(ALL)
    for one in ALL:
        assert all((one.label, one.formula, one.source, one.second))
        assert "\n" not in one.title
        assert "|" not in f"{one.title}{one.second}"  # it stands in a table
    assert titles({"first token": "ttft_s"}) == {"first token": figure("ttft_s").title}
    with pytest.raises(KeyError):
        titles({"first token": "ttft"})

"""The snapshot: what it holds, that it is JSON, and that it stays small whatever the sources hold."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import WORDS
from viewworld import MIB, T0, Memory, Spans, handle, host, hostile, server, session, trace

from llamatelemetry_jupyter.telemetry.figures import figure
from llamatelemetry_jupyter.values import DeviceSample, EngineBuffer, OwnerBytes, Samples, ServerSample, ServerStatus
from llamatelemetry_jupyter.views.format import watts
from llamatelemetry_jupyter.views.model import MAX_BYTES, depths, prefill_rate, snapshot, span_dict
from llamatelemetry_jupyter.views.series import columns, rates, reduce, series_list
from llamatelemetry_jupyter.views.static import static_text

pytestmark = pytest.mark.floor


def test_every_figure_of_the_widgets_header_says_what_it_is():
    header = Path(__file__).parents[2] / "js" / "src" / "views" / "now.js"
    fields = re.findall(r'^  \["(\w+)", ', header.read_text(encoding="utf-8"), re.MULTILINE)
    titles = snapshot(Spans([]), Memory(), T0, 800)["titles"]
    assert list(titles) == fields
    assert titles["ttft"] == figure("ttft_s").title
    assert len(json.dumps(titles)) < 2_000  # it goes out with every snapshot


def size(made: dict) -> int:
    return len(json.dumps(made, allow_nan=False))


def test_a_session_at_a_glance():
    made = snapshot(**session())
    assert made["totals"] == {
        "spans": 19,
        "traces": 3,
        "calls": 4,
        "errors": 0,
        "input_tokens": 4 * 34,
        "output_tokens": 4 * 96,
    }
    assert made["server"]["model"] == "smollm2-135m"
    assert made["server"]["ttft_s"] == 0.15
    assert made["server"]["decode_tokens_per_s"] == pytest.approx(95 / 3)
    assert [s["depth"] for s in made["spans"][:5]] == [0, 1, 2, 2, 2]
    assert [d["id"] for d in made["devices"]] == ["host"]
    assert all(len(column) == len(made["points"]["t_ms"]) for column in made["points"]["values"])
    assert size(made) < MAX_BYTES
    assert "secret-key" not in json.dumps(made)
    assert "/home/someone" not in json.dumps(made)


def test_nothing_yet():
    made = snapshot(Spans([]), Memory(), T0, 900)
    assert made["server"] is None
    assert made["spans"] == made["devices"] == made["series"] == []
    assert made["points"] == {"t_ms": [], "values": []}


def test_ids_of_series_follow_the_devices_and_servers():
    ids = [s["id"] for s in snapshot(**session())["series"]]
    assert ids == [
        "mem/host/weights",
        "mem/host/kv",
        "mem/host/compute",
        "mem/host/context",
        "mem/host/kernel",
        "mem/host/other",
        "mem/host/free",
        "tok/default/decode",
        "tok/default/input",
        "slots/default/busy",
        "slots/default/queued",
        "kv/default",
        "filled/host",
    ]


def test_rates_come_from_counters_and_survive_a_restart():
    second = 10**9
    assert rates([0, second, 3 * second], [10, 30, 40]) == [None, 20.0, 5.0]
    assert rates([0, second, 2 * second], [100, 0, 8]) == [None, 0.0, 8.0], "a restarted server counts from 0"
    assert rates([0, second, 2 * second], [5, None, 9]) == [None, None, 2.0], "over the time between two readings"
    assert rates([0, 0], [5, 9]) == [None, None]


def test_samples_of_one_round_share_a_time_and_a_silence_is_a_gap():
    step = 10**9
    devices = [DeviceSample(T0 + n * step, "host", 1, 2) for n in range(20)]
    servers = [
        ServerSample(T0 + n * step + 3_000_000, "a", "ready", slots_busy=n) for n in range(20) if not 5 <= n < 15
    ]
    samples = Samples.of(devices, servers)
    series = series_list(samples)
    t_ms, values = columns(samples, series)
    busy = values[[s["id"] for s in series].index("slots/a/busy")]
    assert len(t_ms) == 20
    assert busy[:6] == [0, 1, 2, 3, 4, 4]
    assert busy[8:15] == [None] * 7
    assert busy[15:] == [15, 16, 17, 18, 19]


def test_seconds_between_idle_samples_are_no_gap_beside_ten_samples_a_second():
    at = [*range(10), *(10 + n / 10 for n in range(100)), *range(20, 30)]
    devices = [DeviceSample(T0 + int(t * 10**9), "host", 1, 2) for t in at]
    servers = [ServerSample(T0 + int(t * 10**9) + 300_000_000, "a", "ready", slots_busy=1) for t in at]
    samples = Samples.of(devices, servers)
    series = series_list(samples)
    _, values = columns(samples, series)
    assert [v for v in values[[s["id"] for s in series].index("slots/a/busy")][1:] if v != 1] == []
    assert [v for v in values[[s["id"] for s in series].index("mem/host/unknown")] if v != 1] == []


def world_at(seconds, **more):
    """The session of :func:`viewworld.session`, seen so long after its start."""
    return snapshot(**{**session(), "now_ns": T0 + int(seconds * 10**9), **more})


def test_nothing_that_is_past_is_shown_as_current():
    assert world_at(30)["since_ms"] is None
    silent = world_at(40)  # the last samples are from 29.5 s
    last_ms = T0 / 1e6 + 29_500
    assert silent["since_ms"] == last_ms
    (device,) = silent["devices"]
    assert (device["used_bytes"], device["owners"], device["since_ms"]) == (None, [], last_ms)
    assert device["total_bytes"] == 16_000 * MIB
    server = silent["server"]
    assert [server[k] for k in ("slots_busy", "queued", "kv_tokens", "since_ms")] == [None, None, None, last_ms]
    assert server["state"] == "ready"  # its manager says so
    assert server["output_tokens_total"] == world_at(30)["server"]["output_tokens_total"]
    assert world_at(40, handle=None, status=None)["server"]["state"] == "unreachable"


def test_a_device_that_does_not_answer_says_since_when_and_comes_back():
    since_ns = T0 + 9 * 10**9
    gone = [DeviceSample(T0 + n * 10**9, "GPU-a", None, None, since_ns=since_ns) for n in range(10, 20)]
    back = [DeviceSample(T0 + n * 10**9, "GPU-a", 5, 16) for n in range(20, 25)]
    beside = [DeviceSample(T0 + n * 10**9, "host", 7, 32) for n in range(25)]

    def told(seconds, *samples):
        made = world_at(seconds, samples=Memory([s for part in samples for s in part]))
        return {d["id"]: (d["used_bytes"], d["since_ms"]) for d in made["devices"]}

    assert told(19, gone, beside[:20]) == {"GPU-a": (None, since_ns / 1e6), "host": (7, None)}
    assert told(24, gone, back, beside)["GPU-a"] == (5, None)
    assert told(60, gone, beside)["GPU-a"] == (None, since_ns / 1e6)  # not when the sampler last said that it is gone


def test_reduction_keeps_every_columns_extremes():
    spike = [0.0] * 1000
    spike[333], spike[700] = 9.0, -9.0
    t_ms, (column, other) = reduce([float(n) for n in range(1000)], [spike, [None] * 1000], 100)
    assert len(t_ms) == len(column) == 100
    assert max(column) == 9.0
    assert min(column) == -9.0
    assert set(other) == {None}
    assert t_ms == sorted(t_ms)


def test_whole_traces_newest_first():
    rows = [row for n in range(1, 80) for row in trace(n, n * 4)]
    made = snapshot(Spans(rows), Memory(), T0 + 400 * 10**9, 900)["spans"]
    assert len(made) == 200
    assert {s["trace_id"] for s in made} == {f"{n:032x}" for n in range(40, 80)}
    assert made == sorted(made, key=lambda s: s["start_ms"])


def test_a_trace_larger_than_the_limit_keeps_its_root_and_its_newest_calls():
    made = snapshot(Spans(trace(1, 0, calls=100, decode_s=0.1)), Memory(), T0 + 60 * 10**9, 900)["spans"]
    assert 190 <= len(made) <= 200
    assert made[0]["name"] == "notebook cell"
    ids = {s["span_id"] for s in made}
    assert all(s["parent_id"] in ids for s in made[1:])


def test_parents_that_are_missing_or_circular_do_no_harm():
    rows = trace(1, 0)
    assert set(depths(rows[1:]).values()) == {0, 1}
    loop = [replace(rows[0], parent_id=rows[1].span_id), *rows[1:]]
    assert len(depths(loop)) == len(rows)


def test_a_hundred_thousand_spans_and_sixteen_gpus_fit():
    rows = [row for n in range(1, 20_001) for row in trace(n, n * 3)]
    devices = [s for g in range(16) for s in host(120, device=f"GPU-{g:08x}-0000-0000-0000-000000000000")]
    made = snapshot(
        Spans(rows),
        Memory(devices, server(120)),
        T0 + 120 * 10**9,
        1200,
        handle=handle(),
        names={devices[0].device: "Tesla T4"},
    )
    assert size(made) < MAX_BYTES
    assert made["totals"]["spans"] == 100_000
    assert len(made["devices"]) == 16
    assert made["devices"][0]["name"] == "GPU 0 · Tesla T4"
    assert len(made["points"]["t_ms"]) >= 40


@pytest.mark.parametrize("word", WORDS)
def test_hostile_text_stays_small(word):
    rows = hostile([row for n in range(1, 60) for row in trace(n, n * 2)], word)
    devices = [
        DeviceSample(T0, "host", 1, 2, owners=tuple(OwnerBytes("host", "other", 1, process=word) for _ in range(50)))
    ]
    made = snapshot(Spans(rows), Memory(devices), T0, 900, handle=handle(word))
    assert size(made) < MAX_BYTES
    assert len(made["spans"]) > 50


def test_no_number_that_json_lacks():
    rows = [replace(r, ttft_s=math.nan, decode_tokens_per_s=math.inf, energy_j=-math.inf) for r in trace(1, 0)]
    devices = [replace(s, util=math.nan, power_w=math.inf) for s in host(10, device="GPU-1")]
    made = snapshot(Spans(rows), Memory(devices), T0 + 10 * 10**9, 900)
    assert size(made) > 0
    assert made["spans"][0]["ttft_s"] is None


def test_used_memory_is_shown_when_nothing_could_be_attributed():
    made = snapshot(Spans([]), Memory([DeviceSample(T0, "GPU-1", 5 * MIB, 9 * MIB)]), T0, 900)
    assert made["series"][0]["id"] == "mem/GPU-1/unknown"
    assert made["points"]["values"] == [[5 * MIB]]


def test_a_stopped_server_keeps_its_model_and_its_last_call():
    made = snapshot(**session() | {"handle": None, "status": ServerStatus("default", "stopped")})["server"]
    assert (made["model"], made["state"], made["ttft_s"]) == ("smollm2-135m", "stopped", 0.15)


def test_a_call_of_another_server_is_not_this_ones():
    rows = [replace(r, server="10.0.0.1:8000") for r in trace(1, 0)]
    assert snapshot(Spans(rows), Memory(), T0 + 10**10, 900, handle=handle())["server"]["ttft_s"] is None
    mine = [replace(r, server="127.0.0.1:41234") for r in trace(1, 0)]
    assert snapshot(Spans(mine), Memory(), T0 + 10**10, 900, handle=handle())["server"]["ttft_s"] == 0.15


def status(state, **more):
    return ServerStatus("default", state, **more)


def test_a_server_that_starts_says_how_far_it_is():
    coming = status("loading", model="smollm2-135m", stage="loading weights", fraction=0.45)
    made = snapshot(Spans([]), Memory(), T0, 900, status=coming)
    found = {name: made["server"][name] for name in ("state", "model", "stage", "fraction", "reason")}
    assert found == {
        "state": "loading", "model": "smollm2-135m", "stage": "loading weights", "fraction": 0.45, "reason": None,
    }  # fmt: skip
    assert made["server"]["kv_tokens"] is None
    assert snapshot(Spans([]), Memory(), T0, 900, status=status("stopped"))["server"] is None
    assert "loading: loading weights, 45 %" in static_text(made)


def test_a_crash_says_why():
    crash = status("crashed", model="m", reason="it was killed", remedy="%llama start --ctx 512")
    made = snapshot(**session() | {"handle": None, "status": crash})
    assert (made["server"]["state"], made["server"]["reason"]) == ("crashed", "it was killed")
    assert "crashed: it was killed; try: %llama start --ctx 512" in static_text(made)
    # Without a single sample, too: it crashed while it started.
    assert snapshot(Spans([]), Memory(), T0, 900, status=crash)["server"]["remedy"] == "%llama start --ctx 512"


def test_that_a_server_sleeps_only_its_samples_tell():
    asleep = [replace(one, state="sleeping") for one in server(30)]
    made = snapshot(**session() | {"samples": Memory(host(30), asleep)})
    assert made["server"]["state"] == "sleeping"
    old = snapshot(**session() | {"samples": Memory(host(30), asleep), "now_ns": T0 + 60 * 10**9})
    assert old["server"]["state"] == "ready"  # its manager's word: what is past is not current


def test_the_plan_stands_beside_what_is_there_by_the_engines_count_of_gpus(monkeypatch):
    devices = [*host(30, device="GPU-aaaa"), *host(30, device="GPU-bbbb"), *host(30)]
    planned = [
        EngineBuffer("CUDA0", "weights", 90 * MIB), EngineBuffer("CUDA0", "context", 300 * MIB),
        EngineBuffer("CPU", "weights", 7 * MIB), EngineBuffer("CPU", "weights", 1 * MIB),
    ]  # fmt: skip
    given = session() | {"samples": Memory(devices, server(30)), "planned": planned}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first = {"weights": 90 * MIB, "context": 300 * MIB}
    assert [one["plan"] for one in snapshot(**given)["devices"]] == [first, None, {"weights": 8 * MIB}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [one["plan"] for one in snapshot(**given)["devices"]] == [None, first, {"weights": 8 * MIB}]


def test_the_filled_part_of_the_cache_has_a_history():
    made = snapshot(**session())
    place = [one["id"] for one in made["series"]].index("filled/host")
    column = made["points"]["values"][place]
    known = [one.owners[2].filled_bytes for one in host(30) if len(one.owners) > 3]
    assert [v for v in column if v is not None] == known
    assert column[0] is None


def test_prefill_is_what_the_servers_own_timings_say():
    rows = trace(1, 8)
    timed = {"llama_cpp.timings.prompt_n": 22, "llama_cpp.timings.prompt_ms": 110.0}
    rows[1] = replace(rows[1], attributes=timed)
    made = snapshot(**session() | {"spans": Spans(rows)})
    assert made["server"]["prefill_tokens_per_s"] == 200.0
    assert [one["prefill_tokens_per_s"] for one in made["spans"]] == [None, 200.0, None, None, None]
    assert "prefill 200.0 tokens/s" in static_text(made)
    assert prefill_rate(replace(rows[1], attributes=timed | {"llama_cpp.timings.prompt_n": 0})) is None
    assert prefill_rate(trace(1, 8)[1]) is None


def test_power_is_the_sum_of_the_gpus_that_tell():
    def seen(*power):
        return [{"id": "host", "power_w": None}, *({"id": f"GPU-{n}", "power_w": p} for n, p in enumerate(power))]

    assert [watts(seen()), watts(seen(None)), watts(seen(61.2)), watts(seen(61.2, 70)), watts(seen(61.2, None))] == [
        "n/a", "n/a", "61 W, 1 GPU", "131 W, 2 GPUs", "61 W, 1 of 2 GPUs",
    ]  # fmt: skip


def test_a_span_of_the_longest_texts_is_not_larger_than_is_counted_on():
    row = trace(1, 0)[0]
    worst = dict.fromkeys(("trace_id", "span_id", "parent_id", "name", "kind", "status"), "\x01" * 1000)
    worst |= dict.fromkeys(("error_type", "model", "server", "cell_id"), "\x01" * 1000)
    numbers = dict.fromkeys(("ttft_s", "decode_tokens_per_s", "energy_j"), 1.2345678901234567e-300)
    made = span_dict(replace(row, **worst, **numbers, input_tokens=2**60, output_tokens=2**60, peak_bytes=2**60), 100)
    assert len(json.dumps(made)) < 2000

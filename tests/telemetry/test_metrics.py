"""Metrics: from spans, from the server's log, from samples; on whatever provider a notebook has.

A provider lasts as long as its process, so a test that shares it counts a model of its own name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from itertools import count

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.sampling.ring import RingError
from llamatelemetry_jupyter.telemetry.instruments import INSTRUMENTS
from llamatelemetry_jupyter.telemetry.metrics import Metrics
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tally import Tally
from llamatelemetry_jupyter.telemetry.tracer import SCOPE
from llamatelemetry_jupyter.values import (
    DeviceInfo,
    DeviceSample,
    ModelRef,
    OwnerBytes,
    Samples,
    ServerEvent,
    ServerHandle,
    ServerSample,
    SpanRow,
)

pytestmark = pytest.mark.floor
SECOND = 10**9
_numbers = count(1)


class Memory:
    """The newest samples, as a test sets them."""

    def __init__(self, devices=(), servers=(), names=()):
        self.found, self.names = (devices, servers), names

    def latest(self):
        return Samples.of(*self.found)

    def devices(self):
        return self.names


@pytest.fixture
def model():
    return f"model-{next(_numbers)}"


@pytest.fixture
def recorder():
    made = Metrics(Memory(), {"9a": (0.02, 0.03)}.get)
    made.attach()
    yield made
    made.detach()


def call(model, operation="chat", seconds=2.0, scope=SCOPE, span_id="abc", **fields):
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.request.model": model,
        "server.address": "127.0.0.1",
        "server.port": 8080,
        **fields.pop("attributes", {}),
    }
    known = {"input_tokens": 9, "output_tokens": 3, "cached_tokens": 7, "ttft_s": 0.1} | fields
    return SpanRow(
        "1" * 32, span_id, None, f"chat {model}", "client", SECOND, SECOND + int(seconds * SECOND),
        scope=scope, model=model, attributes=attributes, **known,
    )  # fmt: skip


def of(recorder, model):
    """The model's points by metric and kind of token."""
    return {
        (one.name, one.attributes.get("gen_ai.token.type")): one
        for one in recorder.read()
        if model in one.attributes.values()
    }


def test_a_request_is_counted_under_the_standards_names(recorder, model):
    recorder.record([call(model), call(model, seconds=4.0, ttft_s=None)])
    found = of(recorder, model)
    duration = found["gen_ai.client.operation.duration", None]
    assert (duration.count, duration.value, duration.low, duration.high, duration.unit) == (2, 6.0, 2.0, 4.0, "s")
    assert duration.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.request.model": model,
        "server.address": "127.0.0.1",
        "server.port": 8080,
    }
    assert found["gen_ai.client.token.usage", "input"].value == 18
    assert found["gen_ai.client.token.usage", "output"].value == 6
    assert found["gen_ai.client.operation.time_to_first_chunk", None].count == 1
    assert ("gen_ai.client.operation.time_per_output_chunk", None) not in found  # no gaps were kept


def test_every_gap_between_tokens_is_counted(recorder, model):
    recorder.record([call(model, span_id="9a")])
    gaps = of(recorder, model)["gen_ai.client.operation.time_per_output_chunk", None]
    assert (gaps.count, gaps.value) == (2, 0.05)


def test_a_failed_request_is_counted_with_its_error_and_its_tokens_without(recorder, model):
    recorder.record(
        [call(model, status="error", error_type="503", attributes={"error.type": "503"}, input_tokens=4, ttft_s=None)]
    )
    found = of(recorder, model)
    assert found["gen_ai.client.operation.duration", None].attributes["error.type"] == "503"
    assert "error.type" not in found["gen_ai.client.token.usage", "input"].attributes


def test_embeddings_have_no_output_and_tools_and_agents_times_of_their_own(recorder, model):
    tool = {"gen_ai.tool.name": model}
    recorder.record(
        [
            call(model, "embeddings", output_tokens=0, ttft_s=None),
            call("", "execute_tool", attributes=tool),
            call("", "invoke_agent", attributes={"gen_ai.agent.name": model}),
            call(model, "something else"),
        ]
    )
    assert {(name, kind): one.count for (name, kind), one in of(recorder, model).items()} == {
        ("gen_ai.client.operation.duration", None): 1,
        ("gen_ai.client.token.usage", "input"): 1,
        ("gen_ai.execute_tool.duration", None): 1,
        ("gen_ai.invoke_agent.duration", None): 1,
    }


def test_other_libraries_spans_are_not_counted_a_second_time(recorder, model):
    recorder.record([call(model, scope="opentelemetry.instrumentation.genai.openai"), call(model, scope=None)])
    assert of(recorder, model) == {}


def test_the_buckets_are_the_standards_and_keep_the_span_of_an_example(recorder, model):
    recorder.record([call(model, span_id="00000000000000ff")])
    scope = next(s for s in recorder.data().resource_metrics[0].scope_metrics if s.scope.name == SCOPE)
    points = {m.name: [p for p in m.data.data_points if model in p.attributes.values()] for m in scope.metrics}
    (duration,) = points["gen_ai.client.operation.duration"]
    assert duration.explicit_bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    assert [(e.trace_id, e.span_id) for e in duration.exemplars] == [(int("1" * 32, 16), 255)]
    tokens = points["gen_ai.client.token.usage"][0]
    assert tokens.explicit_bounds[:4] == (1, 4, 16, 64)
    assert tokens.explicit_bounds[-1] == 67108864


def test_what_is_no_number_is_no_value_and_other_attributes_are_left_out(recorder, model):
    recorder.record(
        [call(model, ttft_s=float("nan"), attributes={"gen_ai.response.model": ["a"], "server.port": None})]
    )
    found = of(recorder, model)
    assert ("gen_ai.client.operation.time_to_first_chunk", None) not in found
    assert set(found["gen_ai.client.operation.duration", None].attributes) == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "server.address",
    }  # fmt: skip


def test_sets_of_attributes_beyond_two_thousand_count_together():
    tally = Tally("1.41")
    for number in range(2_500):
        tally.add("tool", (1.0,), {"gen_ai.tool.name": f"tool-{number}"})
    tally.add("tool", (1.0,), {"gen_ai.tool.name": "tool-7"})
    (metric,) = tally.metrics()
    counts = {json.dumps(one.attributes): one.count for one in metric.data.data_points}
    assert len(counts) == 2_001
    assert (counts['{"gen_ai.tool.name": "tool-7"}'], counts['{"otel.metric.overflow": true}']) == (2, 500)


def test_ours_and_the_sdks_own_histogram_are_the_same():
    reader, values = InMemoryMetricReader(), [0.0, 0.001, 0.01, 0.0100001, 0.3, 81.92, 500.0, 0.3]
    made = next(one for one in INSTRUMENTS if one.id == "tool")
    theirs = (
        MeterProvider([reader])
        .get_meter("x")
        .create_histogram(made.old, made.unit, made.about, explicit_bucket_boundaries_advisory=made.buckets)
    )
    tally = Tally("1.41")
    for value in values:
        theirs.record(value, {"a": 1})
    tally.add("tool", values, {"a": 1})
    (ours,) = tally.metrics()
    (expected,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    told = [json.loads(one.to_json()) for one in (ours, expected)]
    for one in told:
        for point in one["data"]["data_points"]:
            del point["start_time_unix_nano"], point["time_unix_nano"], point["exemplars"]
    assert told[0] == told[1]


def event(**data):
    return ServerEvent(now_ns(), "default", "request", data)


def handle(model):
    return ServerHandle(
        "default", "http://127.0.0.1:8123", None, "llama.cpp", True, 1, 1.0, ModelRef(model, "/m"), 1, 512
    )


def test_the_servers_own_times_come_from_its_log_whoever_asked(recorder, model):
    recorder.served(event(prefill_s=0.1, decode_s=0.9, decode_tokens=10), handle(model))
    recorder.served(event(prefill_s=0.3), handle(model))  # embeddings
    recorder.served(event(slot=1), handle(model))
    recorder.served(event(prefill_s=0.3), None)
    found = {name: (one.count, round(one.value, 6)) for (name, _), one in of(recorder, model).items()}
    assert found == {
        "gen_ai.server.request.duration": (2, 1.3),
        "gen_ai.server.time_to_first_token": (1, 0.1),
        "gen_ai.server.time_per_output_token": (1, 0.1),
    }


# ------------------------------------------------------------------------------------------------------------- samples


def gpu(age_s=0.0, **fields):
    known = {"used_bytes": 30, "total_bytes": 120, "util": 0.5, "power_w": 70.0, "energy_j": 5.5, "temp_c": 61.0}
    return DeviceSample(now_ns() - int(age_s * SECOND), "GPU-1", **(known | fields))


def served(tokens_in, tokens_out, **fields):
    return ServerSample(
        now_ns(), "default", "ready", 1, 2, 0, 40, 1024, input_tokens_total=tokens_in, output_tokens_total=tokens_out
    )


def observed(samples):
    made = Metrics(samples, lambda _span_id: None)
    made.attach()
    try:
        return [one for one in made.read() if one.name.startswith(("hw.", "llama_cpp."))]
    finally:
        made.detach()


def test_gpus_and_memory_are_those_of_the_newest_samples():
    owners = (OwnerBytes("GPU-1", "weights", 20), OwnerBytes("GPU-1", "other", 6), OwnerBytes("GPU-1", "other", 4))
    host = DeviceSample(now_ns(), "host", 5, 10, owners=(OwnerBytes("host", "kernel", 5),))
    points = observed(Memory([gpu(owners=owners), host], names=[DeviceInfo("GPU-1", "Tesla T4", 120, 90)]))
    found = {one.name: one for one in points if one.name.startswith("hw.")}
    assert {name: one.value for name, one in found.items()} == {
        "hw.gpu.memory.usage": 30,
        "hw.gpu.memory.limit": 120,
        "hw.gpu.memory.utilization": 0.25,
        "hw.gpu.utilization": 0.5,
        "hw.power": 70.0,
        "hw.energy": 5.5,
        "hw.temperature": 61.0,
    }
    assert {json.dumps(one.attributes) for one in found.values()} == {
        json.dumps({"hw.id": "GPU-1", "hw.type": "gpu", "hw.model": "Tesla T4"})
    }
    assert (found["hw.energy"].kind, found["hw.power"].kind, found["hw.gpu.memory.usage"].kind) == (
        "counter", "gauge", "level",
    )  # fmt: skip
    memory = {
        (one.attributes["hw.id"], one.attributes["llama_cpp.memory.owner"]): one.value
        for one in points
        if one.name == "llama_cpp.memory.usage"
    }
    assert memory == {("GPU-1", "weights"): 20, ("GPU-1", "other"): 10, ("host", "kernel"): 5}


@pytest.mark.parametrize(
    "samples",
    [
        Memory(),
        Memory([gpu(age_s=60)]),
        Memory([gpu(used_bytes=None, total_bytes=None, util=None, power_w=None, energy_j=None, temp_c=None)]),
    ],
)
def test_what_was_not_read_lately_has_no_value(samples):
    assert observed(samples) == []


def test_a_damaged_ring_is_no_metrics_and_no_noise(caplog):
    class Damaged(Memory):
        def latest(self):
            raise RingError("damaged")

    assert observed(Damaged()) == []
    assert caplog.text == ""


def test_a_servers_counters_go_on_when_it_is_started_again():
    samples = Memory(servers=[served(10, 5)])
    made = Metrics(samples, lambda _span_id: None)
    made.attach()

    def totals():
        made.observed._read_s = float("-inf")  # what was read a moment ago would count
        return [one.value for one in made.read() if one.name.endswith(("input_tokens", "output_tokens"))]

    try:
        assert totals() == [10, 5]
        samples.found = ((), [served(30, 7)])
        made.observed.settle()  # it stops: nobody has collected since
        samples.found = ((), [served(None, None)])
        assert totals() == [30, 7]
        samples.found = ((), [served(2, 1)])
        assert totals() == [32, 8]
        samples.found = ((), ())
        assert totals() == [32, 8]
    finally:
        made.detach()


# ------------------------------------------------------------------------------------------------------ the background


def test_rows_are_counted_once_each_on_the_stores_thread(tmp_path):
    seen, threads = [], set()

    def on_rows(rows):
        seen.extend(row.span_id for row in rows)
        threads.add(threading.current_thread().name)

    store = SpanStore(tmp_path / "s.sqlite", on_rows=on_rows)
    for number in range(300):
        store.append(call("m", span_id=f"{number:016x}"))
    store.close()
    again = SpanStore(tmp_path / "s.sqlite", on_rows=on_rows)  # what a file held was counted in its own time
    again.close()
    assert sorted(seen) == [f"{number:016x}" for number in range(300)]
    assert "llamatelemetry-spans" in threads


def test_a_counter_that_fails_loses_no_row(tmp_path, caplog):
    store = SpanStore(tmp_path / "s.sqlite", on_rows=lambda rows: 1 / 0)
    for number in range(3):
        store.append(call("m", span_id=f"{number:016x}"))
        store.flush()
    store.close()
    assert len(SpanStore(tmp_path / "s.sqlite").rows()) == 3
    assert caplog.text.count("ZeroDivisionError") == 1


# ----------------------------------------------------------------------------------------------------------- providers


def fresh(script, **environ):
    """Run ``script`` in a process of its own; returns what it printed."""
    setup = """
        import os, json
        from opentelemetry import metrics as api
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from llamatelemetry_jupyter.telemetry.metrics import Metrics
        from llamatelemetry_jupyter.telemetry.tracer import SCOPE
        from llamatelemetry_jupyter.values import Samples, SpanRow
        class Memory:
            def latest(self): return Samples()
        recorder = Metrics(Memory(), lambda span_id: None)
        def chat():
            about = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "llama.cpp"}
            row = SpanRow("1" * 32, "2" * 16, None, "chat", "client", 0, 10**9, scope=SCOPE, attributes=about,
                          input_tokens=3, output_tokens=2, cached_tokens=1, ttft_s=0.1)
            recorder.record([row])
        def calls(): return [p.count for p in recorder.read() if p.name == "gen_ai.client.operation.duration"]
    """
    code = textwrap.dedent(setup) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_provider_that_the_user_has_set_gets_our_metrics_too():
    out = fresh("""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        api.set_meter_provider(provider)
        recorder.attach()
        chat()
        recorder.detach()
        chat()
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        theirs = {m.name: m.data.data_points[0].count for m in scope.metrics}
        print(api.get_meter_provider() is provider, theirs["gen_ai.client.operation.duration"], calls())
    """)
    assert out == "True 1 [1]\n"


def test_without_a_provider_ours_is_set_and_other_libraries_metrics_are_in_the_table():
    out = fresh("""
        early = api.get_meter("theirs").create_counter("theirs.calls")
        recorder.attach()
        early.add(3)
        chat()
        resource = recorder.data().resource_metrics[0].resource.attributes
        print([p.value for p in recorder.read() if p.name == "theirs.calls"], calls(), resource["service.name"])
    """)
    assert out == "[3] [1] notebook\n"


def test_a_provider_set_after_ours_is_refused_by_opentelemetry_and_harmless():
    out = fresh("""
        recorder.attach()
        api.set_meter_provider(MeterProvider())
        chat()
        print(calls())
    """)
    assert "[1]" in out
    assert "Overriding of current MeterProvider is not allowed" in out


def test_a_provider_that_cannot_be_used_leaves_our_table_as_it_is():
    out = fresh("""
        class Failing(api.NoOpMeterProvider):
            def get_meter(self, *args, **more): raise RuntimeError("no")
        api.set_meter_provider(Failing())
        recorder.attach()
        chat()
        print(calls())
    """)
    assert out.startswith("[1]\n")
    assert out.count("RuntimeError: no") == 1


def test_a_provider_whose_instruments_fail_leaves_our_table_whole():
    out = fresh("""
        class Failing(api.NoOpHistogram):
            def record(self, *args): raise RuntimeError("no")
        class Meter(api.NoOpMeter):
            def create_histogram(self, name, *args, **more): return Failing(name)
        class Provider(api.NoOpMeterProvider):
            def get_meter(self, *args, **more): return Meter("x")
        api.set_meter_provider(Provider())
        recorder.attach()
        chat()
        chat()
        print(calls(), sorted({p.count for p in recorder.read()}), len(recorder.read()))
    """)
    assert out.startswith("[2] [2] 4\n")
    assert out.count("RuntimeError: no") == 1


def test_ten_reloads_leave_one_set_of_instruments_and_the_counts_go_on():
    out = fresh("""
        for _ in range(10):
            recorder = Metrics(Memory(), lambda span_id: None)
            recorder.attach()
            recorder.attach()
            chat()
            recorder.detach()
            chat()
        print(calls())
    """)
    assert out == "[10]\n"


def test_a_forked_child_counts_its_own():
    out = fresh("""
        recorder.attach()
        chat()
        import sys
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            recorder = Metrics(Memory(), lambda span_id: None)
            recorder.attach()
            for _ in range(3): chat()
            print(calls(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(calls())
    """)
    assert out == "[3]\n[1]\n"


def test_the_newest_names_come_alone_when_they_are_asked_for():
    script = """
        recorder.attach()
        chat()
        print(json.dumps({p.name: p.value for p in recorder.read()}))
    """
    old = json.loads(fresh(script))
    new = json.loads(fresh(script, OTEL_SEMCONV_STABILITY_OPT_IN="http, gen_ai_latest_experimental"))
    assert new == {
        "gen_ai.client.inference.duration": 1.0,
        "gen_ai.client.inference.time_to_first_chunk": 0.1,
        "gen_ai.client.inference.usage.input_tokens": 3,
        "gen_ai.client.inference.usage.output_tokens": 2,
        "gen_ai.client.inference.usage.cache_read.input_tokens": 1,
        "gen_ai.client.inference.operation.input_tokens": 3,
        "gen_ai.client.inference.operation.output_tokens": 2,
    }
    assert not set(old) & set(new)


def test_names_are_unique_in_each_vocabulary_but_for_what_is_one_metric_there():
    for words in ("1.41", "latest"):
        names = [name for one in INSTRUMENTS if (name := one.name(words))]
        assert {name for name in names if names.count(name) > 1} <= {"gen_ai.client.operation.duration"}
    assert api.get_meter_provider() is not None


# ---------------------------------------------------------------------------------------------------------- prometheus


def test_prometheus_reads_what_prometheus_client_wrote(recorder):
    hostile = 'a"b\\c\nd{x="y"} 1\n# HELP fake 1'
    recorder.record([call(hostile), call(hostile, seconds=0.03)])
    families = {one.name: one for one in text_string_to_metric_families(recorder.prometheus())}
    duration = families["gen_ai_client_operation_duration_seconds"]
    mine = [s for s in duration.samples if s.labels.get("gen_ai_request_model") == hostile]
    assert {s.name.rpartition("_")[2]: s.value for s in mine if not s.name.endswith("bucket")} == {
        "count": 2,
        "sum": 2.03,
    }
    buckets = {s.labels["le"]: s.value for s in mine if s.name.endswith("_bucket")}
    assert (buckets["0.02"], buckets["0.04"], buckets["2.56"], buckets["+Inf"]) == (0, 1, 2, 2)
    assert families["target_info"].samples[0].labels["service_name"] == "notebook"
    assert "fake" not in families


def test_prometheus_has_units_in_names_and_counters_end_in_total():
    made = Metrics(Memory([gpu()], [served(10, 5)]), lambda _span_id: None)
    made.attach()
    try:
        text = made.prometheus()
    finally:
        made.detach()
    names = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    assert {
        "hw_gpu_memory_usage_bytes",
        "hw_gpu_utilization_ratio",
        "hw_power_watts",
        "hw_energy_joules_total",
        "hw_temperature_celsius",
        "llama_cpp_server_output_tokens_total",
        "llama_cpp_server_kv_cache_usage",
    } <= names


def test_an_otlp_exporter_takes_what_was_counted(recorder, model):
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.metrics_encoder")
    recorder.record([call(model, span_id="9a")])
    (sent,) = encoder.encode_metrics(recorder.data()).resource_metrics
    (scope,) = [one for one in sent.scope_metrics if one.scope.name == SCOPE]
    found = {metric.name: metric for metric in scope.metrics}
    (point,) = [
        one
        for one in found["gen_ai.client.operation.duration"].histogram.data_points
        if model in {a.value.string_value for a in one.attributes}
    ]
    assert (point.count, point.sum, sum(point.bucket_counts)) == (1, 2.0, 1)
    assert point.exemplars[0].span_id == bytes.fromhex("9a".zfill(16))
    assert point.start_time_unix_nano < point.time_unix_nano <= now_ns()

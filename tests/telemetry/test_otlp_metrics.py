"""Metrics over OTLP/HTTP: what arrives, in both protocols, and what becomes of a round that fails."""

from __future__ import annotations

import dataclasses
import logging
import os
import time

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otlpworld import attributes, collector

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.errors import ExportError
from llamatelemetry_jupyter.telemetry import destination, otlp_metrics
from llamatelemetry_jupyter.telemetry.metrics import Metrics
from llamatelemetry_jupyter.telemetry.otlp import Exporter
from llamatelemetry_jupyter.telemetry.sending import Sending
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tracer import SCOPE
from llamatelemetry_jupyter.values import DeviceInfo, DeviceSample, Samples, SpanRow

GPU = DeviceSample(0, "GPU-1", 5, 10, 0.5, None, 70.0, 100.0, 40.0)


class Ring:
    def latest(self):
        return Samples.of([dataclasses.replace(GPU, t_ns=now_ns())], [])

    def devices(self):
        return (DeviceInfo("GPU-1", "Tesla T4", 10, 5),)


@pytest.fixture
def metrics():
    made = Metrics(Ring(), lambda span_id: None)
    made.attach()
    yield made
    made.detach()


@pytest.fixture
def collecting():
    with collector() as world:
        yield world


def target(url, **environ):
    return destination.find(url, environ, "metrics")


def call(model, host="127.0.0.1", tokens=8):
    about = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": model, "server.address": host, "server.port": 8000,
    }  # fmt: skip
    return SpanRow(
        "ab" * 16, "cd" * 8, None, f"chat {model}", "client", 10**9, 3 * 10**9, attributes=about, scope=SCOPE,
        output_tokens=tokens,
    )  # fmt: skip


def until(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def sent_once(metrics, where, **options):
    exporter = otlp_metrics.MetricsExporter(metrics.data, where, interval_s=3600, **options).start()
    until(lambda: exporter.progress().rounds == 1)
    return exporter


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_what_arrives_is_what_was_counted(metrics, collecting, protocol):
    model = f"m-{protocol[5:]}"  # a process counts all that its tests do
    metrics.record([call(model, tokens=8), call(model, tokens=4)])
    exporter = sent_once(metrics, target(collecting.url, OTEL_EXPORTER_OTLP_PROTOCOL=protocol))
    exporter.close()
    assert collecting.paths == ["/v1/metrics"] * 2  # at once, and at the end
    (request, _) = collecting.metrics()
    assert attributes(request.resource_metrics[0].resource.attributes)["service.name"]
    found = {metric.name: metric for metric in collecting.points()}
    usage = found["gen_ai.client.token.usage"]
    (point,) = [p for p in usage.histogram.data_points if attributes(p.attributes)["gen_ai.request.model"] == model]
    assert (usage.unit, usage.histogram.aggregation_temporality) == ("{token}", 2)
    assert (point.count, point.sum, point.min, point.max) == (2, 12, 4, 8)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert {(one.trace_id.hex(), one.span_id.hex()) for one in point.exemplars} == {("ab" * 16, "cd" * 8)}
    (power,) = found["hw.power"].gauge.data_points
    assert (power.as_double, attributes(power.attributes)["hw.model"]) == (70.0, "Tesla T4")
    (energy,) = found["hw.energy"].sum.data_points
    assert (energy.as_double, found["hw.energy"].sum.is_monotonic) == (100.0, True)


def test_hosts_are_left_out_and_their_points_stay_apart(metrics, collecting):
    metrics.record([call("m-hosts", "box-one", 1), call("m-hosts", "10.0.0.7", 2), call("m-hosts", tokens=3)])
    sent_once(metrics, target(collecting.url)).close()
    sent_once(metrics, target(collecting.url), everything=True).close()

    def sums(request):
        points = [
            p
            for scope in request.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            if metric.name == "gen_ai.client.token.usage"
            for p in metric.histogram.data_points
        ]
        told = [(attributes(p.attributes), p.sum) for p in points]
        return {a["server.address"]: total for a, total in told if a["gen_ai.request.model"] == "m-hosts"}

    by_default, _, all_of_it, _ = collecting.metrics()
    assert sums(by_default) == {"[host]": 1, "[host] 2": 2, "127.0.0.1": 3}
    assert sums(all_of_it) == {"box-one": 1, "10.0.0.7": 2, "127.0.0.1": 3}


def test_a_round_that_fails_is_said_once_and_made_up_for(metrics, collecting, caplog):
    collecting.answers[:] = [503, 500]
    metrics.record([call("m-fails")])
    exporter = otlp_metrics.MetricsExporter(metrics.data, target(collecting.url), interval_s=0.02).start()
    with caplog.at_level(logging.WARNING):
        until(lambda: exporter.progress().rounds)
    assert exporter.progress().error is None
    exporter.close()
    assert len([r for r in caplog.records if "metrics cannot be sent" in r.message]) == 1
    names = {metric.name for metric in collecting.points()}
    assert "gen_ai.client.token.usage" in names


def test_points_that_a_receiver_says_it_did_not_take_are_told(metrics, collecting):
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points, answer.partial_success.error_message = 1, "no delta"
    collecting.answer = answer.SerializeToString()
    exporter = sent_once(metrics, target(collecting.url))
    until(lambda: exporter.progress().error)
    assert exporter.progress().error == "1 points were refused: no delta"
    exporter.close()


def test_both_end_within_two_seconds_when_the_receiver_hangs(metrics, collecting):
    collecting.silent = True
    store = SpanStore(None)
    store.append(call("m-hangs"))
    sending = Sending(
        Exporter(store, destination.find(collecting.url, {}), {}),
        otlp_metrics.MetricsExporter(metrics.data, target(collecting.url)),
    ).start()
    assert collecting.arrived.wait(20)
    begun = time.monotonic()
    sending.close()
    assert time.monotonic() - begun < 3.0
    assert len(store.rows()) == 1
    store.close()


def test_a_forked_child_sends_nothing(metrics, collecting):
    exporter = sent_once(metrics, target(collecting.url))
    child = os.fork()
    if child == 0:
        exporter.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(collecting.bodies) == 1
    exporter.close()


def test_metrics_of_other_libraries_go_with_ours_in_every_form():
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("theirs")
    meter.create_histogram("h").record(1.5, {"user.id": "me", "n": 1})
    meter.create_up_down_counter("u").add(-2, {"path": "/home/me/x.csv"})
    meter.create_observable_gauge("g", [lambda options: [Observation(1.5, {})]])
    for as_json in (False, True):
        body, points = otlp_metrics.encoded(otlp_metrics.public(reader.get_metrics_data()), as_json=as_json)
        assert points == 3
        assert b"/home/me" not in body and b"user.id" not in body


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [({}, 60.0), ({"OTEL_METRIC_EXPORT_INTERVAL": "5000"}, 5.0)],
)
def test_the_interval_is_the_standards(environ, seconds):
    assert otlp_metrics.interval(environ) == seconds


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "in milliseconds"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "5"}, "1000 or more"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}, "cumulative here, not 'delta'"),
    ],
)
def test_an_interval_that_cannot_be_is_two_lines(environ, says):
    with pytest.raises(ExportError, match=says) as error:
        otlp_metrics.interval(environ)
    assert len(error.value._render_traceback_()) == 2


def test_without_the_package_it_says_what_to_type(metrics, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.common.metrics_encoder", None)
    with pytest.raises(ExportError, match="proto-common") as error:
        otlp_metrics.MetricsExporter(metrics.data, target("http://localhost:1"))
    assert "[otlp]" in error.value.hint

"""Rows over OTLP/HTTP: what arrives, when, and what a receiver that is away, slow or strict does to a cell and to the rows."""

from __future__ import annotations

import os
import socket
import time

import pytest
from otlpworld import attributes, collector
from viewworld import Memory, trace

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.errors import ExportError
from llamatelemetry_jupyter.telemetry import destination, otlp, semconv
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import DeviceSample, SpanRow

RESOURCE = {"service.name": "notebook", "host.name": "my-private-host"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Rounds of 20 ms, pauses of as much; a row is final at once."""
    monkeypatch.setattr(otlp, "_PAUSE_S", 0.02)
    monkeypatch.setattr(otlp, "_ROUND_S", 0.02)
    monkeypatch.setattr(otlp, "_FINAL_S", 0.0)


@pytest.fixture
def store():
    made = SpanStore(None)
    yield made
    made.close()


@pytest.fixture
def collecting():
    with collector() as world:
        yield world


@pytest.fixture
def export(store):
    running = []

    def start(url, **options):
        made = otlp.Exporter(store, destination.find(url, {}), RESOURCE, **options).start()
        running.append(made)
        return made

    yield start
    for one in running:
        one.close()


def until(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def fill(store, rows):
    for row in rows:
        store.append(row)


def test_rows_that_are_there_and_those_to_come_arrive_as_protobuf(store, collecting, export):
    first, second = trace(1, 8), trace(2, 14, calls=2)
    fill(store, first)
    exporter = export(collecting.url)
    until(lambda: exporter.progress().sent == len(first))
    fill(store, second)
    until(lambda: exporter.progress().sent == len(first) + len(second))
    assert exporter.progress().waiting == 0
    spans = collecting.spans()
    assert [s.span_id.hex() for s in spans] == [r.span_id for r in [*first, *second]]
    assert [(s.name, s.start_time_unix_nano, s.end_time_unix_nano) for s in spans] == [
        (r.name, r.start_ns, r.end_ns) for r in [*first, *second]
    ]
    request = collecting.requests()[0]
    assert attributes(request.resource_spans[0].resource.attributes) == {"service.name": "notebook"}
    assert collecting.paths[0] == "/v1/traces"
    assert collecting.headers[0]["content-type"] == "application/x-protobuf"


def test_energy_and_memory_of_a_span_are_there_when_it_is_sent(collecting, monkeypatch):
    monkeypatch.setattr(otlp, "_FINAL_S", 1.0)  # joined when the next sample has come
    now = now_ns()
    samples = [DeviceSample(now + i * 10**8, "GPU-0", 100, 1000, energy_j=50.0 * i) for i in range(-20, 40)]
    store = SpanStore(None, Memory(samples))
    exporter = otlp.Exporter(store, destination.find(collecting.url, {}), RESOURCE).start()
    store.append(SpanRow("1" * 32, "2" * 16, None, "chat m", "client", now, now + 10**9, server="127.0.0.1:80"))
    until(lambda: exporter.progress().sent == 1)
    exporter.close()
    store.close()
    (span,) = collecting.spans()
    assert attributes(span.attributes)[semconv.ENERGY] == pytest.approx(500.0)


def test_json_gzip_and_headers_come_from_the_standards_variables(store, collecting):
    fill(store, trace(1, 8))
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collecting.url}/api/public/otel/",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc, x-project = p",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
    }
    exporter = otlp.Exporter(store, destination.find(None, environ), RESOURCE).start()
    until(lambda: exporter.progress().sent == 5)
    exporter.close()
    assert collecting.paths == ["/api/public/otel/v1/traces"]
    headers = collecting.headers[0]
    assert (headers["authorization"], headers["x-project"], headers["content-encoding"]) == ("Bearer abc", "p", "gzip")
    assert [s.span_id.hex() for s in collecting.spans()] == [r.span_id for r in trace(1, 8)]
    assert "abc" not in repr(exporter.destination)


def test_a_receiver_that_comes_back_gets_everything_once_and_in_order(store, export):
    port = free_port()
    rows = [*trace(1, 8), *trace(2, 9)]
    fill(store, rows[:5])
    exporter = export(f"http://127.0.0.1:{port}")
    assert exporter.probe() == "nothing answers there"
    until(lambda: exporter.progress().error is not None)
    fill(store, rows[5:])
    assert exporter.progress().waiting == len(rows)
    with collector(port) as world:
        until(lambda: exporter.progress().sent == len(rows))
        assert exporter.progress().error is None
        assert [s.span_id.hex() for s in world.spans()] == [r.span_id for r in rows]


@pytest.mark.parametrize("status", [429, 502, 503, 504, 401, 500])
def test_what_may_get_better_is_tried_again(store, collecting, export, status):
    collecting.answers[:] = [status, status]
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    until(lambda: exporter.progress().sent == 5, timeout_s=30)
    assert exporter.progress().refused == 0
    assert len(collecting.spans()) == 5


def test_a_batch_that_is_at_fault_is_counted_and_the_next_is_sent(store, collecting, export):
    collecting.answers[:] = [400]
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    until(lambda: exporter.progress().refused == 5 and exporter.progress().waiting == 0)
    assert exporter.progress().error == "HTTP 400: no, because of reasons"
    fill(store, trace(2, 9))
    until(lambda: exporter.progress().sent == 5)
    assert len(store.rows()) == 10  # here nothing is lost


def test_a_batch_that_is_too_large_is_sent_in_parts(store, collecting, export):
    collecting.answers[:] = [413, 413]
    rows = [row for number in range(1, 5) for row in trace(number, 8)]
    fill(store, rows)
    exporter = export(collecting.url)
    until(lambda: exporter.progress().sent == len(rows))
    assert [s.span_id.hex() for s in collecting.spans()] == [r.span_id for r in rows]
    assert len(collecting.bodies) >= 4


def test_spans_that_a_receiver_says_it_did_not_take_are_counted(store, collecting, export):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans, response.partial_success.error_message = 2, "too old"
    collecting.answer = response.SerializeToString()
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    until(lambda: exporter.progress().waiting == 0)
    assert (exporter.progress().sent, exporter.progress().refused) == (3, 2)
    assert exporter.progress().error == "2 spans were refused: too old"


def test_a_redirect_is_not_followed(store, collecting, export):
    collecting.answers[:] = [307]
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    until(lambda: exporter.progress().sent == 5)
    assert len(list(filter(None, collecting.bodies))) == 1  # beside the question whether it is back


def test_what_is_waiting_is_sent_at_the_end(store, collecting, export, monkeypatch):
    monkeypatch.setattr(otlp, "_FINAL_S", 3600.0)
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    exporter.close()
    assert len(collecting.spans()) == 5
    assert not exporter.progress().running


def test_the_end_waits_two_seconds_for_a_receiver_that_hangs_and_no_row_is_lost(store, collecting, export):
    collecting.silent = True
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    assert collecting.arrived.wait(20)
    begun = time.monotonic()
    exporter.close()
    assert time.monotonic() - begun < otlp.TIMEOUT_S + 1.0
    assert len(store.rows()) == 5


def test_a_forked_child_sends_nothing(store, collecting, export, monkeypatch):
    monkeypatch.setattr(otlp, "_FINAL_S", 3600.0)
    fill(store, trace(1, 8))
    exporter = export(collecting.url)
    child = os.fork()
    if child == 0:
        exporter.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert collecting.bodies == []


def test_everything_is_sent_only_when_asked_for(store, collecting, export):
    told = {
        semconv.INPUT_MESSAGES: '[{"role":"user"}]',
        "code.file.path": "/home/me/x.py",
        "server.address": "gpu-box.lan",
        "n": 1,
    }
    store.append(SpanRow("1" * 32, "2" * 16, None, "chat m", "client", 1, 2, attributes=told))
    until_sent = export(collecting.url)
    until(lambda: until_sent.progress().sent == 1)
    until_sent.close()
    everything = export(collecting.url, everything=True)
    until(lambda: everything.progress().sent == 1)
    by_default, all_of_it = (attributes(span.attributes) for span in collecting.spans())
    assert by_default == {"server.address": "[host]", "n": 1}
    assert all_of_it == told


@pytest.mark.parametrize(
    ("endpoint", "environ", "says"),
    [
        (None, {}, "no endpoint is named"),
        ("collector:4318", {}, "not the address"),
        ("ftp://host/", {}, "not the address"),
        ("http://host:port/", {}, "not the address"),
        ("http://[::1", {}, "not the address"),
        ("http://h", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "over grpc"),
        ("http://h", {"OTEL_EXPORTER_OTLP_HEADERS": "s3cr3t"}, "HEADERS is not name=value"),
        ("http://h", {"OTEL_EXPORTER_OTLP_HEADERS": "a=s3cr3t%0d%0ax: y"}, "HEADERS is not name=value"),
    ],
)
def test_a_destination_that_cannot_be_is_two_lines_without_the_secret(endpoint, environ, says):
    with pytest.raises(ExportError, match=says) as error:
        destination.find(endpoint, environ)
    lines = error.value._render_traceback_()
    assert len(lines) == 2
    assert not any("\n" in line or "s3cr3t" in line for line in lines)


@pytest.mark.parametrize(
    ("endpoint", "environ", "url"),
    [
        ("http://localhost:4318", {}, "http://localhost:4318/v1/traces"),
        ("http://h/v1/traces", {}, "http://h/v1/traces"),
        ("https://h/api/otel", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}, "https://h/api/otel/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1/x/"}, "http://h:1/x/v1/traces"),
        (
            None,
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:1/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o"},
            "http://h:1/x",
        ),
    ],
)
def test_endpoints_follow_the_specification(endpoint, environ, url):
    assert destination.find(endpoint, environ).url == url


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:4318", True),
        ("http://127.0.0.1:4318", True),
        ("http://[::1]:4318", True),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://user:pw@collector.example.org:4318", False),
    ],
)
def test_only_this_machine_counts_as_here_and_no_credentials_are_shown(url, here):
    found = destination.find(url, {})
    assert found.here is here
    assert "pw" not in found.host


def test_without_the_package_protobuf_says_what_to_type(store, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.proto.trace.v1.trace_pb2", None)
    with pytest.raises(ExportError, match="opentelemetry-proto") as error:
        otlp.Exporter(store, destination.find("http://localhost:1", {}), RESOURCE)
    assert "[otlp]" in error.value.hint
    json_only = destination.find("http://localhost:1", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    otlp.Exporter(store, json_only, RESOURCE).close()

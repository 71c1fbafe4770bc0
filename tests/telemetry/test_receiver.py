"""The receiver on loopback: what it takes, from whom, how much, and what becomes of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time

import pytest
import requests
from spanworld import OWN, TRACE

from llamatelemetry_jupyter.errors import ExportError
from llamatelemetry_jupyter.telemetry import otlp_json, otlp_proto, privacy, semconv
from llamatelemetry_jupyter.telemetry import receiver as receiver_module
from llamatelemetry_jupyter.telemetry.receiver import Receiver
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.wire import Wire

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
def store():
    made = SpanStore(None)
    yield made
    made.close()


@pytest.fixture
def receiver(store):
    made = Receiver(store, [OWN])
    yield made
    made.close()


def span(number=1, **fields):
    attributes = fields.pop("attributes", {"n": number})
    return Wire(
        TRACE,
        f"{number:016x}",
        None,
        "work",
        "server",
        1000 * number,
        2000 * number,
        attributes,
        resource={"service.name": "other"},
    )


def post(receiver, body, headers, path="/v1/traces"):
    with requests.Session() as http:
        http.trust_env = False
        return http.post(f"{receiver.endpoint}{path}", data=body, headers=headers, timeout=20)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("dumps", "headers"), [(otlp_json.dumps, JSON), (otlp_proto.dumps, PROTOBUF)])
def test_spans_land_in_the_store(store, receiver, dumps, headers, zipped):
    body = dumps([span(1), span(2)])
    body = body.encode() if isinstance(body, str) else body
    answer = post(
        receiver, gzip.compress(body) if zipped else body, headers | ({"Content-Encoding": "gzip"} if zipped else {})
    )
    assert answer.status_code == 200
    assert answer.content == (b"{}" if headers is JSON else b"")
    assert [(r.name, r.attributes["n"], r.attributes[semconv.RESOURCE]) for r in store.rows()] == [
        ("work", 1, {"service.name": "other"}),
        ("work", 2, {"service.name": "other"}),
    ]


def test_another_process_with_opentelemetrys_own_exporter_is_seen(store, receiver):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    code = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
with provider.get_tracer("worker").start_as_current_span("their work"):
    pass
"""
    import os

    environment = {**os.environ, **receiver.environment, "OTEL_SERVICE_NAME": "worker"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    (row,) = store.rows()
    assert (row.name, row.scope) == ("their work", "worker")
    assert row.attributes[semconv.RESOURCE]["service.name"] == "worker"


def test_a_span_that_is_sent_again_or_is_this_kernels_own_is_there_once(store, receiver):
    body = otlp_proto.dumps([span(1), span(1), span(2)])
    for _ in range(3):
        assert post(receiver, body, PROTOBUF).status_code == 200
    assert [r.span_id for r in store.rows()] == [f"{1:016x}", f"{2:016x}"]
    assert (receiver.received, receiver.duplicates) == (2, 7)


@pytest.mark.parametrize(
    ("body", "headers", "path", "status"),
    [
        (b"{}", JSON, "/v1/traces", 400),
        (b"nonsense", JSON, "/v1/traces", 400),
        (b"[" * 100_000, JSON, "/v1/traces", 400),
        (b"\xff\xff\xff", PROTOBUF, "/v1/traces", 400),
        (b"{}", {"Content-Type": "text/plain"}, "/v1/traces", 415),
        (b"{}", {}, "/v1/traces", 415),
        (b"{}", JSON | {"Content-Encoding": "br"}, "/v1/traces", 415),
        (b"{}", JSON | {"Content-Encoding": "gzip"}, "/v1/traces", 400),
        (gzip.compress(b"{}")[:-4], JSON | {"Content-Encoding": "gzip"}, "/v1/traces", 400),
        (b"{}", JSON, "/v1/metrics", 404),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"no ids"}]}]}]}', JSON, "/v1/traces", 400),
    ],
)
def test_what_is_no_span_is_refused_and_the_next_request_is_taken(store, receiver, body, headers, path, status):
    assert post(receiver, body, headers, path).status_code == status
    assert store.rows() == []
    assert post(receiver, otlp_proto.dumps([span()]), PROTOBUF).status_code == 200


def test_nobody_who_was_not_told_the_address_can_send_and_no_page_can_ask(store, receiver):
    base = receiver.endpoint.rpartition("/")[0]
    assert base.startswith("http://127.0.0.1:")
    with requests.Session() as http:
        http.trust_env = False
        assert (
            http.post(f"{base}/v1/traces", data=otlp_proto.dumps([span()]), headers=PROTOBUF, timeout=20).status_code
            == 404
        )
        asked = http.options(f"{receiver.endpoint}/v1/traces", headers={"Origin": "http://evil"}, timeout=20)
        assert asked.status_code == 501
        assert "Access-Control-Allow-Origin" not in asked.headers
    assert store.rows() == []


def test_bodies_are_bounded_before_and_after_decompression(store, receiver, monkeypatch):
    monkeypatch.setattr(receiver_module, "MAX_BODY", 1000)
    monkeypatch.setattr(receiver_module, "MAX_PLAIN", 5000)
    assert post(receiver, b"x" * 1001, JSON).status_code == 413
    bomb = gzip.compress(b" " * 100_000)
    assert len(bomb) < 1000
    assert post(receiver, bomb, JSON | {"Content-Encoding": "gzip"}).status_code == 413
    assert post(receiver, otlp_json.dumps([span()]).encode(), JSON).status_code == 200


def test_content_of_others_is_kept_only_where_this_session_captures_and_secrets_never(store, receiver):
    said = {
        "input.value": "what is my secret plan",
        "llm.input_messages.0.message.content": "plan",
        "key": "hf_" + "a" * 34,
    }
    body = otlp_proto.dumps([span(1, attributes=said)])
    post(receiver, body, PROTOBUF)
    privacy.capture(True)
    try:
        post(receiver, otlp_proto.dumps([span(2, attributes=said)]), PROTOBUF)
    finally:
        privacy.capture(None)
    first, second = store.rows()
    masked = "[masked: Hugging Face token]"
    assert first.attributes == {"key": masked, semconv.RESOURCE: {"service.name": "other"}}
    assert second.attributes == {**said, "key": masked, semconv.RESOURCE: {"service.name": "other"}}


def test_many_senders_at_once(store, receiver):
    def send(first):
        for number in range(first, first + 10):
            assert post(receiver, otlp_json.dumps([span(number)]).encode(), JSON).status_code == 200

    threads = [threading.Thread(target=send, args=(1 + 10 * i,)) for i in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({r.span_id for r in store.rows()}) == len(store.rows()) == 80


def test_a_sender_that_goes_away_in_the_middle_is_no_matter(store, receiver):
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(receiver.endpoint)
    with socket.create_connection((parts.hostname, parts.port)) as half:
        half.sendall(
            f"POST {parts.path}/v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
    assert post(receiver, otlp_json.dumps([span()]).encode(), JSON).status_code == 200


def test_a_port_that_is_taken_is_two_lines(store, receiver):
    port = int(receiver.endpoint.split(":")[2].partition("/")[0])
    with pytest.raises(ExportError, match=f"port {port} cannot be used"):
        Receiver(store, [], port)
    with pytest.raises(ExportError, match="no port"):
        Receiver(store, [], 70_000)


def test_without_the_package_protobuf_is_refused_with_what_to_do(store, receiver, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.trace.v1.trace_pb2", None)
    answer = post(receiver, b"", PROTOBUF)
    assert answer.status_code == 415
    assert "http/json" in json.loads(answer.content)["message"]
    assert post(receiver, otlp_json.dumps([span()]).encode(), JSON).status_code == 200


def test_after_close_nothing_answers_and_no_thread_is_left(store):
    made = Receiver(store, [])
    made.close()
    deadline = time.monotonic() + 10
    while any(t.name == "llamatelemetry-receiver" for t in threading.enumerate()):
        assert time.monotonic() < deadline
    with pytest.raises(requests.ConnectionError):
        post(made, b"{}", JSON)

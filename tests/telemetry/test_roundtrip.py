"""What leaves comes back the same: as JSON lines, as protobuf, as Parquet, through the store."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 (a provider that is made before this hangs every forked child, SDK 1.45)
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spanworld import OWN, SPAN, TRACE, spans

from llamatelemetry_jupyter.progress import Step
from llamatelemetry_jupyter.telemetry import exchange, otlp_json, parquet, semconv
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.wire import Wire, from_row, to_row
from llamatelemetry_jupyter.values import SpanRow


def through_json(rows):
    out = "\n".join(otlp_json.lines((from_row(row, OWN) for row in rows), per_line=2))
    assert out.count("\n") == (len(rows) - 1) // 2
    return [to_row(span, OWN) for line in out.split("\n") for span in otlp_json.loads(line)]


@pytest.mark.floor
@given(st.lists(spans, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_json_lines_in_out_in_is_identical(found):
    first = [to_row(span, OWN) for span in found]
    assert through_json(first) == first


@given(st.lists(spans, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_protobuf_in_out_in_is_identical(found):
    from llamatelemetry_jupyter.telemetry import otlp_proto

    first = [to_row(span, OWN) for span in found]
    assert [to_row(s, OWN) for s in otlp_proto.loads(otlp_proto.dumps([from_row(r, OWN) for r in first]))] == first


@pytest.mark.floor
@given(st.lists(spans, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_parquet_in_out_in_is_identical(tmp_path_factory, found):
    first = [to_row(span, OWN) for span in found]
    path = tmp_path_factory.mktemp("parquet") / "spans.parquet"
    assert parquet.write(path, ((row, from_row(row, OWN)) for row in first)) == len(first)
    assert [to_row(span, OWN) for span in parquet.read(path)] == first


@pytest.mark.floor
@given(st.lists(spans, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_the_stores_file_changes_nothing(tmp_path_factory, found):
    first = [to_row(span, OWN) for span in found]
    path = tmp_path_factory.mktemp("store") / "spans.sqlite"
    store = SpanStore(path)
    for row in first:
        store.append(row)
    store.close()
    again = SpanStore(path)
    assert list(again.rows()) == first
    again.close()


def a_row(**fields):
    known = {
        "trace_id": TRACE, "span_id": SPAN, "parent_id": None, "name": "chat m", "kind": "client", "start_ns": 1_000,
        "end_ns": 3_000,
    }  # fmt: skip
    return SpanRow(**(known | fields))


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_a_file_tells_how_many_spans_are_written_and_read(tmp_path, ending, everything):
    path, told = tmp_path / f"spans{ending}", []
    rows = [a_row(span_id=f"{number:016x}") for number in range(1, 601)]
    exchange.write(path, rows, OWN, everything=everything, on_progress=told.append)
    assert told == [Step(f"writing {path.name}", done, 600, "spans") for done in (0, 256, 512, 600)]
    if ending != ".json":  # a picture for Perfetto is not read again
        told.clear()
        store = SpanStore(tmp_path / "store.sqlite")
        assert exchange.read(path, store, told.append).new == 600
        store.close()
        assert told == [Step(f"reading {path.name}", done, None, "spans") for done in (0, 256, 512, 600)]


def test_a_row_of_this_kernel_comes_back_with_energy_memory_and_the_cell_of_its_trace():
    row = a_row(
        energy_j=1.5,
        peak_bytes=2**31,
        cell_id="cell-7",
        server="default",  # a name that does not follow from an address
        model="m",
        input_tokens=3,
        ttft_s=0.25,
        attributes={
            semconv.REQUEST_MODEL: "m",
            semconv.USAGE_INPUT_TOKENS: 3,
            semconv.RESPONSE_TIME_TO_FIRST_CHUNK: 0.25,
        },
    )
    assert through_json([row]) == [row]
    (span,) = otlp_json.loads(otlp_json.dumps([from_row(row, OWN)]))
    assert span.attributes["llama_cpp.energy_j"] == 1.5
    assert span.attributes["llama_cpp.peak_bytes"] == 2**31
    assert "llama_cpp.row.input_tokens" not in span.attributes  # it is an attribute already


def test_json_is_what_the_specification_says():
    from google.protobuf import json_format
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    row = a_row(
        parent_id="eee19b7ec3c1b173", status="error", attributes={"n": 2**53 + 1, "f": 0.5, "l": ["a", 1], "none": None}
    )
    (line,) = otlp_json.lines([from_row(row, OWN)])
    span = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == TRACE
    assert span["kind"] == 3
    assert span["startTimeUnixNano"] == "1000"
    assert span["status"] == {"code": 2}
    assert {"key": "n", "value": {"intValue": str(2**53 + 1)}} in span["attributes"]
    # Every field is one of the schema's: protobuf's own reader knows them all (ids apart, which it takes for base64).
    json_format.Parse(line, TracesData())


def test_what_the_sdks_own_encoder_writes_is_read_with_ids_events_links_and_resource():
    common = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Link, Status, StatusCode

    from llamatelemetry_jupyter.telemetry import otlp_proto

    memory, provider = InMemorySpanExporter(), TracerProvider(resource=Resource({"service.name": "other", "n": 1}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("their.scope", "1.2")
    with tracer.start_as_current_span("outer") as outer:
        with tracer.start_as_current_span("inner", links=[Link(outer.get_span_context(), {"why": "test"})]) as inner:
            inner.add_event("halfway", {"k": [1, 2]})
            inner.set_status(Status(StatusCode.ERROR, "it broke"))
            inner.set_attribute("raw", b"\x00\x01")
    body = common.encode_spans(memory.get_finished_spans()).SerializeToString()
    rows = {row.name: row for row in (to_row(span, OWN) for span in otlp_proto.loads(body))}
    row = rows["inner"]
    assert row.parent_id == f"{outer.get_span_context().span_id:016x}"
    assert (row.status, row.scope) == ("error", "their.scope")
    kept = row.attributes
    assert kept[semconv.STATUS_MESSAGE] == "it broke"
    assert kept[semconv.SCOPE_VERSION] == "1.2"
    assert kept["raw"] == "AAE="
    assert kept[semconv.RESOURCE] == {"service.name": "other", "n": 1}
    assert kept[semconv.EVENTS][0]["name"] == "halfway"
    assert kept[semconv.EVENTS][0]["attributes"] == {"k": [1, 2]}
    assert kept[semconv.LINKS][0]["trace_id"] == row.trace_id
    assert through_json(list(rows.values())) == list(rows.values())


@pytest.mark.floor
@pytest.mark.parametrize(
    ("theirs", "column", "value"),
    [
        ({"llm.token_count.prompt": 7}, "input_tokens", 7),  # OpenInference
        ({"llm.model_name": "m"}, "model", "m"),
        ({"gen_ai.usage.prompt_tokens": 7}, "input_tokens", 7),  # GenAI before 1.27, Traceloop
        ({"gen_ai.usage.completion_tokens": 8}, "output_tokens", 8),
        ({"llm.usage.completion_tokens": 8}, "output_tokens", 8),
        ({"gen_ai.usage.cache_read_input_tokens": 5}, "cached_tokens", 5),
        ({"ai.usage.promptTokens": 7.0}, "input_tokens", 7),  # Vercel
        ({"gen_ai.server.time_to_first_token": 0.5}, "ttft_s", 0.5),
    ],
)
def test_other_vocabularies_fill_the_columns(theirs, column, value):
    row = to_row(Wire(TRACE, SPAN, None, "llm", "client", 1, 2, theirs))
    assert getattr(row, column) == value
    assert row.attributes == theirs


@pytest.mark.floor
def test_a_call_in_another_vocabulary_counts_as_a_call():
    store = SpanStore(None)
    theirs = {"openinference.span.kind": "LLM", "llm.provider": "openai", "llm.token_count.completion": 4}
    store.append(to_row(Wire(TRACE, SPAN, None, "ChatOpenAI", "internal", 1, 2, theirs)))
    totals = store.totals()
    assert (totals["calls"], totals["output_tokens"]) == (1, 4)
    assert store.rows()[0].attributes[semconv.PROVIDER_NAME] == "openai"
    store.close()


@pytest.mark.floor
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "not json",
        '{"resourceSpans": 5}',
        '{"resourceSpans": [5]}',
        '{"resourceMetrics": []}',
        "[" * 100_000,
    ],
)
def test_what_is_not_otlp_is_a_value_error(text):
    with pytest.raises(ValueError):
        otlp_json.loads(text)


@pytest.mark.floor
def test_ids_as_protobufs_own_json_writer_makes_them_and_names_of_the_schema_are_read():
    line = json.dumps(
        {
            "resource_spans": [
                {
                    "scope_spans": [
                        {
                            "spans": [
                                {
                                    "trace_id": "W47/95gDgQPSabYzgT/GDA==",
                                    "span_id": "7uGbfsPBsXQ=",
                                    "kind": "SPAN_KIND_SERVER",
                                    "start_time_unix_nano": 5,
                                    "status": {"code": "STATUS_CODE_ERROR"},
                                }
                            ]
                        }
                    ]
                }
            ]
        }
    )
    (span,) = otlp_json.loads(line)
    assert (span.trace_id, span.span_id, span.kind, span.start_ns, span.status) == (TRACE, SPAN, "server", 5, "error")


@pytest.mark.parametrize("trace_id", ["", "0" * 32, "xyz", "5b8e", TRACE.upper()])
def test_a_span_without_ids_is_refused(trace_id):
    with pytest.raises(ValueError, match="no ids"):
        to_row(Wire(trace_id, SPAN, None, "x", "client", 1, 2, {}))


@pytest.mark.floor
def test_parquet_has_clickhouses_columns(tmp_path: Path):
    import pyarrow.parquet as pq

    path = tmp_path / "s.parquet"
    row = a_row(status="error", model="m", energy_j=2.0, attributes={"n": 1, "t": "x", "l": [1, "a"], "b": True})
    parquet.write(path, [(row, from_row(row, OWN))])
    names = pq.read_schema(path).names
    assert (
        names[:22]
        == (
            "Timestamp TraceId SpanId ParentSpanId TraceState SpanName SpanKind ServiceName ResourceAttributes ScopeName"
            " ScopeVersion SpanAttributes Duration StatusCode StatusMessage Events.Timestamp Events.Name Events.Attributes"
            " Links.TraceId Links.SpanId Links.TraceState Links.Attributes"
        ).split()
    )
    (line,) = pq.read_table(path).to_pylist()
    assert (line["SpanKind"], line["StatusCode"], line["Duration"], line["ServiceName"]) == (
        "Client",
        "Error",
        2000,
        "this notebook",
    )
    assert dict(line["SpanAttributes"])["n"] == "1"
    assert dict(line["SpanAttributes"])["l"] == '[1,"a"]'
    assert dict(line["SpanAttributes"])["b"] == "true"
    assert (line["model"], line["energy_j"]) == ("m", 2.0)

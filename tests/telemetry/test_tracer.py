"""What a request's spans say, on the provider that a notebook happens to have.

OpenTelemetry's provider can be set once per process, so each case with a provider of its own runs in a fresh one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading

import pytest
from opentelemetry import trace

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.errors import RequestError, ServerError
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tracer import Telemetry
from llamatelemetry_jupyter.values import Outcome, Timings

pytestmark = pytest.mark.floor
MS = 10**6


@pytest.fixture
def telemetry():
    made = Telemetry(SpanStore(None))
    made.attach()
    yield made
    made.detach()
    made.store.close()


def outcome(sent_ns, **fields):
    """An answer of 3 tokens: 20 ms in the queue, 80 ms prefill, 200 ms decode."""
    known = {
        "sent_ns": sent_ns,
        "first_token_ns": sent_ns + 100 * MS,
        "end_ns": sent_ns + 300 * MS,
        "finish_reason": "stop",
        "response_id": "chatcmpl-1",
        "response_model": "m",
        "input_tokens": 9,
        "output_tokens": 3,
        "timings": Timings(
            queue_s=0.02, prefill_s=0.08, decode_s=0.2, ttft_s=0.1, decode_tokens_per_s=10.0, cached_tokens=7
        ),
        "gaps_s": (0.1, 0.1),
        "raw_timings": {"prompt_n": 2.0, "predicted_ms": 200.0},
        "slot": 1,
        "output": "hello",
    }
    return Outcome(**(known | fields))


BODY = {
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0.5,
    "top_k": 40.0,
    "max_tokens": 8,
    "seed": 1,
    "stop": "\n",
    "stream": True,
}


def call(telemetry, body=BODY):
    return telemetry.observer.start("chat", "m", "127.0.0.1", 8080, body)


def named(telemetry, name):
    (found,) = [row for row in telemetry.store.rows() if row.name == name]
    return found


def test_a_request_is_a_client_span_with_the_conventions_attributes(telemetry):
    started = call(telemetry)
    started.end(outcome(now_ns()))
    row = named(telemetry, "chat m")
    assert (row.kind, row.status, row.parent_id, row.error_type) == ("client", "unset", None, None)
    assert (row.model, row.server, row.input_tokens, row.output_tokens, row.cached_tokens) == (
        "m",
        "127.0.0.1:8080",
        9,
        3,
        7,
    )
    assert (row.ttft_s, row.decode_tokens_per_s) == (0.1, 10.0)
    assert started.trace_id == row.trace_id
    assert started.headers == {"traceparent": f"00-{row.trace_id}-{row.span_id}-{started.headers['traceparent'][-2:]}"}
    said = row.attributes
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "llama.cpp"
    assert said["gen_ai.request.stream"] is True
    assert said["gen_ai.request.stop_sequences"] == ["\n"]
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert said["llama_cpp.timings.prompt_n"] == 2.0
    assert said["llama_cpp.token_gap.p95_s"] == 0.1
    assert type(said["gen_ai.request.top_k"]) is int
    assert type(said["gen_ai.request.temperature"]) is float
    assert not any("messages" in name for name in said)  # content stays out unless asked for


def test_where_its_time_went_is_told_by_three_children(telemetry):
    sent = now_ns()
    call(telemetry).end(outcome(sent))
    parent = named(telemetry, "chat m")
    phases = {name: named(telemetry, name) for name in ("queue", "prefill", "decode")}
    assert {row.parent_id for row in phases.values()} == {parent.span_id}
    assert [((r.start_ns - sent) // MS, (r.end_ns - sent) // MS) for r in phases.values()] == [
        (0, 20),
        (20, 100),
        (100, 300),
    ]
    assert {row.server for row in phases.values()} == {"127.0.0.1:8080"}


def test_without_the_servers_timings_the_queue_is_not_guessed(telemetry):
    sent = now_ns()
    call(telemetry).end(outcome(sent, timings=Timings(), finish_reason="interrupted"))
    assert {row.name for row in telemetry.store.rows()} == {"chat m", "prefill", "decode"}
    assert named(telemetry, "prefill").attributes["llama_cpp.phases"] == "queue included in prefill"
    assert named(telemetry, "prefill").start_ns == sent


def test_an_answer_in_one_piece_has_the_servers_phases(telemetry):
    sent = now_ns()
    call(telemetry).end(outcome(sent, first_token_ns=None))
    assert ((named(telemetry, "prefill").end_ns - sent) // MS, (named(telemetry, "decode").end_ns - sent) // MS) == (
        100,
        300,
    )
    assert named(telemetry, "chat m").ttft_s is None


def test_an_interrupted_answer_is_an_error_that_keeps_its_usage(telemetry):
    call(telemetry).end(outcome(now_ns(), finish_reason="interrupted", output_tokens=2))
    row = named(telemetry, "chat m")
    assert (row.status, row.error_type, row.output_tokens) == ("error", "KeyboardInterrupt", 2)
    assert row.attributes["gen_ai.response.finish_reasons"] == ["error"]


def test_leaving_a_stream_early_is_no_error(telemetry):
    call(telemetry).end(outcome(now_ns(), finish_reason="interrupted", abandoned=True))
    row = named(telemetry, "chat m")
    assert (row.status, row.error_type) == ("unset", None)
    assert row.attributes["llama_cpp.stream.abandoned"] is True


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("too long", status=400, kind="exceed_context_size_error"), "exceed_context_size_error"),
        (RequestError("no", status=503), "503"),
        (ServerError("gone"), "ServerError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_failed_request_says_why(telemetry, error, kind):
    started = call(telemetry)
    started.fail(error, outcome(now_ns(), finish_reason="error"))
    started.fail(ValueError("late"))
    row = named(telemetry, "chat m")
    assert (row.status, row.error_type, row.output_tokens) == ("error", kind, 3)


def test_content_is_recorded_when_asked_for_as_json_of_bounded_size(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    long = [{"role": "user", "content": '"\n' * 9000}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    call(telemetry, {"messages": long}).end(outcome(now_ns()))
    said = named(telemetry, "chat m").attributes
    messages = json.loads(said["gen_ai.input.messages"])
    assert len(said["gen_ai.input.messages"]) <= 8192
    assert messages[-1] == {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    assert messages[0]["parts"][0]["content"].endswith("…truncated")
    assert json.loads(said["gen_ai.output.messages"])[0]["parts"][0]["content"] == "hello"


def test_a_call_has_the_parent_of_the_moment_it_began_and_is_never_current(telemetry):
    tracer = trace.get_tracer("user")
    with tracer.start_as_current_span("mine") as mine:
        started = call(telemetry)
        assert trace.get_current_span() is mine
    thread = threading.Thread(target=started.end, args=(outcome(now_ns()),))
    thread.start()
    thread.join()
    assert named(telemetry, "chat m").parent_id == named(telemetry, "mine").span_id
    assert not trace.get_current_span().get_span_context().is_valid


def test_other_libraries_spans_land_in_the_same_store_graphistrys_do_not(telemetry):
    legacy = {
        "gen_ai.usage.prompt_tokens": 4,
        "llm.token_count.completion": 5,
        "llm.model_name": "x",
        "nan": float("nan"),
    }
    trace.get_tracer("openai").start_span("chat x", attributes=legacy).end()
    trace.get_tracer("hostile").start_span(
        "odd", attributes={"gen_ai.usage.input_tokens": "many", "jupyter.cell.id": 5, "long": "x" * 9000}
    ).end()
    trace.get_tracer("graphistry").start_span("graphistry.upload").end()
    one, odd = telemetry.store.rows()
    assert (one.scope, one.input_tokens, one.output_tokens, one.model) == ("openai", 4, 5, "x")
    assert (odd.input_tokens, odd.cell_id, len(odd.attributes["long"])) == (None, "5", 8192 + len("…truncated"))


def test_detached_nothing_is_recorded_and_ten_reloads_leave_one_processor(telemetry):
    provider = trace.get_tracer_provider()
    before = len(provider._active_span_processor._span_processors)
    telemetry.detach()
    assert not telemetry.attached
    call(telemetry).end(outcome(now_ns()))
    assert telemetry.store.rows() == []
    for _ in range(10):
        again = Telemetry(SpanStore(None))
        again.attach()
        call(again).end(outcome(now_ns()))
        assert len(again.store.rows()) == 4
        again.detach()
        again.store.close()
    assert len(provider._active_span_processor._span_processors) == before


def fresh(script):
    """Run ``script`` in a process of its own; returns what it printed."""
    setup = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from llamatelemetry_jupyter.telemetry.store import SpanStore
        from llamatelemetry_jupyter.telemetry.tracer import Telemetry
        telemetry = Telemetry(SpanStore(None), {"who": "me"})
        def chat():
            telemetry.observer.start("chat", "m", "127.0.0.1", 1, {}).fail(ValueError("x"))
    """
    code = textwrap.dedent(setup) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_provider_that_the_user_has_set_stays_and_gets_our_spans_too():
    out = fresh("""
        provider, memory = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        trace.set_tracer_provider(provider)
        telemetry.attach()
        chat()
        telemetry.detach()
        chat()
        assert trace.get_tracer_provider() is provider
        print(len(memory.get_finished_spans()), len(telemetry.store.rows()))
    """)
    assert out == "2 1\n"


def test_without_a_provider_ours_is_set_and_tracers_made_before_work():
    out = fresh("""
        early = trace.get_tracer("early")
        telemetry.attach()
        early.start_span("theirs").end()
        chat()
        provider = trace.get_tracer_provider()
        attributes = provider.resource.attributes
        print([r.name for r in telemetry.store.rows()], attributes["service.name"], attributes["who"], "host.name" in attributes)
        provider.shutdown()
        chat()
        print(len(telemetry.store.rows()))
    """)
    assert out == "['theirs', 'chat m'] notebook me False\n3\n"


def test_a_provider_set_after_ours_is_refused_by_opentelemetry_and_harmless():
    out = fresh("""
        telemetry.attach()
        trace.set_tracer_provider(TracerProvider())
        chat()
        print(len(telemetry.store.rows()))
    """)
    assert out.endswith("1\n") or out.startswith("1\n")
    assert "Overriding of current TracerProvider is not allowed" in out


def test_a_provider_without_processors_is_left_alone_and_calls_are_still_recorded():
    out = fresh("""
        trace.set_tracer_provider(trace.NoOpTracerProvider())
        telemetry.attach()
        chat()
        print([r.name for r in telemetry.store.rows()], type(trace.get_tracer_provider()).__name__)
    """)
    assert out == "['chat m'] NoOpTracerProvider\n"


def test_every_attribute_that_we_write_is_explained(telemetry):
    from llamatelemetry_jupyter.telemetry import semconv

    names = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
    explained = set(semconv.MEANING)
    values = {semconv.PROVIDER, semconv.INVOKE_AGENT, semconv.EXECUTE_TOOL}
    of_metrics = {semconv.TOKEN_TYPE, semconv.TOKEN_MODALITY, semconv.HW_ID, semconv.HW_TYPE, semconv.HW_MODEL}
    of_exports = {semconv.ENERGY, semconv.PEAK, semconv.COLUMN, semconv.MEMORY_OWNER}
    assert names - explained == values | of_metrics | of_exports
    call(telemetry).end(outcome(now_ns()))
    known = explained | set(semconv.REQUEST_OPTIONS.values())
    prefixes = tuple(name for name in explained if name.endswith("."))
    for row in telemetry.store.rows():
        assert [name for name in row.attributes if name not in known and not name.startswith(prefixes)] == []

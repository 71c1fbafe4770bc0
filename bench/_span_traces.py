"""One complete chat trace, written through ours and through each peer's own API: five spans, 39 attributes.

``python _span_traces.py WHO TRACES`` prints CPU per trace of the calling thread and of the whole process, and the bytes
kept per span. A fresh process each: what one keeps must not slow the other.
"""

from __future__ import annotations

import gc
import http.server
import json
import os
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVER = {"server.address": "127.0.0.1", "server.port": 40123}
CELL = {"jupyter.cell.id": "0f4e5c1e-6b55-4d11-9d3a-6a1f4a2f8a11", "jupyter.notebook.path": "work/tracing.ipynb"}
ASKED = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "llama.cpp", **SERVER,
    "gen_ai.request.model": "smollm2-135m:Q4_1", "gen_ai.request.stream": True, "gen_ai.request.temperature": 0.7,
    "gen_ai.request.max_tokens": 256, "gen_ai.request.seed": 1,
}  # fmt: skip
RAW = {
    "cache_n": 12.0, "prompt_n": 108.0, "prompt_ms": 201.345, "prompt_per_token_ms": 1.8643, "prompt_per_second": 536.392,
    "predicted_n": 256.0, "predicted_ms": 2513.61, "predicted_per_token_ms": 9.8188, "predicted_per_second": 101.845,
}  # fmt: skip
TOLD = {
    "gen_ai.response.id": "chatcmpl-3kJ9aQZ0p7Xb1mVw5rTt8yUu2iOo4eEd", "gen_ai.response.model": "smollm2-135m:Q4_1",
    "gen_ai.response.finish_reasons": ["stop"], "gen_ai.response.time_to_first_chunk": 0.2131,
    "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 256, "gen_ai.usage.cache_read.input_tokens": 12,
    "llama_cpp.decode_tokens_per_s": 101.45, "llama_cpp.slot.id": 0,
    **{f"llama_cpp.timings.{name}": value for name, value in RAW.items()},
    "llama_cpp.token_gap.p50_s": 0.00981, "llama_cpp.token_gap.p95_s": 0.0121, "llama_cpp.token_gap.max_s": 0.0352,
}  # fmt: skip
PHASES = ("queue", "prefill", "decode")

Write = Callable[[int], None]
Finish = Callable[[], None]


def _spans(tracer: Any) -> Write:
    """The five spans through OpenTelemetry's API alone."""
    from opentelemetry import trace

    def write(number: int) -> None:
        cell = tracer.start_span("notebook cell", attributes=CELL)
        inside = trace.set_span_in_context(cell)
        chat = tracer.start_span("chat smollm2-135m:Q4_1", context=inside, kind=trace.SpanKind.CLIENT, attributes=ASKED)
        chat.set_attributes({**TOLD, "gen_ai.usage.output_tokens": number})
        within = trace.set_span_in_context(chat)
        for phase in PHASES:
            tracer.start_span(phase, context=within, attributes=SERVER).end()
        chat.end()
        cell.set_attribute("jupyter.execution_count", number)
        cell.end()

    return write


def ours(folder: Path, name: str | None = "spans.sqlite") -> tuple[Write, Finish]:
    """Our processor and store, writing to a file."""
    from opentelemetry import trace

    from llamatelemetry_jupyter.telemetry.store import SpanStore
    from llamatelemetry_jupyter.telemetry.tracer import Telemetry

    store = SpanStore(folder / name if name else None)
    Telemetry(store).attach()

    def finish() -> None:
        store.close()
        assert store.problem is None
        assert store.totals()["dropped"] == 0

    return _spans(trace.get_tracer("bench")), finish


def memory(folder: Path) -> tuple[Write, Finish]:
    """Ours without a file."""
    return ours(folder, None)


def alone(folder: Path) -> tuple[Write, Finish]:
    """The SDK without a processor: spans are made and forgotten, the least that there is."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())
    return _spans(trace.get_tracer("bench")), lambda: None


def sdk(folder: Path) -> tuple[Write, Finish]:
    """The bare SDK; every span is kept as an object."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)
    return _spans(trace.get_tracer("bench")), lambda: None


def genai(folder: Path) -> tuple[Write, Finish]:
    """opentelemetry-util-genai with metrics: each of the five an invocation of its own kind."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.util.genai.handler import TelemetryHandler

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    handler = TelemetryHandler(tracer_provider=provider, meter_provider=meters, instrumentation_scope_name="bench")
    own = {name: value for name, value in TOLD.items() if name.startswith("llama_cpp.")}

    def write(number: int) -> None:
        with handler.workflow("notebook cell") as cell:
            cell.attributes.update(CELL)
            with handler.inference(
                "llama.cpp", request_model="smollm2-135m:Q4_1", server_address="127.0.0.1", server_port=40123
            ) as chat:
                chat.temperature, chat.max_tokens, chat.seed = 0.7, 256, 1
                chat.record_stream_chunk()
                for phase in PHASES:
                    with handler.tool(phase) as step:
                        step.attributes.update(SERVER)
                chat.response_id, chat.finish_reasons = TOLD["gen_ai.response.id"], ["stop"]
                chat.input_tokens, chat.output_tokens, chat.cache_read_input_tokens = 120, number, 12
                chat.attributes.update(own)

    return write, lambda: None


def openinference(folder: Path) -> tuple[Write, Finish]:
    """OpenInference's tracer over the bare SDK."""
    from openinference.instrumentation import TokenCount, TracerProvider, get_llm_attributes
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    tracer = provider.get_tracer("bench")
    own = {name: value for name, value in TOLD.items() if name.startswith(("llama_cpp.", "gen_ai.response."))}

    def write(number: int) -> None:
        with tracer.start_as_current_span("notebook cell", openinference_span_kind="chain", attributes=CELL):
            with tracer.start_as_current_span("chat", openinference_span_kind="llm", attributes=SERVER) as chat:
                for phase in PHASES:
                    with tracer.start_as_current_span(phase, openinference_span_kind="chain", attributes=SERVER):
                        pass
                chat.set_attributes(
                    get_llm_attributes(
                        provider="llama.cpp",
                        model_name="smollm2-135m:Q4_1",
                        invocation_parameters={"temperature": 0.7, "max_tokens": 256, "seed": 1, "stream": True},
                        token_count=TokenCount(prompt=120, completion=number, total=120 + number),
                    )
                )
                chat.set_attributes(own)

    return write, lambda: None


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


def langfuse(folder: Path) -> tuple[Write, Finish]:
    """Langfuse's SDK, exporting to a server on loopback that only reads, in a process of its own."""
    import multiprocessing

    from langfuse import Langfuse
    from opentelemetry.sdk.trace import TracerProvider

    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    client = Langfuse(
        public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=f"http://127.0.0.1:{ours.recv()}",
        tracer_provider=TracerProvider(),
    )  # fmt: skip

    def write(number: int) -> None:
        with client.start_as_current_observation(name="notebook cell", as_type="span", metadata=CELL):
            with client.start_as_current_observation(
                name="chat", as_type="generation", model="smollm2-135m:Q4_1",
                model_parameters={"temperature": 0.7, "max_tokens": 256, "seed": 1},
            ) as chat:  # fmt: skip
                for phase in PHASES:
                    with client.start_as_current_observation(name=phase, as_type="span", metadata=SERVER):
                        pass
                chat.update(usage_details={"input": 120, "output": number}, metadata=TOLD)

    def finish() -> None:
        client.flush()
        process.terminate()

    return write, finish


def _serve(pipe: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    pipe.send(server.server_port)
    server.serve_forever()


def mlflow(folder: Path) -> tuple[Write, Finish]:
    """MLflow's tracing into its SQLite store, asynchronous as by default."""
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "true"
    os.chdir(folder)  # its artifacts go into the working directory
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("bench")

    def write(number: int) -> None:
        with mlflow.start_span("notebook cell", attributes=CELL):
            with mlflow.start_span("chat", span_type="LLM", attributes=ASKED) as chat:
                for phase in PHASES:
                    with mlflow.start_span(phase, attributes=SERVER):
                        pass
                chat.set_attributes({**TOLD, "gen_ai.usage.output_tokens": number})

    return write, lambda: mlflow.flush_trace_async_logging(terminate=True)


WAYS: dict[str, Callable[[Path], tuple[Write, Finish]]] = {
    "ours": ours,
    "ours in memory": memory,
    "the SDK alone": alone,
    "SDK + SimpleSpanProcessor + InMemorySpanExporter": sdk,
    "util-genai with metrics": genai,
    "OpenInference": openinference,
    "Langfuse": langfuse,
    "MLflow": mlflow,
}


def measure(who: str, traces: int) -> dict[str, float]:
    """CPU per trace in µs; bytes per span that stay."""
    with tempfile.TemporaryDirectory() as name:
        write, finish = WAYS[who](Path(name))
        for number in range(min(200, traces // 10)):
            write(number)
        kept = 0
        if who in ("ours", "SDK + SimpleSpanProcessor + InMemorySpanExporter"):
            gc.collect()
            tracemalloc.start()
            for number in range(1000):
                write(number)
                if number % 100 == 99:
                    time.sleep(0.2)  # the group is written
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        process, thread, wall = time.process_time(), time.thread_time(), time.perf_counter()
        for number in range(traces):
            write(number)
        thread, wall = time.thread_time() - thread, time.perf_counter() - wall
        finish()
        process = time.process_time() - process
    return {
        "thread_us": thread / traces * 1e6,
        "wall_us": wall / traces * 1e6,
        "process_us": process / traces * 1e6,
        "bytes": kept / 5000,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    sys.stdout.flush()
    threading.Thread(target=lambda: (time.sleep(2), os._exit(0)), daemon=True).start()  # exporters' own exits may wait

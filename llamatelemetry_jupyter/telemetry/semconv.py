"""Attribute names that we write.

The GenAI conventions left OpenTelemetry's main package and have no release of their own yet, so the names stand here;
taken from open-telemetry/semantic-conventions-genai at 32c328e. ``llama_cpp.*`` and ``jupyter.*`` are ours: no standard
names exist for a llama.cpp server's timings or for a notebook's cells.
"""

from __future__ import annotations

from typing import Final

PROVIDER: Final = "llama.cpp"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_MODALITY: Final = "gen_ai.token.modality"
AGENT_NAME: Final = "gen_ai.agent.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

HW_ID: Final = "hw.id"
HW_TYPE: Final = "hw.type"
HW_MODEL: Final = "hw.model"

#: Operations that are one request to a model; others (``invoke_agent``, ``execute_tool``) hold or surround such.
CALLS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings", "rerank"})
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"

#: Names that other instrumentations and earlier conventions use → the name of today.
ALIASES: Final = {
    REQUEST_MODEL: (
        RESPONSE_MODEL, "llm.model_name", "llm.request.model", "llm.response.model", "embedding.model_name",
        "reranker.model_name", "ai.model.id", "langfuse.observation.model.name",
    ),
    USAGE_INPUT_TOKENS: (
        "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.usage.prompt_tokens", "ai.usage.promptTokens",
        "ai.usage.inputTokens",
    ),
    USAGE_OUTPUT_TOKENS: (
        "gen_ai.usage.completion_tokens", "llm.token_count.completion", "llm.usage.completion_tokens",
        "ai.usage.completionTokens", "ai.usage.outputTokens",
    ),
    USAGE_CACHE_READ: (
        "llm.token_count.prompt_details.cache_read", "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens", "ai.usage.cachedInputTokens",
    ),
    RESPONSE_TIME_TO_FIRST_CHUNK: ("gen_ai.response.time_to_first_token", "gen_ai.server.time_to_first_token"),
}  # fmt: skip
#: Attributes in which other vocabularies say what kind of work a span is, and what they call ours.
OPERATIONS: Final = {
    "openinference.span.kind": {
        "llm": "chat", "embedding": "embeddings", "reranker": "rerank", "tool": EXECUTE_TOOL, "agent": INVOKE_AGENT,
    },
    "traceloop.span.kind": {"tool": EXECUTE_TOOL, "agent": INVOKE_AGENT},
    "llm.request.type": {
        "chat": "chat", "completion": "text_completion", "embedding": "embeddings", "rerank": "rerank",
    },
    "mlflow.spanType": {
        "chat_model": "chat", "llm": "text_completion", "embedding": "embeddings", "reranker": "rerank",
        "tool": EXECUTE_TOOL, "agent": INVOKE_AGENT,
    },
    "langfuse.observation.type": {
        "generation": "chat", "embedding": "embeddings", "tool": EXECUTE_TOOL, "agent": INVOKE_AGENT,
    },
}  # fmt: skip
PROVIDERS: Final = ("gen_ai.system", "llm.provider", "llm.system", "llm.vendor", "ai.model.provider")

#: What a row has no column for and OTLP has a place for; the names of OpenTelemetry's mapping to other formats where it
#: has one. Present on spans that came from a file or another process.
STATUS_MESSAGE: Final = "otel.status_description"
SCOPE_VERSION: Final = "otel.scope.version"
TRACE_STATE: Final = "otel.trace_state"
EVENTS: Final = "otel.events"
LINKS: Final = "otel.links"
RESOURCE: Final = "otel.resource"
#: Columns of a row that are no attributes of the span: what they are called where a row leaves.
ENERGY: Final = "llama_cpp.energy_j"
PEAK: Final = "llama_cpp.peak_bytes"
#: Followed by the name of any other column whose value does not follow from the attributes.
COLUMN: Final = "llama_cpp.row."

#: A request's option → the attribute that carries it.
REQUEST_OPTIONS: Final = {
    "temperature": "gen_ai.request.temperature",
    "max_tokens": "gen_ai.request.max_tokens",
    "n_predict": "gen_ai.request.max_tokens",  # llama.cpp's own completion
    "max_output_tokens": "gen_ai.request.max_tokens",  # the Responses format
    "seed": "gen_ai.request.seed",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stop": "gen_ai.request.stop_sequences",
}

TIMINGS: Final = "llama_cpp.timings."
DECODE_RATE: Final = "llama_cpp.decode_tokens_per_s"
TOKEN_GAP: Final = "llama_cpp.token_gap."
SLOT_ID: Final = "llama_cpp.slot.id"
PHASES: Final = "llama_cpp.phases"
STREAM_ABANDONED: Final = "llama_cpp.stream.abandoned"
SERVER_NAME: Final = "llama_cpp.server.name"
ENGINE: Final = "llama_cpp.engine"
SLOTS: Final = "llama_cpp.slots"
CTX: Final = "llama_cpp.ctx_per_slot"
#: Followed by ``<device>.<owner>``: bytes that the engine announced while it loaded.
MEMORY: Final = "llama_cpp.memory."
MEMORY_OWNER: Final = "llama_cpp.memory.owner"
SETTINGS_HASH: Final = "llama_cpp.settings_hash"
ARGV: Final = "llama_cpp.argv"
MODEL_SHA256: Final = "llama_cpp.model.sha256"
MODEL_ARCHITECTURE: Final = "llama_cpp.model.architecture"
MODEL_QUANT: Final = "llama_cpp.model.quant"
MODEL_FILE_BYTES: Final = "llama_cpp.model.file_bytes"
GPU_ID: Final = "llama_cpp.gpu.id"
GPU_NAME: Final = "llama_cpp.gpu.name"
GPU_DRIVER: Final = "llama_cpp.gpu.driver_version"
GPU_CUDA: Final = "llama_cpp.gpu.cuda_version"
WARNINGS: Final = "llama_cpp.warnings"
ORIGIN: Final = "llama_cpp.origin"
EXIT_CODE: Final = "process.exit.code"

CELL_ID: Final = "jupyter.cell.id"
EXECUTION_COUNT: Final = "jupyter.execution_count"
NOTEBOOK_PATH: Final = "jupyter.notebook.path"

#: What the machine did while a span ran, joined from samples (:mod:`.join`). Of a GPU everything is the whole GPU's.
MEMORY_MEAN: Final = "llama_cpp.memory_mean_bytes"
UTIL_MEAN: Final = "llama_cpp.gpu.util_mean"
UTIL_MAX: Final = "llama_cpp.gpu.util_max"
ENERGY_PER_TOKEN: Final = "llama_cpp.gpu.energy_j_per_token"
#: ``counter``, or ``power`` where a card has no counter: then energy is an estimate.
ENERGY_SOURCE: Final = "llama_cpp.gpu.energy_source"
#: What each attribute says, for the documentation; a name that ends with a dot is followed by another.
MEANING: Final = {
    OPERATION_NAME: "what was asked for: chat, text_completion, embeddings, rerank, invoke_agent, execute_tool",
    PROVIDER_NAME: "`llama.cpp`",
    OUTPUT_TYPE: "`json` when the answer had to follow a form",
    REQUEST_MODEL: "the model that was asked for",
    REQUEST_STREAM: "true for an answer that came in pieces",
    RESPONSE_ID: "the server's name for the answer",
    RESPONSE_MODEL: "the model that answered, as the server calls it",
    RESPONSE_FINISH_REASONS: "why it ended: stop, length, tool_calls, error",
    RESPONSE_TIME_TO_FIRST_CHUNK: "seconds from sending to the first piece of text, this machine's clock",
    USAGE_INPUT_TOKENS: "tokens of the prompt, cached ones included",
    USAGE_OUTPUT_TOKENS: "tokens of the answer",
    USAGE_CACHE_READ: "tokens of the prompt that were in the cache",
    INPUT_MESSAGES: "the prompt as JSON; only where content is recorded",
    OUTPUT_MESSAGES: "the answer as JSON; only where content is recorded",
    TOOL_NAME: "the function that the model called; `unknown` for one that there is not",
    TOOL_TYPE: "`function`",
    TOOL_CALL_ID: "the model's name for the call",
    TOOL_CALL_ARGUMENTS: "what the function was given; only where content is recorded",
    TOOL_CALL_RESULT: "what the model was told; only where content is recorded",
    SERVER_ADDRESS: "host of the server",
    SERVER_PORT: "its port",
    ERROR_TYPE: "a short name of what went wrong, the same for like failures; absent where nothing did",
    TIMINGS: "the server's own `timings` of the request, under its own names (ms, tokens, tokens per second)",
    DECODE_RATE: "(output tokens − 1) / decode time: the first token belongs to prefill",
    TOKEN_GAP: "seconds between tokens: `p50_s`, `p95_s`, `max_s`; all of them are in the table `gaps`",
    SLOT_ID: "the server's slot",
    PHASES: "says where queue and prefill could not be told apart",
    STREAM_ABANDONED: "true when the caller left the stream or the generator before its end",
    SERVER_NAME: "name of the server in this notebook",
    ENGINE: "the engine and its build",
    SLOTS: "requests that it answers at the same time",
    CTX: "tokens of context for each",
    MEMORY: "bytes that the engine announced while it loaded, by `<device>.<owner>`",
    WARNINGS: "what it went on after although the user would want to know",
    ORIGIN: "`server log`: the request of another client, seen in the server's log",
    EXIT_CODE: "how the engine's process ended",
    CELL_ID: "the notebook's id of the cell (IPython 8 and newer)",
    EXECUTION_COUNT: "the number in brackets beside the cell",
    NOTEBOOK_PATH: "the notebook's path, as Jupyter names it",
    AGENT_NAME: "the agent's name, of other libraries",
    MEMORY_MEAN: "bytes that engines held, the mean over the span",
    UTIL_MEAN: "the GPUs' utilisation, 0 to 1, the mean over the span (whole GPUs)",
    UTIL_MAX: "its maximum",
    ENERGY_PER_TOKEN: "joules of the whole GPUs during a call, by its output tokens",
    ENERGY_SOURCE: "`counter`, or `power` for an estimate: the integral of readings of power",
    SETTINGS_HASH: "the same for the same settings of a server",
    ARGV: "the server's command line, without secrets and paths",
    MODEL_SHA256: "of the model's file, where it is known",
    MODEL_ARCHITECTURE: "as its header says",
    MODEL_QUANT: "its quantisation",
    MODEL_FILE_BYTES: "size of its file",
    GPU_ID: "the GPUs' ids",
    GPU_NAME: "their names",
    GPU_DRIVER: "the driver's version",
    GPU_CUDA: "the newest CUDA that it runs",
    STATUS_MESSAGE: "what a span said of its failure, of other processes",
    SCOPE_VERSION: "version of the library that made the span, of other processes",
    TRACE_STATE: "W3C trace state, of other processes",
    EVENTS: "a span's events as JSON, of other processes",
    LINKS: "a span's links as JSON, of other processes",
    RESOURCE: "who sent the span, as JSON, of other processes",
}

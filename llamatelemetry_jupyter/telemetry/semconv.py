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
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

#: Operations that are one request to a model; others (``invoke_agent``, ``execute_tool``) hold or surround such.
CALLS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})

#: Names that other instrumentations and earlier conventions use → the name of today.
ALIASES: Final = {
    REQUEST_MODEL: (RESPONSE_MODEL, "llm.model_name"),
    USAGE_INPUT_TOKENS: ("gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    USAGE_OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    USAGE_CACHE_READ: ("llm.token_count.prompt_details.cache_read",),
    RESPONSE_TIME_TO_FIRST_CHUNK: ("gen_ai.response.time_to_first_token", "gen_ai.server.time_to_first_token"),
}

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

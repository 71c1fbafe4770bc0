"""The metrics that we record: one table of names, units and buckets, in two vocabularies of which one is spoken.

``1.41`` is the last release of OpenTelemetry's conventions that holds ``gen_ai.*`` and what other instrumentations
write today; ``latest`` is open-telemetry/semantic-conventions-genai with its changes of September 2026 (#374, #521),
chosen by ``OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental``. ``hw.*`` is semantic conventions 1.44. Names
under ``llama_cpp.*`` are ours: no standard has a metric for a server's slots, its KV cache or the owners of memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["histogram", "counter", "observed counter", "observed level", "observed gauge"]
Vocabulary: TypeAlias = Literal["1.41", "latest"]

_SWITCH = "OTEL_SEMCONV_STABILITY_OPT_IN"
_LATEST = "gen_ai_latest_experimental"

#: The standard's boundaries: of durations, of tokens, of agents, of a server's first token, of a server's tokens.
SECONDS = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(float(4**n) for n in range(14))
AGENT_SECONDS = tuple(0.1 * 2**n for n in range(13))
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. ``old`` and ``latest`` are its names, ``None`` where that vocabulary has no such metric.

    A counter grows, a level goes up and down and may be summed, a gauge may not; what is observed is read from the
    newest samples when somebody collects.
    """

    id: str
    kind: Kind
    unit: str
    about: str
    old: str | None
    latest: str | None
    buckets: tuple[float, ...] = ()

    def name(self, vocabulary: Vocabulary) -> str | None:
        """Its name in ``vocabulary``."""
        return self.old if vocabulary == "1.41" else self.latest


def _both(id_: str, kind: Kind, unit: str, name: str, about: str, buckets: tuple[float, ...] = ()) -> Instrument:
    return Instrument(id_, kind, unit, about, name, name, buckets)


_CLIENT, _INFERENCE, _USAGE = "gen_ai.client.", "gen_ai.client.inference.", "gen_ai.client.inference.usage."
INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument(
        "inference", "histogram", "s", "a request for text, from sending to its end",
        _CLIENT + "operation.duration", _INFERENCE + "duration", SECONDS,
    ),
    _both("operation", "histogram", "s", _CLIENT + "operation.duration", "any other request to a model", SECONDS),
    Instrument(
        "first_chunk", "histogram", "s", "streams: from sending to the first token",
        _CLIENT + "operation.time_to_first_chunk", _INFERENCE + "time_to_first_chunk", SECONDS,
    ),
    Instrument(
        "per_chunk", "histogram", "s", "streams: from one token to the next",
        _CLIENT + "operation.time_per_output_chunk", _INFERENCE + "time_per_output_chunk", SECONDS,
    ),
    Instrument("usage", "histogram", "{token}", "tokens of a request", _CLIENT + "token.usage", None, TOKENS),
    Instrument("input", "counter", "{token}", "prompt tokens, cached ones included", None, _USAGE + "input_tokens"),
    Instrument("output", "counter", "{token}", "tokens that were generated", None, _USAGE + "output_tokens"),
    Instrument(
        "cached", "counter", "{token}", "prompt tokens that the cache had", None, _USAGE + "cache_read.input_tokens"
    ),
    Instrument(
        "inputs", "histogram", "{token}", "prompt tokens of a request", None,
        _INFERENCE + "operation.input_tokens", TOKENS,
    ),
    Instrument(
        "outputs", "histogram", "{token}", "generated tokens of a request", None,
        _INFERENCE + "operation.output_tokens", TOKENS,
    ),
    _both("tool", "histogram", "s", "gen_ai.execute_tool.duration", "a tool that a model asked for", SECONDS),
    _both("agent", "histogram", "s", "gen_ai.invoke_agent.duration", "a run of an agent", AGENT_SECONDS),
    _both(
        "served", "histogram", "s", "gen_ai.server.request.duration",
        "a request in the server's log, whoever sent it: prefill and decode, without waiting", SECONDS,
    ),
    _both(
        "served_first", "histogram", "s", "gen_ai.server.time_to_first_token",
        "a request in the server's log: prefill, without waiting", FIRST_TOKEN,
    ),
    _both(
        "served_token", "histogram", "s", "gen_ai.server.time_per_output_token",
        "a request in the server's log: decode time per token after the first", PER_TOKEN,
    ),
    _both("gpu_used", "observed level", "By", "hw.gpu.memory.usage", "memory in use on a GPU"),
    _both("gpu_total", "observed level", "By", "hw.gpu.memory.limit", "a GPU's memory"),
    _both("gpu_filled", "observed gauge", "1", "hw.gpu.memory.utilization", "the part of a GPU's memory in use"),
    _both("gpu_util", "observed gauge", "1", "hw.gpu.utilization", "the part of the time in which a GPU was busy"),
    _both("gpu_power", "observed gauge", "W", "hw.power", "a GPU's power"),
    _both("gpu_energy", "observed counter", "J", "hw.energy", "a GPU's energy since its driver was loaded"),
    _both("gpu_temp", "observed gauge", "Cel", "hw.temperature", "a GPU's temperature"),
    _both("memory", "observed level", "By", "llama_cpp.memory.usage", "memory by device and owner"),
    _both("tokens_in", "observed counter", "{token}", "llama_cpp.server.input_tokens",
          "a server's prompt tokens, cached ones included, whoever asked"),
    _both("tokens_out", "observed counter", "{token}", "llama_cpp.server.output_tokens",
          "a server's generated tokens, those of running requests included"),
    _both("slots_busy", "observed level", "{slot}", "llama_cpp.server.slots.usage", "slots that work"),
    _both("slots", "observed level", "{slot}", "llama_cpp.server.slots.limit", "slots of a server"),
    _both("queued", "observed level", "{request}", "llama_cpp.server.requests.queued", "requests that wait for a slot"),
    _both("kv", "observed level", "{token}", "llama_cpp.server.kv_cache.usage", "tokens in the KV cache"),
    _both("kv_limit", "observed level", "{token}", "llama_cpp.server.kv_cache.limit", "tokens that the KV cache holds"),
)  # fmt: skip


def vocabulary() -> Vocabulary:
    """The vocabulary that the environment asks for; never both: each figure would be counted twice."""
    asked = os.environ.get(_SWITCH, "").split(",")
    return "latest" if _LATEST in (one.strip() for one in asked) else "1.41"


def table() -> str:
    """Every metric in both vocabularies, as Markdown; docs/numbers.md holds it."""
    lines = ["| Metric | newest name | kind | unit | what |", "|---|---|---|---|---|"]
    for one in INSTRUMENTS:
        old = f"`{one.old}`" if one.old else "none"
        latest = "the same" if one.old == one.latest else f"`{one.latest}`" if one.latest else "none"
        lines.append(f"| {old} | {latest} | {one.kind} | `{one.unit}` | {one.about} |")
    return "\n".join(lines)

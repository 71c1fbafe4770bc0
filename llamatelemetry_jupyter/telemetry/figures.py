"""Every figure that is shown has one definition, and it stands here.

Tooltips, docs/numbers.md and the tests read this table. A test compares each figure with its second source on the real
engine; one that nobody could compare yet says so, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: what it is called, how it is computed, in which unit, from where, and what else must agree with it.

    ``compared`` is false while the comparison needs hardware that was not there.
    """

    id: str
    label: str
    formula: str
    unit: str
    source: str
    second: str
    compared: bool = True

    @property
    def title(self) -> str:
        """The definition as one line."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.formula}{unit}. From {self.source}."


_CLOCK = "the kernel's clock: one anchor of wall time, then monotonic"
_LOG = "the engine's log at its start"
_METRICS = "the server's /metrics"
_NVML = "NVML"
_SMI = "nvidia-smi"
_PROC = "/proc, or NVML per process"
_HOST = f"/proc/meminfo and the control group, or {_NVML}"
_STORE = ("the session's spans", "SQL over the session's file")
_SUM = "owners add up to the device's memory"

#: Group → its figures. A figure of a row, sample or dict has the id that it has there.
FIGURES: Mapping[str, tuple[Figure, ...]] = {
    "Requests": (
        Figure("duration_s", "duration", "end − start of the span", "s", _CLOCK, "a stopwatch around the call"),
        Figure(
            "input_tokens", "in", "tokens of the prompt with its template, those from the cache included", "tokens",
            "the response: prompt_n + cache_n of its timings, else its usage",
            f"{_METRICS}: prompt_tokens_total + prompt_tokens_cached_total",
        ),
        Figure(
            "cached_tokens", "cached", "prompt tokens that the slot's cache already held", "tokens",
            "the response: cache_n of its timings", f"{_METRICS}: prompt_tokens_cached_total",
        ),
        Figure(
            "output_tokens", "out", "tokens that were generated, reasoning included", "tokens",
            "the response: predicted_n of its timings, else its usage; of a broken stream the pieces that came",
            f"{_METRICS}: tokens_predicted_total",
        ),
        Figure(
            "ttft_s", "first token", "first text, reasoning or tool call that came − request sent; streams only", "s",
            _CLOCK, "a proxy in between that notes when the first text passes, and the server's prompt_ms",
        ),
        Figure(
            "queue_s", "queue", "first token − prefill: waiting for a slot, and the way there and back", "s",
            "the first token's time less the server's prompt_ms", f"{_METRICS}: when requests_deferred is not 0",
        ),
        Figure(
            "prefill_s", "prefill", "time in which the prompt was computed", "s",
            "the response: prompt_ms of its timings", "the server's log",
        ),
        Figure(
            "decode_s", "decode", "time from the end of prefill to the last token", "s",
            "the response: predicted_ms of its timings; of a broken stream first to last token on the kernel's clock",
            "the server's log",
        ),
        Figure(
            "decode_tokens_per_s", "tokens/s", "(output tokens − 1) / decode time: the first token belongs to prefill",
            "tokens/s", "the response's timings", "the response's predicted_per_second",
        ),
        Figure(
            "prefill_tokens_per_s", "prefill tokens/s", "(input tokens − cached tokens) / prefill time", "tokens/s",
            "the response's timings", "the response's prompt_per_second",
        ),
        Figure(
            "token_gap", "gaps between tokens",
            "from one piece of text to the next: median, 95th percentile and maximum, each a gap that was", "s",
            _CLOCK, "the gaps that are kept beside the span, and its decode span",
        ),
        Figure(
            "energy_j", "energy",
            "difference of the GPUs' energy counters between start and end, interpolated: the whole devices', "
            "not the request's alone",
            "J", f"{_NVML}: total energy consumption", "the integral of sampled power over the span, on a replay",
        ),
        Figure(
            "peak_bytes", "peak memory", "the most that the engine held at a moment of the span, all devices together",
            "B", "samples of memory by owner", "the high-water mark of the engine's process",
        ),
        Figure(
            "logprob", "logprob",
            "natural logarithm of a token's probability after all that stood before it, untouched by temperature and "
            "other sampling options", "", "the response: logprobs",
            "the probabilities of the whole vocabulary at one place add up to 1",
        ),
        Figure(
            "perplexity", "perplexity",
            "e to the mean of −logprob over the answer's tokens: 1 where the model never hesitated", "",
            "the tokens' logprobs", "the product of their probabilities",
        ),
    ),
    "Totals": (
        Figure("spans", "spans", "ended spans of this session", "", *_STORE),
        Figure("traces", "traces", "trees of spans", "", *_STORE),
        Figure(
            "calls", "calls", "spans of requests to a model: chat, completion, embeddings, reranking", "",
            *_STORE,
        ),
        Figure("errors", "errors", "spans with status error", "", *_STORE),
        Figure(
            "total_input_tokens", "tokens in", "sum over calls", "tokens", *_STORE,
        ),
        Figure(
            "total_output_tokens", "tokens out", "sum over calls", "tokens", *_STORE,
        ),
    ),
    "Servers": (
        Figure(
            "input_tokens_total", "server's tokens in",
            "prompt tokens since the server's start, cached ones and those of a running prefill included",
            "tokens", f"{_METRICS} and /slots", "the usage of all clients' requests",
        ),
        Figure(
            "output_tokens_total", "server's tokens out",
            "generated tokens since the server's start, those of running requests included",
            "tokens", f"{_METRICS} and /slots", "the usage of all clients' requests",
        ),
        Figure(
            "input_rate", "input tokens/s", "difference of tokens in over the time between two samples", "tokens/s",
            "the server's tokens in", "rates × times add up to the tokens",
        ),
        Figure(
            "output_rate", "output tokens/s", "difference of tokens out over the time between two samples", "tokens/s",
            "the server's tokens out", "rates × times add up to the tokens",
        ),
        Figure("slots", "slots", "requests that the server can work on at once", "", "the server's /slots",
               "its settings"),
        Figure("slots_busy", "slots busy", "slots that work on a request", "", "the server's /slots",
               f"{_METRICS}: requests_processing"),
        Figure("queued", "queued", "requests that wait for a slot", "", f"{_METRICS}: requests_deferred",
               "requests sent less slots"),
        Figure(
            "kv_tokens", "KV cache", "tokens in the cells of all slots, those of past requests that could be reused "
            "included", "tokens", "the server's /slots: n_prompt_tokens",
            "the log: input + output − 1 of each slot's last request; the last token is never put there",
        ),
        Figure(
            "kv_capacity", "KV cache size", "tokens that the cells of all slots hold", "tokens",
            "the server's /slots: n_ctx", "slots × context per slot of the settings",
        ),
    ),
    "Memory by owner": (
        Figure("weights", "weights", "model tensors on the device, cut to what is resident", "B", _LOG,
               "tensor sizes in the GGUF header"),
        Figure("kv", "KV cache", "cells of all slots, filled or not", "B", _LOG,
               "layers × KV heads × head size × cells × 2 × bytes of the type"),
        Figure("compute", "compute buffers", "scratch of one batch", "B", _LOG, "the plan from the GGUF header"),
        Figure("output", "output buffer", "logits of all slots", "B", _LOG, "vocabulary × slots × 4 bytes"),
        Figure(
            "context", "engine itself", "what its process holds less what it announced: code, heap, GPU context; "
            "a difference, so an estimate", "B", "resident memory, or NVML per process, less the log",
            "owners of the engine add up to its memory, with its share of shared pages",
        ),
        Figure("kernel", "this kernel", "memory of the kernel's process, with its share of shared pages", "B", _PROC,
               "psutil"),
        Figure("other", "other processes", "memory in use that is nobody's above", "B", _PROC,
               _SUM),
        Figure("unknown", "not attributed", "memory of a GPU that the driver names no process for", "B",
               f"{_NVML}: used − all processes", _SUM, compared=False),
        Figure("free", "free", "memory to be had without swapping; of the container where its limit is lower", "B",
               _HOST, "psutil and the control group"),
    ),
    "Devices": (
        Figure("used_bytes", "used", "total − free", "B", f"/proc/meminfo, or {_NVML}", "owners other than free"),
        Figure("total_bytes", "memory", "the device's memory; of the container where its limit is lower", "B",
               _HOST, "psutil and the control group"),
        Figure("util", "GPU busy", "part of the driver's last window (1/6 to 1 s) in which a kernel ran", "0..1",
               f"{_NVML}: utilisation", _SMI, compared=False),
        Figure("power_w", "power", "the whole GPU's power, as the driver averages it", "W", f"{_NVML}: power usage",
               _SMI, compared=False),
        Figure("temp_c", "temperature", "of the GPU's chip", "°C", f"{_NVML}: temperature", _SMI, compared=False),
    ),
}  # fmt: skip

_BY_ID = {one.id: one for group in FIGURES.values() for one in group}


def figure(id_: str) -> Figure:
    """The definition of a figure; raises ``KeyError`` for one that has none."""
    return _BY_ID[id_]


def titles(shown: Mapping[str, str]) -> dict[str, str]:
    """Name in a view → definition in one line, for a mapping of names to ids."""
    return {name: _BY_ID[id_].title for name, id_ in shown.items()}


def table() -> str:
    """Every figure as Markdown, a table per group; docs/numbers.md holds it."""
    lines: list[str] = []
    for group, found in FIGURES.items():
        lines += [f"### {group}", "", "| figure | what it is | unit | from | second source |", "|---|---|---|---|---|"]
        for one in found:
            second = one.second if one.compared else f"{one.second}; not compared yet: no GPU was there"
            lines.append(f"| {one.label} | {one.formula} | {one.unit} | {one.source} | {second} |")
        lines.append("")
    return "\n".join(lines).rstrip()

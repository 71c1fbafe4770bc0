"""A server's counters and gauges, read from Prometheus' text format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_PREFIXES = ("llamacpp:", "vllm:", "sglang:")


@dataclass(frozen=True, slots=True)
class Metrics:
    """``/metrics``: every sample by name, without the server's prefix; labels stay part of the name.

    Counters only grow until the server restarts. llama.cpp's two ``*_tokens_seconds`` gauges are reset by every scrape,
    so two readers spoil each other's: rates belong to the counters. ``None``: the server does not have it. vLLM's and
    SGLang's names are known, too, and summed over their labels.
    """

    values: Mapping[str, float]
    totals: Mapping[str, float] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Metrics:
        """From Prometheus' text format; lines that are not samples are passed over."""
        values: dict[str, float] = {}
        totals: dict[str, float] = {}
        for sample in _samples(text):
            name = sample.name
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            labels = ",".join(f'{label}="{value}"' for label, value in sample.labels.items())
            values[f"{name}{{{labels}}}" if labels else name] = sample.value
            totals[name] = totals.get(name, 0.0) + sample.value
        return cls(values, totals)

    @property
    def input_tokens(self) -> int | None:
        """Prompt tokens since the start, cached ones included."""
        computed = self._count("prompt_tokens_total")
        return None if computed is None else computed + (self._count("prompt_tokens_cached_total") or 0)

    @property
    def output_tokens(self) -> int | None:
        """Generated tokens; llama.cpp counts those of requests that have ended."""
        return self._count("tokens_predicted_total", "generation_tokens_total")

    @property
    def processing(self) -> int | None:
        """Requests that have a slot."""
        return self._count("requests_processing", "num_requests_running", "num_running_reqs")

    @property
    def queued(self) -> int | None:
        """Requests that wait for a slot."""
        return self._count("requests_deferred", "num_requests_waiting", "num_queue_reqs")

    def _count(self, *names: str) -> int | None:
        value = next((self.totals[name] for name in names if name in self.totals), None)
        return int(value) if value is not None and math.isfinite(value) else None


def _samples(text: str) -> Iterator[Any]:
    from prometheus_client.parser import text_string_to_metric_families as families

    try:
        yield from [sample for family in families(text) for sample in family.samples]
    except (ValueError, KeyError, IndexError):  # one bad line spoils all: then line by line
        for line in text.splitlines():
            try:
                yield from [sample for family in families(line + "\n") for sample in family.samples]
            except (ValueError, KeyError, IndexError):
                continue

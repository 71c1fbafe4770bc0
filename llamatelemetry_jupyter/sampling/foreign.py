"""What the ``/metrics`` of vLLM, SGLang and llama.cpp's router say, in our figures.

Names of vLLM and SGLang are taken from their documentation; no such server was seen here. A figure that the page
does not hold is ``None``: not provided is not 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{([^}\n]*)\})? ([0-9.eE+-]+|NaN|\+Inf)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading of one server; tokens count over its life."""

    running: int | None = None
    waiting: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    kv_tokens: int | None = None
    kv_capacity: int | None = None


class Page:
    """A Prometheus page: sums over all label sets (models, engines), and labels."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, float] = {}
        self._labels: dict[str, dict[str, str]] = {}
        for name, labels, value in _SAMPLE.findall(text):
            number = float(value)
            if math.isfinite(number):
                self._values[name] = self._values.get(name, 0.0) + number
                self._labels[name] = dict(_LABEL.findall(labels))

    def number(self, *names: str) -> int | None:
        """The first of ``names`` that is there."""
        found = self.ratio(*names)
        return int(found) if found is not None else None

    def ratio(self, *names: str) -> float | None:
        """As :meth:`number`, not rounded."""
        return next((self._values[name] for name in names if name in self._values), None)

    def label(self, name: str, label: str) -> int | None:
        """A whole number that stands in a label."""
        text = self._labels.get(name, {}).get(label, "")
        return int(text) if text.isdigit() else None


def vllm(text: str) -> Figures:
    """vLLM's page."""
    page = Page(text)
    blocks = page.label("vllm:cache_config_info", "num_gpu_blocks")
    size = page.label("vllm:cache_config_info", "block_size")
    capacity = blocks * size if blocks and size else None
    used = page.ratio("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    return Figures(
        running=page.number("vllm:num_requests_running"),
        waiting=page.number("vllm:num_requests_waiting"),
        input_tokens=page.number("vllm:prompt_tokens_total"),
        output_tokens=page.number("vllm:generation_tokens_total"),
        kv_tokens=round(min(used, 1.0) * capacity) if used is not None and capacity else None,
        kv_capacity=capacity,
    )


def sglang(text: str) -> Figures:
    """SGLang's page."""
    page = Page(text)
    return Figures(
        running=page.number("sglang:num_running_reqs"),
        waiting=page.number("sglang:num_queue_reqs"),
        input_tokens=page.number("sglang:prompt_tokens_total"),
        output_tokens=page.number("sglang:generation_tokens_total"),
        kv_tokens=page.number("sglang:num_used_tokens"),
        kv_capacity=page.number("sglang:max_total_num_tokens"),
    )


def routed(pages: Iterable[str]) -> Figures:
    """The pages of a router's loaded models, summed; ``None`` where no model is loaded."""
    read = [Page(text) for text in pages]

    def total(*names: str) -> int | None:
        found = [n for page in read for name in names if (n := page.number(name)) is not None]
        return sum(found) if found else None

    return Figures(
        running=total("llamacpp:requests_processing"),
        waiting=total("llamacpp:requests_deferred"),
        input_tokens=total("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
        output_tokens=total("llamacpp:tokens_predicted_total"),
    )

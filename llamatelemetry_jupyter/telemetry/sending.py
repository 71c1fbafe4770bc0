"""Spans, and metrics where they were asked for, on their way to one receiver: begun together, ended together."""

from __future__ import annotations

import time

from .otlp import Exporter
from .otlp_http import TIMEOUT_S
from .otlp_metrics import MetricsExporter


class Sending:
    """Sends until :meth:`close`; ``spans`` and ``metrics`` tell how far they are."""

    def __init__(self, spans: Exporter, metrics: MetricsExporter | None = None) -> None:
        self.spans = spans
        self.metrics = metrics

    @property
    def running(self) -> bool:
        """Whether spans are being sent."""
        return self.spans.progress().running

    def start(self, known: str | None = None) -> Sending:
        """Send from now on; ``known``: why the receiver does not take anything yet, which is not told again."""
        self.spans.start()
        if self.metrics is not None:
            self.metrics.start(known)
        return self

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send what is waiting, within ``timeout_s`` for both, and end."""
        deadline = time.monotonic() + timeout_s
        both: list[Exporter | MetricsExporter] = [self.spans]
        if self.metrics is not None:
            both.insert(0, self.metrics)
        for one in both:
            one.end(timeout_s)
        for one in both:
            one.join(max(0.0, deadline - time.monotonic()))

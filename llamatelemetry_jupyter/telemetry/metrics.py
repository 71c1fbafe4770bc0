"""Metrics of one session: histograms of its requests, a server's counters, the GPUs, on OpenTelemetry's metrics API.

Requests are counted from ended spans on the store's own thread, in a tally of our own; a provider that the user has set
gets every value through its API, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, MetricsData, ResourceMetrics, ScopeMetrics, Sum
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .. import __version__
from ..values import SampleSource, ServerEvent, ServerHandle, SpanRow
from . import meters, semconv
from .meters import Meters
from .observed import Observed
from .tally import Scalar
from .tracer import SCOPE

_log = logging.getLogger(__name__)
_OF_CALLS = (
    semconv.OPERATION_NAME,
    semconv.PROVIDER_NAME,
    semconv.REQUEST_MODEL,
    semconv.RESPONSE_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
    semconv.ERROR_TYPE,
)
_OF_STEPS = (semconv.OPERATION_NAME, semconv.TOOL_NAME, semconv.AGENT_NAME, semconv.ERROR_TYPE)
_INFERENCE = frozenset({"chat", "text_completion", "generate_content"})
PointKind: TypeAlias = Literal["histogram", "counter", "level", "gauge"]


@dataclass(frozen=True, slots=True)
class Point:
    """One metric under one set of attributes, since the kernel started.

    ``value`` is the sum of a histogram and of a counter, else the newest value; ``count``, ``low`` and ``high`` (the
    least and the largest) are a histogram's.
    """

    name: str
    unit: str
    kind: PointKind
    attributes: Mapping[str, Any]
    value: float
    count: int | None = None
    low: float | None = None
    high: float | None = None


class Metrics:
    """Records while attached; what all sessions of this process came to is read by :meth:`read` and :meth:`data`.

    ``gaps`` gives the times between a span's tokens (:meth:`.store.SpanStore.gaps`). Recording raises nothing.
    """

    def __init__(self, samples: SampleSource, gaps: Callable[[str], Sequence[float] | None]) -> None:
        self.observed = Observed(samples)
        self._gaps = gaps
        self._sets: list[Meters] = []
        self._complained = False

    def attach(self) -> None:
        """Record from now on: on our provider, and on the one that the user has set."""
        for provider in meters.providers():
            self._guarded(self._join, provider)

    def _join(self, provider: MeterProvider) -> None:
        if (found := Meters.of(provider)) is not None and found not in self._sets:
            found.source = self.observed
            self._sets.append(found)

    def detach(self) -> None:
        """Record nothing more; providers and what was counted stay."""
        for one in self._sets:
            if one.source is self.observed:
                one.source = None
        self._sets = []

    def record(self, rows: Iterable[SpanRow]) -> None:
        """Count spans that have ended, each once; called on the store's thread."""
        for row in rows:
            if row.scope == SCOPE and self._sets:  # other libraries record metrics of their requests themselves
                self._guarded(self._row, row)

    def served(self, event: ServerEvent, handle: ServerHandle | None) -> None:
        """Count a request that the server's log told of, whoever sent it; called on the thread that reads the log."""
        if self._sets:
            self._guarded(self._request, event, handle)

    def _guarded(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception:  # noqa: BLE001 (a user's provider may do anything; spans and servers go on)
            if not self._complained:
                self._complained = True
                _log.exception("a metric could not be recorded; further failures are not logged")

    def _row(self, row: SpanRow) -> None:
        operation = row.attributes.get(semconv.OPERATION_NAME)
        if operation in semconv.CALLS:
            self._call(row, str(operation))
        elif operation in (semconv.EXECUTE_TOOL, semconv.INVOKE_AGENT):
            which = "tool" if operation == semconv.EXECUTE_TOOL else "agent"
            self._add(which, (row.duration_s,), _some(row, _OF_STEPS), row)

    def _call(self, row: SpanRow, operation: str) -> None:
        about = _some(row, _OF_CALLS)
        inference = operation in _INFERENCE
        self._add("inference" if inference else "operation", (row.duration_s,), about, row)
        fine = {name: value for name, value in about.items() if name != semconv.ERROR_TYPE}
        if row.ttft_s is not None:
            self._add("first_chunk", (row.ttft_s,), fine, row)
        if gaps_s := self._gaps(row.span_id):
            self._add("per_chunk", gaps_s, fine)
        for kind, tokens in (("input", row.input_tokens), ("output", row.output_tokens)):
            if tokens is None or (kind == "output" and not inference):
                continue
            self._add("usage", (tokens,), {**fine, semconv.TOKEN_TYPE: kind}, row)
            if inference:
                # Whether a prompt was text alone is not on the span; answers are.
                modality = {semconv.TOKEN_MODALITY: "text" if kind == "output" else "unknown"}
                self._add(kind, (tokens,), fine | modality, row)
                self._add(f"{kind}s", (tokens,), fine, row)
        if row.cached_tokens is not None and inference:
            self._add("cached", (row.cached_tokens,), {**fine, semconv.TOKEN_MODALITY: "unknown"}, row)

    def _request(self, event: ServerEvent, handle: ServerHandle | None) -> None:
        # The log does not tell the operation, which the standard would have here.
        about: dict[str, Scalar] = {semconv.PROVIDER_NAME: semconv.PROVIDER}
        if handle is not None:
            parts = urlsplit(handle.url)
            about |= {semconv.SERVER_ADDRESS: parts.hostname or "", semconv.SERVER_PORT: parts.port or 80}
            if handle.model is not None:
                about[semconv.REQUEST_MODEL] = handle.model.id
        prefill_s, decode_s, tokens = (event.data.get(name) for name in ("prefill_s", "decode_s", "decode_tokens"))
        if not isinstance(prefill_s, float):
            return
        if not isinstance(decode_s, float):  # embeddings
            self._add("served", (prefill_s,), about)
            return
        self._add("served", (prefill_s + decode_s,), about)
        self._add("served_first", (prefill_s,), about)
        if isinstance(tokens, int) and tokens > 1:
            self._add("served_token", (decode_s / (tokens - 1),), about)

    def _add(
        self, which: str, values: Sequence[float], about: Mapping[str, Scalar], row: SpanRow | None = None
    ) -> None:
        example = (row.trace_id, row.span_id, row.end_ns) if row is not None else None
        meters.ours().tally.add(which, values, about, example)
        for one in self._sets:
            if which in one.recorded:
                self._guarded(one.record, which, values, about, example)

    # --------------------------------------------------------------------------------------------------------- reading

    def data(self) -> MetricsData:
        """Everything that was counted in this process, cumulative, as an exporter takes it."""
        ours = meters.ours()
        read = ours.reader.get_metrics_data()
        scopes = [scope for one in read.resource_metrics for scope in one.scope_metrics] if read is not None else []
        observed = [metric for one in scopes if one.scope.name == SCOPE for metric in one.metrics]
        mine = ScopeMetrics(InstrumentationScope(SCOPE, __version__), [*ours.tally.metrics(), *observed], "")
        others = [one for one in scopes if one.scope.name != SCOPE]
        return MetricsData([ResourceMetrics(ours.resource, [mine, *others], "")])

    def read(self) -> list[Point]:
        """The same as flat points, ours first, each metric's together."""
        (found,) = self.data().resource_metrics
        return [
            point
            for scope in found.scope_metrics
            for metric in scope.metrics
            for point in _points(metric.name, metric.unit or "", metric.data)
        ]

    def prometheus(self) -> str:
        """The same in Prometheus' text format."""
        from .prometheus import text

        return text(self.data())


def _some(row: SpanRow, names: Sequence[str]) -> dict[str, Scalar]:
    told = row.attributes
    return {name: value for name in names if isinstance(value := told.get(name), (str, int, float))}


def _points(name: str, unit: str, data: object) -> list[Point]:
    if isinstance(data, Histogram):
        return [
            Point(name, unit, "histogram", dict(one.attributes or {}), one.sum, one.count, one.min, one.max)
            for one in data.data_points
        ]
    if isinstance(data, Sum):
        kind: PointKind = "counter" if data.is_monotonic else "level"
        return [Point(name, unit, kind, dict(one.attributes or {}), one.value) for one in data.data_points]
    if isinstance(data, Gauge):
        return [Point(name, unit, "gauge", dict(one.attributes or {}), one.value) for one in data.data_points]
    return []  # an exponential histogram of another library's view

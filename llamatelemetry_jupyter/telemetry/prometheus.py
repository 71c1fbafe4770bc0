"""OpenTelemetry's metrics in Prometheus' text format, written by prometheus_client.

Names follow OpenTelemetry's rules for Prometheus: dots become underscores, the unit and ``_total`` are appended, the
resource is ``target_info``, and each sample says which scope it is of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Metric, MetricsData, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "By": "bytes",
    "J": "joules",
    "W": "watts",
    "Cel": "celsius",
    "%": "percent",
}
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")


def text(data: MetricsData) -> str:
    """The exposition of ``data``, one family a metric."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(data))
    return generate_latest(registry).decode()


class _Collected(Collector):
    """The families of what was collected; of two metrics of one name and different kinds the first counts."""

    def __init__(self, data: MetricsData) -> None:
        self._data = data

    def collect(self) -> Iterable[Family]:
        """One family per name."""
        families: dict[str, Family] = {}
        for resource in self._data.resource_metrics:
            target = families.setdefault("target_info", Family("target_info", "what is measured here", "gauge"))
            target.add_sample("target_info", _labels(dict(resource.resource.attributes)), 1.0)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    _add(families, metric, {"otel_scope_name": scope.scope.name})
        return families.values()


def _add(families: dict[str, Family], metric: Metric, scope: dict[str, str]) -> None:
    name, data = _name(metric), metric.data
    if isinstance(data, Histogram):
        family = families.setdefault(name, Family(name, metric.description or "", "histogram"))
        if family.type == "histogram":
            for point in data.data_points:
                labels = _labels(dict(point.attributes or {})) | scope
                _buckets(family, labels, point.explicit_bounds, point.bucket_counts)
                family.add_sample(f"{name}_count", labels, point.count)
                family.add_sample(f"{name}_sum", labels, point.sum)
    elif isinstance(data, (Sum, Gauge)):
        kind = "counter" if isinstance(data, Sum) and data.is_monotonic else "gauge"
        family = families.setdefault(name, Family(name, metric.description or "", kind))
        if family.type == kind:
            sample = f"{name}_total" if kind == "counter" else name
            for one in data.data_points:
                family.add_sample(sample, _labels(dict(one.attributes or {})) | scope, one.value)


def _buckets(family: Family, labels: dict[str, str], bounds: Sequence[float], counts: Sequence[int]) -> None:
    total = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        limit = "+Inf" if bound == float("inf") else repr(float(bound))
        family.add_sample(f"{family.name}_bucket", {**labels, "le": limit}, total)


def _name(metric: Metric) -> str:
    unit = metric.unit or ""
    plain = _clean(metric.name)
    if unit == "1" and isinstance(metric.data, Gauge):
        suffix = "ratio"
    else:
        suffix = "" if unit.startswith("{") or unit == "1" else _UNITS.get(unit, _clean(unit))
    named = f"{plain}_{suffix}" if suffix and not plain.endswith(f"_{suffix}") else plain
    return named.removesuffix("_total")


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {_clean(name): str(value) for name, value in attributes.items()}


def _clean(name: str) -> str:
    made = _NOT_IN_A_NAME.sub("_", name)
    return f"_{made}" if made[:1].isdigit() else made

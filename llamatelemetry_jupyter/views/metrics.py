"""Metrics as a table and as a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..telemetry import semconv
from .format import NA, count, seconds, short, size
from .text import Table

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..telemetry.metrics import Point

_EMPTY = "no metrics yet; try: %llama chat Hello"
#: The same for every row of one server, or in the name of the metric.
_LEFT_OUT = frozenset(
    {semconv.PROVIDER_NAME, semconv.SERVER_ADDRESS, semconv.SERVER_PORT, semconv.HW_TYPE, semconv.TOKEN_MODALITY}
)


def metrics_table(points: Sequence[Point]) -> Table:
    """One row per metric and attributes: a histogram's count, mean and ends, a counter's sum, a level now."""
    return Table(
        ("metric", "of", "count", "mean", "least", "most", "value"),
        tuple((short(one.name, 60), _of(one.attributes), *_figures(one)) for one in points),
        frozenset({"count", "mean", "least", "most", "value"}),
        _EMPTY,
    )


def metrics_frame(points: Sequence[Point]) -> DataFrame:
    """The same with every attribute, in the metrics' own units."""
    import pandas as pd

    names = ("name", "unit", "kind", "attributes", "value", "count", "low", "high")
    return pd.DataFrame({name: [getattr(one, name) for one in points] for name in names})


def _figures(one: Point) -> tuple[str, ...]:
    if one.kind == "histogram":
        mean = one.value / one.count if one.count else None
        return (count(one.count), *(_value(value, one.unit) for value in (mean, one.low, one.high)), "")
    return ("", "", "", "", _value(one.value, one.unit))


def _value(value: float | None, unit: str) -> str:
    if unit == "s":
        return seconds(value)
    if unit == "By":
        return size(value)
    if value is None:
        return NA
    if unit == "1":
        return f"{value:.0%}"
    known = {"J": " J", "W": " W", "Cel": " °C"}.get(unit, "")
    return f"{value:,.1f}{known}" if isinstance(value, float) and not value.is_integer() else count(value) + known


def _of(attributes: Mapping[str, Any]) -> str:
    """The attributes' values, each once, in a fixed order; an error is called one."""
    shown: dict[str, None] = {}
    for name in sorted(attributes, key=lambda name: (name == semconv.ERROR_TYPE, name)):
        if name not in _LEFT_OUT:
            value = short(attributes[name], 40)
            shown[f"error {value}" if name == semconv.ERROR_TYPE else value] = None
    return short(", ".join(shown), 80)

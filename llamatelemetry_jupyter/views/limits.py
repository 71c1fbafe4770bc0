"""The most tokens per second that a model can reach, by how full its cache is, and what that follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import escape
from ..gpu.roofline import Limits, Place
from ..values import Traffic
from .format import NA, count, rate, short, size
from .text import Table

_LINE = 240


@dataclass(frozen=True, slots=True)
class LimitsView:
    """``by_fill``: tokens in the cache → limits. ``limits`` and ``places`` are the tables, ``lines`` what follows."""

    title: str
    limits: Table
    places: Table
    lines: tuple[str, ...]
    by_fill: dict[int, Limits]

    def __str__(self) -> str:
        return "\n\n".join([self.title, str(self.limits), str(self.places), "\n".join(self.lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = "".join(f"<p style='margin:2px 0'>{escape.html(line)}</p>" for line in self.lines)
        return f"<b>{escape.html(self.title)}</b>{self.limits._repr_html_()}{self.places._repr_html_()}{lines}"


def limits_view(
    title: str, by_fill: dict[int, Limits], parts: Sequence[tuple[Place, Traffic]], lines: Sequence[str]
) -> LimitsView:
    """The limits by fill, and the work of one token with an empty cache for each place in ``parts``."""
    heads = ("cache holds", "decode, at most", "prefill, at most")
    rows = tuple(
        (f"{count(filled)} tokens", _per_s(found.decode_tokens_per_s), _per_s(found.prefill_tokens_per_s))
        for filled, found in by_fill.items()
    )
    columns = ("place", "read per token", "bandwidth", "weights per token", "FP16", "figures")
    places = tuple(
        (
            short(escape.plain(place.name), 40),
            size(work.weight_bytes),
            NA if place.bandwidth_gb_s is None else f"{place.bandwidth_gb_s:,.0f} GB/s",
            _millions(work.parameters),
            NA if place.tflops is None else f"{place.tflops:,.0f} TFLOPS",
            short(escape.plain(place.source), 90),
        )
        for place, work in parts
    )
    return LimitsView(
        short(escape.plain(title), 100),
        Table(heads, rows, frozenset(heads)),
        Table(columns, places, frozenset(columns[1:5])),
        tuple(short(escape.plain(line), _LINE) for line in lines),
        by_fill,
    )


def _per_s(value: float | None) -> str:
    return NA if value is None else f"{rate(value)} tokens/s"


def _millions(value: int) -> str:
    return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.0f} million"

"""The cards of this machine, who owns their memory, and how they reach each other: text, and pages with a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import escape
from ..gpu.card import CardState
from ..values import DeviceSample, OwnerBytes
from . import svg, theme
from .bars import Bar, lanes
from .format import NA, short, size
from .model import owner_label
from .text import Table

_LINE = 240
_SOURCES = {"measured": "measured", "engine": "the engine says so", "estimate": "estimate"}


@dataclass(frozen=True, slots=True)
class GpuView:
    """``cards`` and ``links`` (``None`` for fewer than two) as tables, ``owners`` of every device's memory, ``lines``.

    ``states`` and ``samples`` are the values themselves.
    """

    cards: Table | None
    owners: Table
    links: Table | None
    lines: tuple[str, ...]
    states: tuple[CardState, ...]
    samples: tuple[DeviceSample, ...]

    def __str__(self) -> str:
        parts = [str(part) for part in (self.cards, self.links) if part is not None]
        return "\n\n".join([*parts, "\n".join(self.lines), str(self.owners)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(part._repr_html_() for part in (self.cards, self.links) if part is not None)
        lines = "".join(f"<p style='margin:2px 0'>{escape.html(line)}</p>" for line in self.lines)
        names = _names(self.states)
        known = [s for s in self.samples if s.used_bytes is not None and s.total_bytes is not None]
        if not known:
            return tables + lines + self.owners._repr_html_()
        bars = [Bar(names.get(s.device, "host memory"), _parts(s)) for s in known]
        notes = [f"{size(s.used_bytes)} of {size(s.total_bytes)} used" for s in known]
        drawn = lanes("Memory by owner", bars, [s.total_bytes or 0 for s in known], notes)
        image = svg.image(drawn, "Memory by owner; the table below holds the numbers.")
        return tables + lines + image + self.owners._repr_html_()


def gpu_view(states: Sequence[CardState], samples: Sequence[DeviceSample], lines: Sequence[str]) -> GpuView:
    """The view of cards in NVML's order and of the newest sample of every device."""
    names = _names(states)
    order = [*names, "host"]
    ordered = sorted(samples, key=lambda s: order.index(s.device) if s.device in order else len(order))
    return GpuView(
        _cards(states, names) if states else None,
        _owners(ordered, names),
        _links(states) if len(states) > 1 else None,
        tuple(short(escape.plain(line), _LINE) for line in (*_ways(states, names), *lines)),
        tuple(states),
        tuple(ordered),
    )


def _names(states: Sequence[CardState]) -> dict[str, str]:
    said = {s.device: f" · {s.info.name}" if s.info is not None else "" for s in states}
    return {device: f"GPU {number}{name}" for number, (device, name) in enumerate(said.items())}


def _cards(states: Sequence[CardState], names: dict[str, str]) -> Table:
    heads = ("card", "memory", "busy", "power", "temperature", "clock", "memory clock", "slowed by", "PCIe")
    rows = []
    for one in states:
        now = one.reading
        total = now.total_bytes if now.total_bytes is not None else one.info.total_bytes if one.info else None
        limit = f" of {one.power_limit_w:.0f} W" if one.power_limit_w is not None else " W"
        rows.append(
            (
                short(names[one.device], 40),
                f"{size(now.used_bytes)} of {size(total)}",
                NA if now.util is None else f"{100 * now.util:.0f} %",
                NA if now.power_w is None else f"{now.power_w:.0f}{limit}",
                NA if now.temp_c is None else f"{now.temp_c:.0f} °C",
                _clock(*one.clock_mhz),
                _clock(*one.memory_clock_mhz),
                NA if one.slowed is None else ", ".join(one.slowed) or ("idle" if one.idle else "nothing"),
                str(one.pcie) if one.pcie is not None else NA,
            )
        )
    return Table(heads, tuple(rows), frozenset(heads[1:5]))


def _clock(now: int | None, most: int | None) -> str:
    return NA if now is None else f"{now} of {NA if most is None else most} MHz"


def _links(states: Sequence[CardState]) -> Table:
    """The matrix as nvidia-smi draws it."""
    way = {(pair.first, pair.second): pair.short for one in states for pair in one.pairs}
    heads = tuple(f"GPU {number}" for number in range(len(states)))
    rows = [
        (head, *("–" if a is b else way.get((a.device, b.device), NA) for b in states))
        for head, a in zip(heads, states, strict=True)
    ]
    return Table(("link", *heads), tuple(rows))


def _ways(states: Sequence[CardState], names: dict[str, str]) -> list[str]:
    """What the matrix's words mean here, each once, and which cards reach each other so."""
    said: dict[str, list[str]] = {}
    number = {device: position for position, device in enumerate(names)}
    for pair in (pair for one in states for pair in one.pairs):
        a, b = number.get(pair.first, 0), number.get(pair.second, 0)
        if a < b:
            said.setdefault(f"{pair.short}: {pair.way}; {pair.peer}", []).append(f"{a}–{b}")
    return [f"{what} ({', '.join(which)})" for what, which in said.items()]


def _parts(sample: DeviceSample) -> dict[str, int]:
    sums = {owner: 0 for owner in theme.OWNERS if owner != "free"}
    for one in sample.owners:
        if one.owner in sums:
            sums[one.owner] += one.bytes
    return sums


def _owners(samples: Sequence[DeviceSample], names: dict[str, str]) -> Table:
    heads = ("device", "owner", "bytes", "share", "known by")
    rows = []
    order = list(theme.OWNERS)
    for sample in samples:
        name = names.get(sample.device, "host memory" if sample.device == "host" else sample.device)
        if sample.used_bytes is None:
            rows.append((short(name, 40), NA, NA, NA, "it does not answer"))
        for one in sorted(sample.owners, key=lambda o: (order.index(o.owner), -o.bytes)):
            total = sample.total_bytes or 0
            share = f"{100 * one.bytes / total:.1f} %" if total else NA
            rows.append((short(name, 40), short(owner_label(one), 48), _bytes(one), share, _SOURCES[one.source]))
    return Table(heads, tuple(rows), frozenset({"bytes", "share"}), "no sample yet")


def _bytes(one: OwnerBytes) -> str:
    filled = f", {size(one.filled_bytes)} filled" if one.filled_bytes is not None else ""
    return size(one.bytes) + filled

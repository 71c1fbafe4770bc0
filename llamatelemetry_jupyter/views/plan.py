"""Where a model's bytes would go: a picture by device with a table below, and text; and how right a plan was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import escape
from ..models.plan import Plan, Share
from ..values import EngineBuffer, Owner
from . import svg
from .bars import Bar, lanes
from .format import NA, count, short, size
from .text import Table


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan: ``devices`` as a table, then in ``lines`` what follows from it. ``plan`` is the value itself."""

    title: str
    plan: Plan
    devices: Table
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.title, "", str(self.devices), "", *self.lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shares = [share for share in self.plan.shares if share.used]
        bars = [Bar(share.device.name, _parts(share)) for share in shares]
        notes = [f"{size(share.used)} of {size(share.device.free_bytes)}, {_left(share)}" for share in shares]
        drawn = lanes(self.title, bars, [share.device.free_bytes for share in shares], notes)
        lines = "".join(f"<p style='margin:2px 0'>{escape.html(line)}</p>" for line in self.lines)
        image = svg.image(drawn, f"{self.title}; the table below holds the numbers.")
        return image + self.devices._repr_html_() + lines


def plan_view(title: str, found: Plan, more: Sequence[str]) -> PlanView:
    """The plan with a verdict, the context per slot, and ``more`` lines."""
    layers = max((share.layers[-1] + 1 for share in found.shares if share.layers), default=0)
    demand = found.demand
    shared = "shared by the slots" if demand.unified and demand.slots > 1 else "for each slot"
    slots = f"{demand.slots} slot{'s' if demand.slots > 1 else ''}"
    lines = [f"context: {count(found.ctx_per_slot)} tokens {shared}, {slots}"]
    if any(share.device.kind == "gpu" for share in found.shares):
        lines.append(f"placed: {found.gpu_layers} of {layers + 1} layers (with the output) on GPU")
    if found.tensor_split:
        lines.append("tensor split: " + ", ".join(f"{share:.3f}" for share in found.tensor_split))
    if found.approximate:
        lines.append(f"an estimate: {found.approximate}")
    lines.append("fits" if found.fits else "does not fit: " + "; ".join(_missing(found)))
    rows = tuple(
        (
            short(escape.plain(share.device.name), 24),
            _span(share.layers),
            *(size(value) if value else "–" for value in _parts(share).values()),
            size(share.used),
            size(share.device.free_bytes),
            _left(share),
        )
        for share in found.shares
    )
    heads = ("device", "layers", "weights", "KV cache", "compute", "output", "CUDA context", "sum", "free", "left")
    return PlanView(short(escape.plain(title), 90), found, Table(heads, rows, frozenset(heads[2:])), (*lines, *more))


def _parts(share: Share) -> dict[str, int]:
    return {
        "weights": share.weights,
        "kv": share.kv,
        "compute": share.compute,
        "output": share.output,
        "context": share.context,
    }


def _span(layers: Sequence[int]) -> str:
    return "–" if not layers else str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"


def _left(share: Share) -> str:
    """What stays free behind the margin that the engine keeps."""
    return f"{size(share.left)} left" if share.left >= 0 else f"{size(-share.left)} short"


def _missing(found: Plan) -> list[str]:
    return [f"{size(-s.left)} short on {short(escape.plain(s.device.name), 24)}" for s in found.shares if s.left < 0]


#: The engine prints MiB with two digits: what is nearer than half of one is equal.
_PRINTED = 2**20 * 0.0051
_NAMES: tuple[tuple[Owner, str], ...] = (
    ("weights", "weights"),
    ("kv", "KV cache"),
    ("compute", "compute buffers"),
    ("output", "output buffer"),
)


def comparison(
    predicted: Sequence[EngineBuffer], actual: Sequence[EngineBuffer], uncounted: Sequence[str] = ()
) -> Table:
    """Predicted and actual bytes by device and owner with their difference; ``uncounted`` were not predicted.

    The CUDA context stands apart: the engine does not announce it.
    """
    devices = list(dict.fromkeys(buffer.device for buffer in (*predicted, *actual)))
    rows: list[tuple[str, ...]] = []
    for device in devices:
        found = [(name, _sum(predicted, device, owner), _sum(actual, device, owner)) for owner, name in _NAMES]
        found = [row for row in found if row[1] or row[2]]
        found.append(("sum", sum(row[1] for row in found), sum(row[2] for row in found)))
        shown = short(escape.plain(device), 24)
        rows += [(shown, name, size(ours), size(engines), _error(ours, engines)) for name, ours, engines in found]
        if context := _sum(predicted, device, "context"):
            rows.append((shown, "CUDA context", size(context), NA, NA))
    rows += [("", name, "not counted", NA, NA) for name in uncounted]
    return Table(
        ("device", "what", "predicted", "actual", "error"), tuple(rows), frozenset({"predicted", "actual", "error"})
    )


def _sum(buffers: Sequence[EngineBuffer], device: str, owner: Owner) -> int:
    return sum(one.bytes for one in buffers if (one.device, one.owner) == (device, owner))


def _error(predicted: int, actual: int) -> str:
    if actual and abs(predicted - actual) <= _PRINTED:
        return "0.00 %"
    return NA if not actual else f"{100 * (predicted - actual) / actual:+.2f} %"

"""Whether what an engine says of a GPU's memory agrees with what the driver says: checked at each start on a GPU.

A breakdown that is wrong is worse than none, and this one was never seen on a real GPU when it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..gpu.nvml import Nvml
from ..gpu.owners import gpu_index
from ..models.plan import CONTEXT_BYTES
from ..values import EngineBuffer

_TOLERANCE = 0.1
#: The context of a GPU is not announced: between nothing and this much is granted to it.
_MOST_CONTEXT = CONTEXT_BYTES * 3 // 2


@dataclass(frozen=True, slots=True)
class Doubt:
    """A device of which the engine announced other than the driver saw it take."""

    device: str
    announced_bytes: int
    taken_bytes: int


def used() -> dict[str, int]:
    """Used bytes of each GPU by its id, in the driver's order; empty without a driver."""
    nvml = Nvml()
    try:
        readings = ((gpu.device, nvml.read(gpu).used_bytes) for gpu in nvml.gpus)
        return {device: taken for device, taken in readings if taken is not None}
    finally:
        nvml.close()


def doubts(
    buffers: Sequence[EngineBuffer], before: Mapping[str, int], after: Mapping[str, int], order: Sequence[str]
) -> list[Doubt]:
    """Devices whose buffers are not within 10 % of the memory that was taken there meanwhile.

    ``order`` are the ids of GPUs as the engine counts them. What the driver does not show is not doubted.
    """
    found = []
    for device in dict.fromkeys(buffer.device for buffer in buffers):
        index = gpu_index(device)
        name = order[index] if index is not None and index < len(order) else None
        if name is None or name not in before or name not in after:
            continue
        announced = sum(buffer.bytes for buffer in buffers if buffer.device == device)
        taken = after[name] - before[name]
        if not (1 - _TOLERANCE) * announced <= taken <= (1 + _TOLERANCE) * announced + _MOST_CONTEXT:
            found.append(Doubt(device, announced, taken))
    return found

"""Whether what an engine says of a GPU's memory agrees with what the driver says: checked at each start on a GPU.

A breakdown that is wrong is worse than none, and this one was never seen on a real GPU when it was written. Another
process that takes or gives memory meanwhile looks the same: then the breakdown is left out as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..gpu.nvml import Nvml
from ..gpu.owners import gpu_index, visible
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


@dataclass(frozen=True, slots=True)
class Before:
    """Used bytes of each GPU by its id, in the driver's order, before an engine is started; empty without a driver."""

    used: Mapping[str, int]
    cuda_visible: str | None

    @classmethod
    def now(cls) -> Before:
        """Read now; the engine will see what this process sees."""
        return cls(_used(), os.environ.get("CUDA_VISIBLE_DEVICES"))

    def doubts(self, buffers: Sequence[EngineBuffer]) -> list[Doubt]:
        """Devices whose ``buffers`` are not within 10 % of the memory that was taken there since.

        A device that the driver does not show is not doubted.
        """
        devices = [device for device in dict.fromkeys(b.device for b in buffers) if device.startswith("CUDA")]
        after = _used() if devices and self.used else {}
        order = visible(tuple(self.used), self.cuda_visible)
        found = []
        for device in devices:
            index = gpu_index(device) or 0
            name = order[index] if index < len(order) else ""
            if name not in after:
                continue
            announced = sum(buffer.bytes for buffer in buffers if buffer.device == device)
            taken = after[name] - self.used[name]
            if not (1 - _TOLERANCE) * announced <= taken <= (1 + _TOLERANCE) * announced + _MOST_CONTEXT:
                found.append(Doubt(device, announced, taken))
        return found


def _used() -> dict[str, int]:
    nvml = Nvml()
    try:
        readings = ((gpu.device, nvml.read(gpu).used_bytes) for gpu in nvml.gpus)
        return {device: taken for device, taken in readings if taken is not None}
    finally:
        nvml.close()

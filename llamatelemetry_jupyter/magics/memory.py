"""Memory that a model could have now: what the choice of a form is made from."""

from __future__ import annotations

from collections.abc import Iterable

from ..memory import HostMemory
from ..models.fit import Free
from ..server.machine import Machine
from ..values import EngineBuffer


def free(ending: Iterable[EngineBuffer] = ()) -> Free:
    """Free bytes of the GPUs that are visible here (by NVML) and of the host, or of its container.

    ``ending`` are buffers of a server that will be stopped first.
    """
    gpus = [gpu.free_bytes for gpu in Machine.here().gpus if gpu.free_bytes is not None]
    back = {"gpu": 0, "host": 0}
    for buffer in ending:  # CUDA0, Vulkan1 are devices; CPU, CPU_Mapped, CUDA_Host are not
        back["gpu" if gpus and buffer.device[-1:].isdigit() else "host"] += buffer.bytes
    host = HostMemory().read().available_bytes + back["host"]
    return Free(tuple(one + back["gpu"] // len(gpus) for one in gpus), host)

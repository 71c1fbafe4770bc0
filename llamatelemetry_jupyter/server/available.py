"""Memory that a model could have now: what the choice of a form is made from."""

from __future__ import annotations

from ..memory import HostMemory
from ..models.fit import Free
from ..values import ServerHandle
from .machine import Machine
from .places import HOST, freed


def free(ending: ServerHandle | None = None) -> Free:
    """Free bytes of the GPUs that are visible here (by NVML) and of the host, or of its container.

    ``ending`` is a server that will be stopped first.
    """
    gpus = [gpu.free_bytes for gpu in Machine.here().gpus if gpu.free_bytes is not None]
    back = freed(ending)
    host = HostMemory().read().available_bytes + back.pop(HOST, 0)
    return Free(tuple(one + sum(back.values()) // len(gpus) for one in gpus), host)

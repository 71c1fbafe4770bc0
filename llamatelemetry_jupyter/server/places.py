"""Where an engine can put a model: the GPUs that it sees, by its own names, and this machine, each with free memory.

What a running server holds counts as free where it will be stopped first.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import EngineError
from ..gpu.nvml import Nvml
from ..gpu.owners import gpu_index
from ..models.host import host_device
from ..models.plan import CONTEXT_BYTES, Device
from ..values import Runtime, ServerHandle
from .runtime import devices
from .settings import ServerSettings

#: The name that the engine gives to the memory of the host.
HOST = "CPU"
_LISTED = re.compile(r"(\S+): .*\((\d+) MiB, (\d+) MiB free\)")


def places(
    settings: ServerSettings, runtime: Runtime, ending: ServerHandle | None = None
) -> tuple[tuple[Device, ...], Device]:
    """The GPUs that ``settings`` let the engine use, and the host; ``ending`` is a server that is stopped first."""
    back = freed(ending)
    host = host_device()
    host = replace(host, name=HOST, free_bytes=host.free_bytes + back.get(HOST, 0))
    gpus = {
        gpu.name: replace(gpu, free_bytes=gpu.free_bytes + back.get(gpu.name, 0)) for gpu in _seen(settings, runtime)
    }
    used = [gpus[name] for name in settings.devices if name in gpus] if settings.devices else list(gpus.values())
    if settings.split_mode == "none" and settings.main_gpu is not None:
        used = used[settings.main_gpu : settings.main_gpu + 1]
    return tuple(used), host


def freed(server: ServerHandle | None) -> dict[str, int]:
    """Bytes that come back when ``server`` ends, by the engine's name of the device.

    Of a GPU its buffers and the assumed context; of the host its buffers as far as its process holds them alone:
    pages of a mapped file, and what was never touched, count as available already.
    """
    if server is None or not server.owned:
        return {}
    back: dict[str, int] = {HOST: 0}
    for buffer in server.buffers:
        context = 0 if gpu_index(buffer.device) is None else CONTEXT_BYTES
        back[buffer.device] = back.get(buffer.device, context) + buffer.bytes
    return back | {HOST: min(back[HOST], _private(server.pid))}


def _seen(settings: ServerSettings, runtime: Runtime) -> list[Device]:
    """The engine's GPUs; without a word of it, none: a start is never refused because of a forecast."""
    if settings.gpu_layers == 0 or not _any_gpu():
        return []
    try:
        listed = devices(runtime)
    except EngineError:
        return []
    found = [match.groups() for line in listed if (match := _LISTED.match(line))]
    return [Device(name, int(free) << 20, "gpu", int(total) << 20) for name, total, free in found]


def _any_gpu() -> bool:
    """Whether it is worth asking an engine for its GPUs: that costs 0.1 s, and a second where CUDA wakes up."""
    if sys.platform != "linux" or Path("/dev/dri").exists():  # what Vulkan, ROCm and SYCL go through
        return True
    nvml = Nvml()
    try:
        return bool(nvml.gpus)
    finally:
        nvml.close()


def _private(pid: int | None) -> int:
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

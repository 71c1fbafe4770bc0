"""What libraries of this process keep on GPUs, by their own word.

Where the driver does not list this process, or lists it under a number of another namespace, nothing else tells how
much of a GPU is the notebook's own. Only a library that is loaded and has initialised CUDA is asked, and only about
devices that it uses: initialising CUDA just to look takes some hundred MB of a GPU. **Not verified on a real GPU yet.**
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .owners import Held, visible


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bytes that a library has taken from a GPU; ``index`` is CUDA's number, ``uuid`` comes without its prefix."""

    library: str
    bytes: int
    index: int
    uuid: str | None = None


def allocations(modules: Mapping[str, Any] = sys.modules) -> tuple[Allocation, ...]:
    """What PyTorch and CuPy hold now; empty where neither uses a GPU. What they cached and could give back counts."""
    readers = (("torch", _torch), ("cupy", _cupy))
    found = [_read(reader, module) for name, reader in readers if (module := modules.get(name)) is not None]
    return tuple(one for several in found for one in several if one.bytes > 0)


def by_device(
    found: Iterable[Allocation], devices: Sequence[str], cuda_visible: str | None
) -> dict[str, tuple[Held, ...]]:
    """Allocations by device id; ``devices`` are ids in NVML's order, ``cuda_visible`` is the variable as it was set.

    By uuid where the library tells it, else by CUDA's number, which counts as :func:`.owners.visible` does.
    """
    order = visible(devices, cuda_visible)
    held: dict[str, tuple[Held, ...]] = {}
    for one in found:
        if one.uuid is not None:
            device = next((d for d in devices if d.partition("-")[2] == one.uuid), None)
        else:
            device = order[one.index] if one.index < len(order) else None
        if device is not None:
            held[device] = (*held.get(device, ()), Held(one.library, one.bytes))
    return held


def _read(reader: Callable[[Any], Iterable[Allocation]], module: Any) -> Sequence[Allocation]:
    try:
        return tuple(reader(module))
    except Exception:  # noqa: BLE001 (a library half imported, or whose GPU is gone: it tells nothing, and no cell may fail)
        return ()


def _torch(torch: Any) -> Iterable[Allocation]:
    if not torch.cuda.is_initialized():
        return
    for index in range(torch.cuda.device_count()):
        # PyTorch 2.4 and newer.
        known = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        yield Allocation("torch", int(torch.cuda.memory_reserved(index)), index, None if known is None else str(known))


def _cupy(cupy: Any) -> Iterable[Allocation]:
    from uuid import UUID

    pool = cupy.get_default_memory_pool()
    for index in _contexts():
        # A pool tells about the current device only; making one current that has a context already takes no memory.
        with cupy.cuda.Device(index):
            held = int(pool.total_bytes())
        raw = cupy.cuda.runtime.getDeviceProperties(index).get("uuid")
        known = str(UUID(bytes=raw)) if isinstance(raw, bytes) and len(raw) == 16 else None
        yield Allocation("cupy", held, index, known)


def _contexts(library: Any = None) -> Iterable[int]:
    """CUDA's numbers of the devices on which this process has a context; asking makes none."""
    if library is None:
        try:
            library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return
    count, flags, active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)):  # before cuInit this is an error
        return
    for index in range(count.value):
        state = library.cuDevicePrimaryCtxGetState(index, ctypes.byref(flags), ctypes.byref(active))
        if state == 0 and active.value:
            yield index

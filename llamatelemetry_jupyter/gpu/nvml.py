"""Readings of NVIDIA GPUs through NVML (``pynvml`` of the package nvidia-ml-py), in this process.

No driver means no devices, a normal state. Each GPU fails alone, and each function that a GPU does not support is
asked once only. **Not verified on a real GPU yet**: the tests speak pynvml's interface at the boundary.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..values import DeviceInfo
from .owners import ProcessBytes


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one GPU; ``None`` is n/a. ``processes`` is ``None`` where the driver does not list them."""

    used_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    util: float | None = None
    mem_util: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temp_c: float | None = None
    processes: tuple[ProcessBytes, ...] | None = None


@dataclass(slots=True, eq=False)
class Gpu:
    """A GPU or MIG instance: its id, its handle, and what it was found not to support."""

    device: str
    handle: Any
    mig: bool
    unsupported: set[str]


class Nvml:
    """The GPUs of this machine. ``module`` is pynvml; left out, it is imported when a driver is there."""

    def __init__(self, module: Any = None) -> None:
        self._nvml = module if module is not None else load()
        self._gpus: tuple[Gpu, ...] = ()
        if self._nvml is not None:
            # These answers stay; anything else (lost, unknown, busy) may pass.
            names = ("NotSupported", "FunctionNotFound", "NoPermission", "InvalidArgument")
            self._never = tuple(e for n in names if (e := getattr(self._nvml, f"NVMLError_{n}", None)) is not None)
            try:
                self._nvml.nvmlInit()
            except self._nvml.NVMLError:
                self._nvml = None
            else:
                self._gpus = tuple(self._find())

    @property
    def gpus(self) -> Sequence[Gpu]:
        """GPUs in NVML's order (PCI bus); MIG instances stand in their GPU's place."""
        return self._gpus

    @property
    def driver(self) -> str | None:
        """The driver's version, ``550.54.15``; ``None`` without a driver."""
        if self._nvml is None:
            return None
        version = self._call(self._nvml.nvmlSystemGetDriverVersion)
        return _str(version) if version else None

    def infos(self) -> tuple[DeviceInfo, ...]:
        """Names and sizes of the GPUs that answer."""
        return tuple(info for gpu in self._gpus if (info := self.info(gpu)) is not None)

    def info(self, gpu: Gpu) -> DeviceInfo | None:
        """Name and size of a GPU, ``None`` while it does not answer."""
        memory = self._memory(gpu)
        if memory is None:
            return None
        name = self.ask(gpu, "nvmlDeviceGetName")
        capability = self.ask(gpu, "nvmlDeviceGetCudaComputeCapability")
        return DeviceInfo(
            gpu.device,
            _str(name) if name else "NVIDIA GPU",
            int(memory.total),
            int(memory.free),
            f"{capability[0]}.{capability[1]}" if capability else None,
        )

    def read(self, gpu: Gpu) -> Reading:
        """What the GPU says now; raises nothing, a lost GPU reads n/a everywhere."""
        memory = self._memory(gpu)
        if memory is None:
            return Reading()
        used, total, free = int(memory.used), int(memory.total), int(memory.free)
        processes = self._processes(gpu)
        if gpu.mig:
            # Utilisation, power, energy and temperature exist for the whole GPU only: here they would count twice.
            return Reading(used, total, free, processes=processes)
        rates = self.ask(gpu, "nvmlDeviceGetUtilizationRates")
        return Reading(
            used_bytes=used,
            total_bytes=total,
            free_bytes=free,
            util=rates.gpu / 100 if rates is not None else None,
            mem_util=rates.memory / 100 if rates is not None else None,
            power_w=_scaled(self.ask(gpu, "nvmlDeviceGetPowerUsage"), 1e-3),
            energy_j=_scaled(self.ask(gpu, "nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
            temp_c=_scaled(self.ask(gpu, "nvmlDeviceGetTemperature", 0), 1.0),
            processes=processes,
        )

    def close(self) -> None:
        """Give NVML back."""
        if self._nvml is not None:
            self._call(self._nvml.nvmlShutdown)
            self._nvml, self._gpus = None, ()

    def _find(self) -> list[Gpu]:
        found: list[Gpu] = []
        for index in range(self._call(self._nvml.nvmlDeviceGetCount) or 0):
            handle = self._call(self._nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is None:
                continue
            uuid = self._call(self._nvml.nvmlDeviceGetUUID, handle)
            gpu = Gpu(_str(uuid) if uuid else f"GPU-{index}", handle, False, set())
            found += self._instances(gpu) or [gpu]
        return found

    def _instances(self, gpu: Gpu) -> list[Gpu]:
        mode = self.ask(gpu, "nvmlDeviceGetMigMode")
        if not mode or mode[0] != 1:
            return []
        instances = []
        for index in range(self.ask(gpu, "nvmlDeviceGetMaxMigDeviceCount") or 0):
            handle = self._call(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, index)
            uuid = self._call(self._nvml.nvmlDeviceGetUUID, handle) if handle is not None else None
            if uuid:
                instances.append(Gpu(_str(uuid), handle, True, set()))
        return instances

    def _memory(self, gpu: Gpu) -> Any:
        # v1 counts what the driver reserves as used; v2 (driver 515 and newer) tells it apart.
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        if version is not None and "memory_v2" not in gpu.unsupported:
            memory = self.ask(gpu, "nvmlDeviceGetMemoryInfo", version, key="memory_v2")
            if memory is not None:
                return memory
        return self.ask(gpu, "nvmlDeviceGetMemoryInfo")

    def _processes(self, gpu: Gpu) -> tuple[ProcessBytes, ...] | None:
        merged: dict[int, int | None] = {}
        answered = False
        for kind in ("Compute", "Graphics", "MPSCompute"):
            name = f"nvmlDeviceGet{kind}RunningProcesses"
            listed = self.ask(gpu, name)
            if listed is None:
                listed = self.ask(gpu, f"{name}_v2")
            if listed is None:
                continue
            answered = True
            for process in listed:
                # A process may be in several lists with the same memory: the largest counts, never the sum.
                sizes = [s for s in (merged.get(process.pid), process.usedGpuMemory) if s is not None]
                merged[process.pid] = max(sizes) if sizes else None
        return tuple(ProcessBytes(pid, size) for pid, size in merged.items()) if answered else None

    def ask(self, gpu: Gpu, function: str, *args: Any, key: str | None = None) -> Any:
        """What ``function`` says of a GPU, or ``None``; one that it does not support is never called again."""
        key = key or function
        if key in gpu.unsupported or self._nvml is None:
            return None
        call = getattr(self._nvml, function, None)
        if call is None:
            gpu.unsupported.add(key)
            return None
        try:
            return call(gpu.handle, *args)
        except self._never:
            gpu.unsupported.add(key)
        except (self._nvml.NVMLError, UnicodeDecodeError, TypeError):
            # TypeError: nvidia-ml-py assigns None to a C integer while a figure is n/a.
            return None
        return None

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except (self._nvml.NVMLError, UnicodeDecodeError):
            return None


def load() -> Any:
    """The module pynvml, ``None`` without a driver or without the package."""
    # pynvml costs 30 ms and 10 MB: without the driver's library it could only say that there is none.
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def _str(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor

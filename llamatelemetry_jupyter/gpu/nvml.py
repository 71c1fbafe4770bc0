"""Readings of NVIDIA GPUs through NVML (``pynvml`` of the package nvidia-ml-py), in this process.

No driver means no devices, a normal state. Each GPU fails alone, and each function that a GPU does not support is
asked once only. A lost GPU and a driver that was replaced read n/a until :meth:`Nvml.revive` finds them again, under
the same ids. **Not verified on a real GPU yet**: the tests replay traces at pynvml's interface.
"""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..values import DeviceInfo
from .owners import ProcessBytes

# These answers stay; anything else (lost, unknown, busy) may pass. NVMLLibraryMismatchError is pynvml's own, and no
# NVMLError: an unversioned function of a driver that is too old for it.
_NEVER = (
    "NotSupported",
    "FunctionNotFound",
    "NoPermission",
    "InvalidArgument",
    "ArgumentVersionMismatch",
    "NVMLLibraryMismatchError",
)
_GONE = ("Uninitialized", "DriverNotLoaded", "LibRmVersionMismatch")
_LOST = ("GpuIsLost", "ResetRequired")
_FIRST_TRY_S, _LONGEST_S = 1.0, 30.0
_POWER, _GPU_UTIL = 0, 1  # nvmlSamplingType_t
#: Members of the union nvmlValue_t, by nvmlValueType_t.
MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


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


#: ``(t_us, value)``.
Point = tuple[int, float]


@dataclass(slots=True, eq=False)
class Gpu:
    """A GPU or MIG instance: its id, its handle, what it was found not to support, and whether it is lost."""

    device: str
    handle: Any
    mig: bool = False
    unsupported: set[str] = field(default_factory=set)
    lost: bool = False


class _Retry:
    """When to try again: at once, then after 1, 2, 4 … 30 s."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._wait_s = 0.0
        self._due = 0.0

    def due(self) -> bool:
        """Whether it is time; then the next time is further away."""
        if self._now() < self._due:
            return False
        self._wait_s = min(_LONGEST_S, max(_FIRST_TRY_S, 2 * self._wait_s))
        self._due = self._now() + self._wait_s
        return True

    def reset(self) -> None:
        """It works again."""
        self._wait_s = self._due = 0.0


class Nvml:
    """The GPUs of this machine. ``module`` is pynvml; left out, it is imported when a driver is there.

    Readings are safe from any thread, one thread at a time for each GPU; :meth:`revive` from one thread.
    """

    def __init__(self, module: Any = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._nvml = module if module is not None else load()
        self._gpus: tuple[Gpu, ...] = ()
        self._retry, self._retry_lost = _Retry(now), _Retry(now)
        self._now = now
        self._mismatch_since: float | None = None
        self._opened = 0
        self._gone = False
        if self._nvml is not None:
            self._never = self._errors(*_NEVER)
            self._gone_errors, self._lost_errors = self._errors(*_GONE), self._errors(*_LOST)
            self._open()

    @property
    def present(self) -> bool:
        """Whether there is a driver's library: without it, GPUs cannot appear later either."""
        return self._nvml is not None

    @property
    def mismatch_s(self) -> float:
        """For how many seconds the driver has been another than the library that this process has loaded.

        A library stays loaded: only a new process gets the new one.
        """
        return 0.0 if self._mismatch_since is None else self._now() - self._mismatch_since

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

    @property
    def cuda(self) -> str | None:
        """The newest CUDA that the driver runs, ``12.4``; ``None`` without a driver."""
        function = getattr(self._nvml, "nvmlSystemGetCudaDriverVersion", None)
        version = self._call(function) if function is not None else None
        return f"{version // 1000}.{version % 1000 // 10}" if version else None

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

    def read(self, gpu: Gpu, before: Reading | None = None) -> Reading:
        """What the GPU says now; raises nothing, a lost GPU reads n/a everywhere.

        ``processes`` and ``temp_c``, which change seldom and cost most, are those of ``before`` where it is given.
        """
        memory = self._memory(gpu)
        if memory is None:
            return Reading()
        used, total, free = int(memory.used), int(memory.total), int(memory.free)
        listed = self._processes(gpu) if before is None else before.processes
        if gpu.mig:
            # Utilisation, power, energy and temperature exist for the whole GPU only: here they would count twice.
            return Reading(used, total, free, processes=listed)
        rates = self.ask(gpu, "nvmlDeviceGetUtilizationRates")
        return Reading(
            used_bytes=used,
            total_bytes=total,
            free_bytes=free,
            util=rates.gpu / 100 if rates is not None else None,
            mem_util=rates.memory / 100 if rates is not None else None,
            power_w=_scaled(self.ask(gpu, "nvmlDeviceGetPowerUsage"), 1e-3),
            energy_j=_scaled(self.ask(gpu, "nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
            temp_c=_scaled(self.ask(gpu, "nvmlDeviceGetTemperature", 0), 1.0) if before is None else before.temp_c,
            processes=listed,
        )

    def close(self) -> None:
        """Give NVML back."""
        if self._nvml is not None:
            self._call(self._nvml.nvmlShutdown)
            self._nvml, self._gpus = None, ()

    def revive(self) -> bool:
        """Look for what was lost: a driver that was replaced, a GPU; true when :attr:`gpus` are others now.

        To be called about once a second by whoever goes on reading; it waits longer by itself while nothing comes back.
        """
        if self._nvml is None:
            return False
        before = self._gpus
        if self._gone:
            if self._retry.due():
                self._call(self._nvml.nvmlShutdown)
                self._open()
            return self._gpus != before
        lost = [gpu for gpu in self._gpus if gpu.lost]
        if not lost:
            self._retry_lost.reset()
        elif self._retry_lost.due():
            for gpu in lost:
                handle = self._call(self._nvml.nvmlDeviceGetHandleByUUID, gpu.device)
                gpu.handle = gpu.handle if handle is None else handle
        return False

    def _open(self) -> None:
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as exc:
            mismatch = isinstance(exc, self._errors("LibRmVersionMismatch"))
            self._mismatch_since = (self._mismatch_since or self._now()) if mismatch else None
            self._gone = True
            return
        self._opened += 1
        self._gone = False
        known = {gpu.device: gpu for gpu in self._gpus}
        found = self._find()
        for index, fresh in enumerate(found):
            if (gpu := known.pop(fresh.device, None)) is not None:
                # Another driver may support what the last one did not.
                gpu.handle, gpu.mig, gpu.unsupported, gpu.lost = fresh.handle, fresh.mig, fresh.unsupported, False
                found[index] = gpu
        # One that is no longer there stays in the list and reads n/a.
        self._gpus = (*found, *known.values())
        self._mismatch_since = None
        self._retry.reset()

    def _errors(self, *names: str) -> tuple[type[BaseException], ...]:
        return tuple(
            e for n in names for p in ("NVMLError_", "") if (e := getattr(self._nvml, p + n, None)) is not None
        )

    def _find(self) -> list[Gpu]:
        found: list[Gpu] = []
        for index in range(self._call(self._nvml.nvmlDeviceGetCount) or 0):
            handle = self._call(self._nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is None:
                continue
            uuid = self._call(self._nvml.nvmlDeviceGetUUID, handle)
            gpu = Gpu(_str(uuid) if uuid else f"GPU-{index}", handle)
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
                instances.append(Gpu(_str(uuid), handle, mig=True))
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
            listed = self.ask_first(gpu, name, f"{name}_v2")
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
        if key in gpu.unsupported or self._nvml is None or self._gone:
            return None
        call = getattr(self._nvml, function, None)
        if call is None:
            gpu.unsupported.add(key)
            return None
        opened = self._opened
        try:
            answer = call(gpu.handle, *args)
        except self._never:
            gpu.unsupported.add(key)
        except self._gone_errors:
            if opened == self._opened:  # else it was opened again while this call ran
                self._gone = True
        except self._lost_errors:
            gpu.lost = True
        except (self._nvml.NVMLError, UnicodeDecodeError, TypeError):
            # TypeError: nvidia-ml-py assigns None to a C integer while a figure is n/a.
            return None
        else:
            gpu.lost = False
            return answer
        return None

    def ask_first(self, gpu: Gpu, *functions: str) -> Any:
        """The answer of the first of ``functions`` that has one: newest version or name first."""
        return next((answer for name in functions if (answer := self.ask(gpu, name)) is not None), None)

    def activity(self, gpu: Gpu, since_us: tuple[int, int]) -> tuple[list[Point], list[Point]]:
        """The driver's own readings after ``since_us``: of the GPU's utilisation (0..1) and of its power (W).

        A point is ``(t_us, value)``, ``t_us`` being the host's wall clock when the driver took it. ``since_us`` are
        the last times that were seen, of both; 0 gives all that the driver keeps, a few seconds of power.
        """
        if gpu.mig:
            return [], []
        util = self._samples(gpu, _GPU_UTIL, since_us[0], 100)
        return util, self._samples(gpu, _POWER, since_us[1], 1000)

    def _samples(self, gpu: Gpu, kind: int, since_us: int, per_unit: int) -> list[Point]:
        answer = self.ask(gpu, "nvmlDeviceGetSamples", kind, since_us, key=f"samples {kind}")
        if answer is None or answer[0] >= len(MEMBERS):
            return []
        member = MEMBERS[answer[0]]
        return [
            (int(one.timeStamp), getattr(one.sampleValue, member) / per_unit)
            for one in answer[1]
            if one.timeStamp > since_us
        ]

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

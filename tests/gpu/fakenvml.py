"""A machine with GPUs at pynvml's interface: the names, signatures and errors of nvidia-ml-py."""

from __future__ import annotations

from types import SimpleNamespace


class NVMLError(Exception):
    pass


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 (pynvml's names)
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 (pynvml's names)
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801, N818 (pynvml's names)
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818 (pynvml's names)
    pass


class FakeNvml:
    """``answers[(function, gpu)]`` replaces an answer: a value to return or an exception to raise."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_FunctionNotFound = NVMLError_FunctionNotFound
    NVMLError_GpuIsLost = NVMLError_GpuIsLost
    nvmlMemory_v2 = 0x2000028  # noqa: N815

    def __init__(self, gpus=1, *, driver=True, mig=()):
        self.gpus, self.driver, self.mig = gpus, driver, mig
        self.answers: dict[tuple[str, object], object] = {}
        self.calls: list[tuple[str, object]] = []

    def _say(self, function, gpu, value):
        self.calls.append((function, gpu))
        answer = self.answers.get((function, gpu), value)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def nvmlInit(self):
        if not self.driver:
            raise NVMLError_LibraryNotFound(12)

    def nvmlShutdown(self):
        self.calls.append(("shutdown", None))

    def nvmlSystemGetDriverVersion(self):
        return self._say("driver", None, "550.54.15")

    def nvmlDeviceGetCount(self):
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index):
        return self._say("handle", index, index)

    def nvmlDeviceGetUUID(self, handle):
        return self._say("uuid", handle, f"MIG-{handle}" if isinstance(handle, str) else f"GPU-{handle}")

    def nvmlDeviceGetName(self, handle):
        return self._say("name", handle, "Tesla T4")

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return self._say("capability", handle, (7, 5))

    def nvmlDeviceGetMigMode(self, handle):
        return self._say("mig", handle, (1, 1) if self.mig else NVMLError_NotSupported(3))

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):
        if index >= len(self.mig):
            raise NVMLError("not found")
        return self.mig[index]

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        if version is not None:
            v2 = SimpleNamespace(total=16_000, reserved=400, free=10_600, used=5_000)
            return self._say("memory_v2", handle, v2)
        return self._say("memory", handle, SimpleNamespace(total=16_000, free=10_600, used=5_400))

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._say("util", handle, SimpleNamespace(gpu=50, memory=25))

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._say("power", handle, 70_500)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._say("energy", handle, 123_000)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == 0
        return self._say("temperature", handle, 61)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self._say("compute", handle, [SimpleNamespace(pid=7, usedGpuMemory=4_000)])

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle):
        return self._say("compute_v2", handle, [SimpleNamespace(pid=7, usedGpuMemory=3_900)])

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        return self._say("graphics", handle, [SimpleNamespace(pid=7, usedGpuMemory=4_100)])

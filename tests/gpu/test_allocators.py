"""What this kernel's libraries hold, from modules at PyTorch's and CuPy's interface and a driver at CUDA's."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest
from faketorch import UUIDS, Torch

from llamatelemetry_jupyter.gpu import allocators
from llamatelemetry_jupyter.gpu.allocators import Allocation, allocations, by_device
from llamatelemetry_jupyter.gpu.owners import Held

DEVICES = (f"GPU-{UUIDS[0]}", f"GPU-{UUIDS[1]}")


def test_torch_is_asked_about_what_it_reserved_on_each_device():
    assert allocations({"torch": Torch(700, 0)}) == (Allocation("torch", 700, 0, UUIDS[0]),)
    assert allocations({"torch": Torch(0, 5, uuids=False)}) == (Allocation("torch", 5, 1, None),)


def test_torch_that_has_not_initialised_cuda_is_left_alone():
    assert allocations({"torch": Torch(700, initialized=False)}) == ()


@pytest.mark.parametrize("module", [SimpleNamespace(), SimpleNamespace(cuda=None), None])
def test_a_library_that_is_half_imported_holds_nothing(module):
    assert allocations({"torch": module, "cupy": module}) == ()


class Driver:
    """libcuda: two devices, one of them with a context."""

    def __init__(self, *contexts, ready=True):
        self.contexts, self.ready = contexts, ready

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.contexts)
        return 0 if self.ready else 3

    def cuDevicePrimaryCtxGetState(self, index, _flags, active):
        active._obj.value = self.contexts[index]
        return 0


class Cupy:
    def __init__(self, held, raw):
        self.held, self.current = held, None
        self.cuda = SimpleNamespace(Device=self.device, runtime=SimpleNamespace(getDeviceProperties=lambda _: raw))

    @contextmanager
    def device(self, index):
        self.current = index
        yield

    def get_default_memory_pool(self):
        return SimpleNamespace(total_bytes=lambda: self.held[self.current])


def test_cupy_is_asked_only_where_it_has_a_context_already(monkeypatch):
    monkeypatch.setattr(allocators.ctypes, "CDLL", lambda name: Driver(False, True))
    cupy = Cupy({1: 9_000}, {"uuid": UUID(UUIDS[1]).bytes})  # device 0 would be a KeyError
    assert allocations({"cupy": cupy}) == (Allocation("cupy", 9_000, 1, UUIDS[1]),)
    # CuPy cuts the raw bytes at a zero in some builds: then the number has to do.
    assert allocations({"cupy": Cupy({1: 9_000}, {"uuid": b"\x01"})}) == (Allocation("cupy", 9_000, 1, None),)
    monkeypatch.setattr(allocators.ctypes, "CDLL", lambda name: Driver(True, True, ready=False))
    assert allocations({"cupy": cupy}) == ()


def test_devices_are_found_by_uuid_and_else_by_cudas_number():
    named = [Allocation("torch", 1, 0, UUIDS[1]), Allocation("cupy", 2, 0, UUIDS[1])]
    assert by_device(named, DEVICES, "1") == {DEVICES[1]: (Held("torch", 1), Held("cupy", 2))}
    numbered = [Allocation("torch", 1, 0), Allocation("torch", 2, 1)]
    assert by_device(numbered, DEVICES, "1,0") == {DEVICES[1]: (Held("torch", 1),), DEVICES[0]: (Held("torch", 2),)}
    assert by_device(numbered, DEVICES, "") == {}
    assert by_device([Allocation("torch", 1, 0, "another machine's")], DEVICES, None) == {}
    assert by_device([Allocation("torch", 1, 0, UUIDS[0])], [f"MIG-{UUIDS[0]}"], None)


@pytest.mark.floor
def test_reading_imports_nothing_and_initialises_nothing():
    code = "import sys; from llamatelemetry_jupyter.gpu.allocators import allocations; assert allocations() == ()"
    code += "; assert not {'torch', 'cupy', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)

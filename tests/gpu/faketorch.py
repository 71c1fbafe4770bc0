"""PyTorch's and CuPy's interface as far as memory goes, on GPUs that are not there."""

from __future__ import annotations

from types import SimpleNamespace

UUIDS = ("11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")


class Torch:
    """``torch``; using a device that it has not initialised fails the test, as it would cost memory in reality."""

    def __init__(self, *reserved: int, initialized: bool = True, uuids: bool = True):
        self.reserved = list(reserved)
        self.initialized = initialized
        self.uuids = uuids
        self.cuda = self

    def is_initialized(self):
        return self.initialized

    def device_count(self):
        assert self.initialized
        return len(self.reserved)

    def memory_reserved(self, index):
        assert self.initialized
        return self.reserved[index]

    def get_device_properties(self, index):
        assert self.initialized
        return SimpleNamespace(uuid=UUIDS[index]) if self.uuids else SimpleNamespace()

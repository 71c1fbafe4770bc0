"""What of this machine decides which build of an engine can run on it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass

from ..gpu.nvml import Nvml
from ..values import DeviceInfo


@dataclass(frozen=True, slots=True)
class Machine:
    """``arch`` is x86_64 or aarch64; ``glibc`` is ``None`` for another C library; ``driver`` is NVIDIA's."""

    system: str
    arch: str
    glibc: str | None
    driver: str | None
    gpus: tuple[DeviceInfo, ...]
    vulkan: bool

    @classmethod
    def here(cls) -> Machine:
        """This machine, read now (with a driver about 50 ms, else 1)."""
        nvml = Nvml()
        try:
            return cls(sys.platform, _arch(), _glibc(), nvml.driver, nvml.infos(), _loads("libvulkan.so.1"))
        finally:
            nvml.close()

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities of the GPUs, each once, the lowest first."""
        found = {gpu.compute_capability for gpu in self.gpus if gpu.compute_capability}
        return tuple(sorted(found, key=version_key))


def version_key(text: str) -> tuple[int, ...]:
    """The numbers of a version, to be compared: ``550.54.15`` → (550, 54, 15)."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _arch() -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())


def _glibc() -> str | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError, AttributeError):  # musl, macOS
        return None
    return version if name == "glibc" else None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

"""This machine's memory as a place for layers."""

from __future__ import annotations

import platform
from pathlib import Path

from ..memory import HostMemory
from .plan import Device

#: CPU feature -> tensor types that the engine keeps in an order of its own, with rows in groups of 8
#: (ggml-cpu/repack.cpp). They are then in memory twice: in the mapped file, which can be dropped, and repacked.
_REPACKED: tuple[tuple[str, frozenset[str]], ...] = (
    ("avx2", frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})),
    ("avx512f", frozenset({"Q2_K"})),
    ("asimddp", frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0"})),
)


def host_device() -> Device:
    """Memory that is available now to this machine, or to its container."""
    memory = HostMemory().read()
    return Device("host", memory.available_bytes, "host", memory.total_bytes, repacked_types())


def repacked_types(cpuinfo: str | None = None) -> frozenset[str]:
    """Types that the engine repacks on a CPU with these features; empty where they cannot be read."""
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:  # not Linux
            return _REPACKED[2][1] if platform.machine() == "arm64" else frozenset()
    line = next((x for x in cpuinfo.splitlines() if x.startswith(("flags", "Features"))), "")
    features = set(line.split())
    return frozenset().union(*(types for feature, types in _REPACKED if feature in features))

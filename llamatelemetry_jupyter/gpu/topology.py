"""How GPUs reach each other and the host, by NVML alone: no CUDA context is made, so no memory of a GPU is taken.

**Not verified on a real GPU yet**: the tests replay traces that were written by NVML's documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .nvml import Gpu, Nvml

#: nvmlGpuTopologyLevel_t → nvidia-smi's word, and ours.
PATHS: dict[int, tuple[str, str]] = {
    0: ("INT", "on one board"),
    10: ("PIX", "over one PCIe switch"),
    20: ("PXB", "over several PCIe switches"),
    30: ("PHB", "over a PCIe host bridge"),
    40: ("NODE", "over the host bridges of one NUMA node"),
    50: ("SYS", "over the link between CPU sockets"),
}
#: GB/s of a PCIe lane in one direction, by generation: PCI-SIG's 2.5, 5, 8, 16, 32, 64 GT/s, encoding taken off.
_LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
# nvmlGpuP2PCapsIndex_t and nvmlGpuP2PStatus_t.
_READ, _WRITE, _NVLINK = 0, 1, 2
_OK = 0
_MAX_LINKS = 36


@dataclass(frozen=True, slots=True)
class Pcie:
    """A GPU's PCIe link: generation and lanes now and at most. Idle cards slow down; lanes say how it is plugged in."""

    generation: int | None
    width: int | None
    max_generation: int | None
    max_width: int | None

    @property
    def gb_s(self) -> float | None:
        """GB/s in each direction with the lanes that it has, at its highest generation."""
        lane = _LANE_GB_S.get(self.max_generation or 0)
        return lane * self.width if lane is not None and self.width else None

    def __str__(self) -> str:
        if self.width is None and self.max_width is None:
            return "n/a"
        most = f"{_na(self.max_generation)} ×{_na(self.max_width)}"
        return f"{_na(self.generation)} ×{_na(self.width)} now, {most} at most"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two GPUs: the way between them (:data:`PATHS`), NVLinks, and whether one reads and writes the other's memory."""

    first: str
    second: str
    level: int | None
    nvlinks: int
    read: bool | None
    write: bool | None

    @property
    def short(self) -> str:
        """The way as ``nvidia-smi topo -m`` writes it: ``NV4``, ``PHB``; ``n/a`` where NVML does not tell."""
        if self.nvlinks:
            return f"NV{self.nvlinks}"
        return PATHS[self.level][0] if self.level in PATHS else "n/a"

    @property
    def way(self) -> str:
        """The way in words."""
        if self.nvlinks:
            return f"over {self.nvlinks} NVLink{'s' if self.nvlinks > 1 else ''}"
        return PATHS[self.level][1] if self.level in PATHS else "way n/a"

    @property
    def peer(self) -> str:
        """Whether copies go straight from one to the other."""
        if self.read is None or self.write is None:
            return "peer access n/a"
        return "peer access" if self.read and self.write else "no peer access: copies go through the host"


def pcie(nvml: Nvml, gpu: Gpu) -> Pcie:
    """The PCIe link of a GPU."""
    names = ("CurrPcieLinkGeneration", "CurrPcieLinkWidth", "MaxPcieLinkGeneration", "MaxPcieLinkWidth")
    return Pcie(*(nvml.ask(gpu, f"nvmlDeviceGet{name}") for name in names))


def pairs(nvml: Nvml, gpu: Gpu, others: Sequence[Gpu]) -> tuple[Pair, ...]:
    """How ``gpu`` reaches each of ``others``; instances of a GPU (MIG) have no links of their own and are left out."""
    links = _nvlinks(nvml, gpu)
    found = []
    for other in others:
        if other is gpu or gpu.mig or other.mig:
            continue
        read, write, nvlink = (_status(nvml, gpu, other, index) for index in (_READ, _WRITE, _NVLINK))
        count = links.get(_bus(nvml, other) or "", 0)
        if nvlink and not count:  # over a switch: the other end of a link is the switch, not the GPU
            count = sum(links.values())
        level = nvml.ask(gpu, "nvmlDeviceGetTopologyCommonAncestor", other.handle, key=f"ancestor {other.device}")
        found.append(Pair(gpu.device, other.device, level, count, read, write))
    return tuple(found)


def _status(nvml: Nvml, gpu: Gpu, other: Gpu, index: int) -> bool | None:
    answer = nvml.ask(gpu, "nvmlDeviceGetP2PStatus", other.handle, index, key=f"P2P {index} {other.device}")
    return None if answer is None else answer == _OK


def _nvlinks(nvml: Nvml, gpu: Gpu) -> dict[str, int]:
    """Active NVLinks by the bus address of their other end."""
    found: dict[str, int] = {}
    for link in range(_MAX_LINKS):
        active = nvml.ask(gpu, "nvmlDeviceGetNvLinkState", link, key=f"NVLink {link}")
        if active is None:  # a card without NVLink says so at the first
            break
        if active:
            far = nvml.ask(gpu, "nvmlDeviceGetNvLinkRemotePciInfo", link, key=f"NVLink end {link}")
            end = _text(far.busId) if far is not None else ""
            found[end] = found.get(end, 0) + 1
    return found


def _bus(nvml: Nvml, gpu: Gpu) -> str | None:
    info = nvml.ask(gpu, "nvmlDeviceGetPciInfo")
    return _text(info.busId) if info is not None else None


def _text(bus: str | bytes) -> str:
    return (bus.decode("ascii", "replace") if isinstance(bus, bytes) else bus).lower()


def _na(value: int | None) -> str:
    return "n/a" if value is None else str(value)

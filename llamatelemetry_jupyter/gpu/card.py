"""What a person wants to know of a GPU at one moment, beyond what the sampler follows."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..values import DeviceInfo
from . import topology
from .nvml import Gpu, Nvml, Reading

_SM, _MEMORY = 1, 2  # nvmlClockType_t
#: nvmlClocksEventReasons: bit → why clocks are lower than they could be. Bit 0 is idleness, bit 1 a wish of somebody.
_REASONS = {
    0x002: "clocks were set",
    0x004: "power limit",
    0x008: "hardware slowdown",
    0x010: "sync boost with another GPU",
    0x020: "temperature (driver)",
    0x040: "temperature (hardware)",
    0x080: "power brake",
    0x100: "display clock",
}


@dataclass(frozen=True, slots=True)
class CardState:
    """A GPU now; ``None`` is n/a. ``reading`` is what the sampler reads too, clocks are MHz ``(now, at most)``."""

    device: str
    info: DeviceInfo | None = None
    reading: Reading = field(default_factory=Reading)
    power_limit_w: float | None = None
    clock_mhz: tuple[int | None, int | None] = (None, None)
    memory_clock_mhz: tuple[int | None, int | None] = (None, None)
    #: Why it is slowed down, empty when it is not.
    slowed: tuple[str, ...] | None = None
    idle: bool | None = None
    pcie: topology.Pcie | None = None
    pairs: tuple[topology.Pair, ...] = ()


def state(nvml: Nvml, gpu: Gpu) -> CardState:
    """Everything about a GPU, asked now: some 15 calls of well below a millisecond each."""
    limit = nvml.ask_first(gpu, "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")
    # The name before driver 535, with the same bits.
    bits = nvml.ask_first(gpu, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    return CardState(
        gpu.device,
        info=nvml.info(gpu),
        reading=nvml.read(gpu),
        power_limit_w=None if limit is None else limit / 1000,
        clock_mhz=_clock(nvml, gpu, _SM),
        memory_clock_mhz=_clock(nvml, gpu, _MEMORY),
        slowed=None if bits is None else tuple(text for bit, text in _REASONS.items() if bits & bit),
        idle=None if bits is None else bool(bits & 1),
        pcie=topology.pcie(nvml, gpu),
        pairs=topology.pairs(nvml, gpu, nvml.gpus),
    )


def _clock(nvml: Nvml, gpu: Gpu, kind: int) -> tuple[int | None, int | None]:
    now, most = (
        nvml.ask(gpu, f"nvmlDeviceGet{name}", kind, key=f"{name} {kind}") for name in ("ClockInfo", "MaxClockInfo")
    )
    return now, most

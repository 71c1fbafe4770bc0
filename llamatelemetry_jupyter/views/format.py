"""What a snapshot says in words; numbers are those of :mod:`..units`. ``js/src/format.js`` follows the same rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..units import NA, count, rate, seconds, short, size

__all__ = ["NA", "clock", "count", "rate", "seconds", "short", "since", "size", "state", "used", "watts"]


def clock(t_ms: float) -> str:
    """Local time of day of a Unix time in milliseconds."""
    return datetime.fromtimestamp(t_ms / 1e3).astimezone().strftime("%H:%M:%S")


def used(device: Mapping[str, Any]) -> str:
    """How full a device of a snapshot is, ``2.7 GiB of 15.0 GiB used``, or since when that is not known."""
    if device["used_bytes"] is None and device.get("since_ms") is not None:
        return since(device["since_ms"])
    return f"{size(device['used_bytes'])} of {size(device['total_bytes'])} used"


def state(server: Mapping[str, Any]) -> str:
    """A snapshot's server in words: ``ready``, ``loading: loading weights, 45 %``, ``crashed: why; try: what``."""
    word = short(server["state"], 78)
    if server.get("reason"):
        remedy = f"; try: {short(server['remedy'], 80)}" if server.get("remedy") else ""
        return f"{word}: {short(server['reason'], 160)}{remedy}"
    if server.get("stage"):
        part = f", {100 * server['fraction']:.0f} %" if server.get("fraction") is not None else ""
        return f"{word}: {short(server['stage'], 78)}{part}"
    return word


def watts(devices: Sequence[Mapping[str, Any]]) -> str:
    """What a snapshot's GPUs draw together, ``130 W, 2 GPUs``; of those that tell, where some do not."""
    gpus = [one for one in devices if one["id"] != "host"]
    told = [one["power_w"] for one in gpus if one["power_w"] is not None]
    if not told:
        return NA
    who = f"{len(told)} of {len(gpus)} GPUs" if len(told) < len(gpus) else f"{len(gpus)} GPU{'s'[: len(gpus) > 1]}"
    return f"{sum(told):.0f} W, {who}"


def since(t_ms: float) -> str:
    """``n/a since 14:02:11``."""
    return f"{NA} since {clock(t_ms)}"

"""Numbers as people read them; ``js/src/format.js`` follows the same rules. ``None`` is "n/a", never 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

NA = "n/a"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(value: float | None) -> str:
    """Bytes in the unit that suits them: ``98.0 MiB``, ``310 MiB``, ``2.9 GiB``."""
    if value is None or not math.isfinite(value):
        return NA
    unit, scaled = 0, abs(value)
    while scaled >= 1023.95 and unit < len(_UNITS) - 1:
        unit, scaled = unit + 1, scaled / 1024
    digits = 0 if unit == 0 or scaled >= 100 else 1
    return f"{'−' if value < 0 else ''}{scaled:.{digits}f} {_UNITS[unit]}"


def seconds(value: float | None) -> str:
    """A duration: ``2.0 ms``, ``148 ms``, ``2.15 s``, ``3 min 05 s``."""
    if value is None or not math.isfinite(value):
        return NA
    if value < 0.0995:
        return f"{value * 1e3:.{1 if value < 0.00995 else 0}f} ms"
    if value < 59.95:
        return f"{value:.{2 if value < 9.995 else 1}f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return NA if value is None or not math.isfinite(value) else f"{round(value):,}"


def rate(value: float | None) -> str:
    """A number per second, without its unit."""
    if value is None or not math.isfinite(value):
        return NA
    return count(value) if abs(value) >= 1000 else f"{value:.1f}"


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


def short(text: object, length: int) -> str:
    """``text`` cut to ``length`` characters, the last of them an ellipsis."""
    shown = str(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"

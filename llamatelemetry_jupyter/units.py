"""Numbers as people read them; ``js/src/format.js`` follows the same rules. ``None`` is "n/a", never 0."""

from __future__ import annotations

import math

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


def whole_seconds(value: float | None) -> str:
    """A duration that changes while it is read: ``4 s``, ``3 min 05 s``."""
    if value is None or not math.isfinite(value):
        return NA
    return f"{value:.0f} s" if value < 59.5 else seconds(value)


def short(text: object, length: int) -> str:
    """``text`` cut to ``length`` characters, the last of them an ellipsis."""
    shown = str(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"

"""One clock for spans, samples and events.

Wall time can jump and monotonic time has no date; so time is a wall-clock anchor taken once per process plus a
monotonic difference. Processes on one machine agree to within what the wall clock moved between their starts.
"""

from __future__ import annotations

import time

_WALL_NS = time.time_ns()
_MONOTONIC_NS = time.monotonic_ns()


def now_ns() -> int:
    """Unix time in nanoseconds, never going backwards within this process."""
    return _WALL_NS + (time.monotonic_ns() - _MONOTONIC_NS)

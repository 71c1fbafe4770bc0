"""One clock for spans, samples and events.

Wall time can jump and monotonic time has no date; so time is a wall-clock anchor taken once per kernel plus a monotonic
difference. The monotonic clock is the machine's: a process that is given the kernel's anchor, as the sampler is, agrees
with it whatever happened to the wall clock since.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment on the wall clock (Unix ns) and on the monotonic one (ns since boot, without the time asleep)."""

    wall_ns: int
    monotonic_ns: int

    def now_ns(self) -> int:
        """Unix time in nanoseconds by this anchor; never goes backwards."""
        return self.wall_ns + (time.monotonic_ns() - self.monotonic_ns)


_anchor = Anchor(time.time_ns(), time.monotonic_ns())


def now_ns() -> int:
    """Unix time in nanoseconds, never going backwards within this process."""
    return _anchor.wall_ns + (time.monotonic_ns() - _anchor.monotonic_ns)


def anchor() -> Anchor:
    """This process's anchor, to be handed to a process that must agree with it."""
    return _anchor


def adopt(given: Anchor) -> None:
    """Go by the anchor of another process from now on; to be called before the first :func:`now_ns`."""
    global _anchor  # noqa: PLW0603 (one clock per process)
    _anchor = given

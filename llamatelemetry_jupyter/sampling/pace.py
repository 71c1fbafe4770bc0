"""Waiting for the next reading at a rate that may rise at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A wish for more readings is met within this time.
NOTICE_S = 0.1


def wait(begun: float, hz: Callable[[], float]) -> float:
    """Sleep until ``1 / hz()`` after ``begun`` (seconds of the monotonic clock); returns when the next reading began.

    A reading that took too long is not made up for.
    """
    while (left := begun + 1.0 / hz() - time.monotonic()) > 0:
        time.sleep(min(left, NOTICE_S))
    return max(begun + 1.0 / hz(), time.monotonic() - NOTICE_S)

"""How fast this machine's memory is, measured: there is no data sheet for whatever a program runs on."""

from __future__ import annotations

import threading
import time

_BYTES = 32 << 20  # for each thread: more than its share of any cache
_MOST_THREADS = 16
_ROUNDS = 3


def measured_gb_s(threads: int, seconds: float = 0.3) -> float:
    """GB/s of copying with numpy, bytes read and written together, on ``threads`` threads (16 at most).

    The best of the rounds that fit into ``seconds``, three at least; takes 64 MiB for each thread meanwhile. Large
    copies bypass the cache when they write (glibc), so that nothing is read besides the source.
    """
    import numpy as np

    count = max(1, min(threads, _MOST_THREADS))
    pairs = [(np.ones(_BYTES // 8), np.ones(_BYTES // 8)) for _ in range(count)]  # zeros would have no pages yet
    best, rounds = 0.0, 0
    deadline = time.monotonic() + seconds
    while rounds < _ROUNDS or time.monotonic() < deadline:
        rounds += 1
        workers = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs]
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, 2 * _BYTES * count / (time.perf_counter() - begun))
    return best / 1e9

"""Starts an engine and sees to it that it ends with the kernel, also when the kernel is killed.

Run as a script: ``python -I guard.py KERNEL_PID KERNEL_START -- argv…``. It forks a watcher and becomes the engine, so
that the pid which the kernel knows is the engine's. Standard library only, and small: it lives as long as the engine.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

_POLL_S = 0.5
_GRACE_S = 2.0


def start_ticks(pid: int) -> str | None:
    """Field 22 of ``/proc/PID/stat``, ``None`` when the process is gone or a zombie (see environment.process_start)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    rest = stat[stat.rindex(b")") + 2 :].split()
    return None if rest[0] in (b"Z", b"X") else rest[19].decode()


def watch(kernel: int, kernel_start: str, engine: int, engine_start: str | None) -> None:
    """Return when the engine has ended; end it when the kernel is gone."""
    while start_ticks(engine) == engine_start:
        if start_ticks(kernel) != kernel_start:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if start_ticks(engine) == engine_start:
                    os.kill(engine, number)
                deadline = time.monotonic() + _GRACE_S
                while start_ticks(engine) == engine_start and time.monotonic() < deadline:
                    time.sleep(0.05)
            return
        time.sleep(_POLL_S)


def main(arguments: list[str]) -> None:
    """Fork the watcher, become the engine."""
    kernel, kernel_start, separator, *argv = arguments
    assert separator == "--"
    engine = os.getpid()
    engine_start = start_ticks(engine)
    if os.fork() == 0:
        # A grandchild has no parent that would have to reap it.
        if os.fork() == 0:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.chdir("/")
            watch(int(kernel), kernel_start, engine, engine_start)
        os._exit(0)
    os.wait()
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])

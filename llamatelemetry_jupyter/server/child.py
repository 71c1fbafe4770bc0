"""An engine's process, whether we are its parent or found it again: asked, signalled and waited for in one way.

A process is named by pid and start time, so that a reused pid is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time

from .. import environment

_POLL_S = 0.02


class Child:
    """A running or ended process. Made with the ``Popen`` of one that we started, or with the pid of a found one."""

    def __init__(self, pid: int, start: float | None, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.start = start
        self._popen = popen
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a kernel before 5.3, a sandbox, or it has ended already
                self._pidfd = os.pidfd_open(pid)

    @property
    def returncode(self) -> int | None:
        """Its exit code once :meth:`ended`; ``None`` for a process that is not our child."""
        return self._popen.returncode if self._popen is not None else None

    def ended(self) -> bool:
        """Whether it has ended; reaps it."""
        if self._popen is not None:
            return self._popen.poll() is not None
        return environment.process_start(self.pid) != self.start

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._popen is not None:
                self._popen.send_signal(number)
            elif self._pidfd is not None:
                if not self.ended():
                    signal.pidfd_send_signal(self._pidfd, number)
            elif not self.ended():
                os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, at most ``timeout_s``; whether it has ended."""
        deadline = time.monotonic() + timeout_s
        while not self.ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._pidfd is not None:
                if select.select([self._pidfd], [], [], left)[0] and self._popen is None:
                    return True  # not ours to reap: a zombie is dead for us
            else:
                time.sleep(min(_POLL_S, left))
        return True

    def end(self, grace_s: float) -> None:
        """One SIGTERM; SIGKILL when it still runs after ``grace_s`` (a request may hold it up)."""
        self.signal(signal.SIGTERM)
        if not self.wait(grace_s):
            self.signal(signal.SIGKILL)
            self.wait(10.0)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

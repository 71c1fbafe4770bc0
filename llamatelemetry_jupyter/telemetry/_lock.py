"""Whether a session's file is being written: a lock beside it, which the system gives back when its kernel dies.

Not SQLite's own locks: those belong to a process, so that reading another session and closing it would drop them. Not
a process id: kernels of several containers or machines may share a folder.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_TRIES, _PAUSE_S = 3, 0.02  # somebody who only asks whether it is taken has it for a moment


class Lock:
    """The lock of the session whose file is ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_suffix(".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it; raises ``BlockingIOError`` when another kernel has it, ``OSError`` when there can be none."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not left:
                    os.close(descriptor)
                    raise
                time.sleep(_PAUSE_S)
            except OSError:
                os.close(descriptor)
                raise
            else:
                break
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def taken(self) -> bool:
        """Whether somebody has it; ``True`` where that cannot be found out."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

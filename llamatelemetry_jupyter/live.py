"""An output that changes: one place in the cell's output that is rewritten, at most ten times a second.

In a kernel that is one ``display_id``, so that a reload, nbclient and papermill show the last state exactly once; in a
terminal the text is written as it comes.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from . import escape

_MIN_INTERVAL_S = 0.11  # each update sends the whole text again, and front ends render Markdown slowly


class Live:
    """An output that is updated in place; nothing is shown before the first update."""

    def __init__(self, shell: Any) -> None:
        self.in_kernel = shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
        self._id = uuid.uuid4().hex
        self._shown = False
        self._next_s = 0.0
        self._lock = threading.RLock()
        self._later: threading.Timer | None = None

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last update."""
        return time.monotonic() >= self._next_s

    def update(self, data: Mapping[str, str], metadata: Mapping[str, object] | None = None) -> None:
        """Show ``data`` (MIME type → text) in the place of what was there; the kernel only."""
        if not self.in_kernel:
            return
        from IPython.display import display, update_display

        with self._lock:
            if self._later is not None:
                self._later.cancel()
                self._later = None
            show = update_display if self._shown else display
            show(dict(data), raw=True, display_id=self._id, metadata=dict(metadata or {}))
            self._shown = True
            self._next_s = time.monotonic() + _MIN_INTERVAL_S

    def soon(self, make: Callable[[], Mapping[str, str]]) -> None:
        """Show what ``make()`` says as soon as it is due, also if nobody calls again until then; the kernel only."""
        if not self.in_kernel:
            return
        with self._lock:
            if self.due:
                self.update(make())
            elif self._later is None:
                # With the caller's context ipykernel 7 knows the cell that the output belongs to.
                run = contextvars.copy_context().run
                self._later = threading.Timer(self._next_s - time.monotonic(), run, (self._catch_up, make))
                self._later.daemon = True
                self._later.start()

    def _catch_up(self, make: Callable[[], Mapping[str, str]]) -> None:
        with self._lock:
            if self._later is threading.current_thread():  # nothing newer was shown meanwhile
                self.update(make())

    def write(self, text: str) -> None:
        """Append ``text`` to a terminal."""
        if not self.in_kernel:
            sys.stdout.write(escape.plain(text))
            sys.stdout.flush()

    def line(self, text: str) -> None:
        """Show one line of plain text: updates in a kernel, a new line in a terminal."""
        if self.in_kernel:
            self.update({"text/plain": text})
        else:
            sys.stdout.write(text + "\n")

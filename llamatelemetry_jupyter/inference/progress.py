"""A progress bar of one line: updated in place, at most ten times a second, and one last line where nobody watches."""

from __future__ import annotations

import sys
import time
import uuid

from .. import environment

_MIN_INTERVAL_S = 0.1
_WIDTH = 24


class Bar:
    """``bar(done, total, failed)`` draws; :meth:`close` draws the last state.

    A kernel updates one output, a terminal one line of stderr; in batch runs and in files only the last state appears.
    """

    def __init__(self, what: str) -> None:
        where = environment.detect()
        self._what = what
        self._kernel = where.kernel
        self._live = not where.batch and (where.kernel or sys.stderr.isatty())
        self._id = uuid.uuid4().hex
        self._text = ""
        self._drawn = ""
        self._next_s = 0.0
        self._start_s = time.monotonic()

    def __call__(self, done: int, total: int, failed: int) -> None:
        """Note the state, and draw it when the last drawing is long enough ago."""
        self._text = self._line(done, total, failed)
        if self._live and self._text != self._drawn and time.monotonic() >= self._next_s:
            self._draw()

    def close(self) -> None:
        """Draw the last state."""
        if self._text and self._text != self._drawn:
            self._draw()
        if self._drawn and not self._kernel:
            sys.stderr.write("\n")

    def _draw(self) -> None:
        if self._kernel:
            from IPython.display import display, update_display

            show = update_display if self._drawn else display
            show({"text/plain": self._text}, raw=True, display_id=self._id)
        else:
            sys.stderr.write(f"\r{self._text}" if self._live else self._text)
            sys.stderr.flush()
        self._drawn = self._text
        self._next_s = time.monotonic() + _MIN_INTERVAL_S

    def _line(self, done: int, total: int, failed: int) -> str:
        passed_s = time.monotonic() - self._start_s
        filled = done * _WIDTH // total if total else _WIDTH
        parts = [f"{'█' * filled}{'·' * (_WIDTH - filled)} {done}/{total} {self._what}"]
        if failed:
            parts.append(f"{failed} failed")
        if 0 < done < total:
            parts.append(f"about {passed_s / done * (total - done):.0f} s left")
        else:
            parts.append(f"{passed_s:.1f} s")
        return ", ".join(parts)

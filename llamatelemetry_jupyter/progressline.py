"""One line that shows how far long work is, in a notebook, in a terminal and where nobody watches.

A thread of its own draws it, so that work may tell of itself as often as it likes, and a line whose work stands still
says so. What it says is made in :mod:`.progresswords`.
"""

from __future__ import annotations

import contextvars
import shutil
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TextIO

from . import environment, escape
from .live import Live
from .progress import Pace, Progress, Step, silent
from .progresswords import Picture, cells_of, ended, picture_of

_FIRST_S = 0.5  # what takes less shows nothing
_EVERY_S = 0.25
_PLAIN_S = 10.0  # where lines stay, one for so long at most, when a tenth more is done or after a minute
_PLAIN_SHARE = 0.1
_PLAIN_LONGEST_S = 60.0


def shown(progress: bool | Progress) -> AbstractContextManager[Progress]:
    """Where work tells of itself: a line, nothing, or the caller's function."""
    if progress is True:
        return Line()
    return nullcontext(silent if progress is False else progress)


class Line:
    """``with Line() as say``: shows each ``say(Step(…))`` in the place of the one before.

    When the block ends the line says in what time, or how far it was when it was stopped or failed; :meth:`end` puts a
    result there instead. What takes less than half a second shows nothing but a result.
    """

    def __init__(self) -> None:
        self._screen = _screen()
        self._pace: Pace | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawer: threading.Thread | None = None
        self._start_s = time.monotonic()
        self._drawn: Picture | None = None

    def __enter__(self) -> Line:
        return self

    def __call__(self, step: Step) -> None:
        """Note the state; it is drawn within a quarter of a second."""
        now_s = time.monotonic()
        with self._lock:
            if self._pace is None or (self._pace.step.what, self._pace.step.unit) != (step.what, step.unit):
                self._pace = Pace(step, now_s)
            else:
                self._pace.saw(step, now_s)
        if self._drawer is None:
            # With the caller's context ipykernel 7 knows the cell that the output belongs to.
            run = contextvars.copy_context().run
            self._drawer = threading.Thread(target=run, args=(self._draw,), name="llamatelemetry-progress", daemon=True)
            self._drawer.start()

    def note(self, text: str) -> None:
        """Print ``text``, which is to stay, above the line."""
        with self._lock:
            self._screen.clear()
            print(escape.plain(text))

    def end(self, text: str) -> None:
        """Put ``text``, the result, in the line's place, where it stays."""
        self._stop()
        self._screen.clear()
        self._screen.result(escape.plain(text))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._over.is_set():
            return
        self._stop()
        self._screen.clear()
        passed_s = time.monotonic() - self._start_s
        # An error says enough by itself where nobody has seen the line.
        if self._pace is not None and (self._drawn is not None or (kind is None and passed_s >= _FIRST_S)):
            broken = "stopped" if kind is not None and issubclass(kind, KeyboardInterrupt) else "failed"
            self._screen.last(ended("done in" if kind is None else f"{broken} after", self._pace, passed_s))

    def _stop(self) -> None:
        self._over.set()
        if self._drawer is not None:
            self._drawer.join(1.0)  # it may be in the middle of a drawing

    def _draw(self) -> None:
        wait_s = _FIRST_S
        while not self._over.wait(wait_s):
            with self._lock:
                if self._pace is not None and not self._over.is_set():
                    passed_s = time.monotonic() - self._start_s
                    picture = picture_of(self._pace, time.monotonic(), passed_s)
                    if picture != self._drawn and self._screen.draw(picture, passed_s):
                        self._drawn = picture
            wait_s = _EVERY_S


# -------------------------------------------------------------------------------------------------------- the screens


class _Screen(Protocol):
    """Where the line is."""

    def draw(self, picture: Picture, passed_s: float) -> bool:
        """Show it, if it is time to; whether it was shown."""

    def clear(self) -> None:
        """Make room for other output, where the line would stand in its way."""

    def last(self, text: str) -> None:
        """Show how it ended."""

    def result(self, text: str) -> None:
        """Show what came of it."""


def _screen() -> _Screen:
    where = environment.detect()
    if where.kernel and not where.batch:
        return _Notebook()
    stream = sys.stdout if where.kernel else sys.stderr  # a notebook shows stderr as something that went wrong
    return _Terminal(stream) if not where.batch and stream.isatty() else _Log(stream)


class _Notebook:
    """One output of the cell, so that a reload, nbclient and a saved notebook have the last state exactly once."""

    def __init__(self) -> None:
        self._live = Live(environment.shell())

    def draw(self, picture: Picture, passed_s: float) -> bool:  # noqa: ARG002
        self._live.update({"text/html": picture.html(), "text/plain": picture.text()})
        return True

    def clear(self) -> None:
        """Other output has a place of its own."""

    def last(self, text: str) -> None:
        self._live.line(text)

    result = last


class _Log:
    """Lines that stay, and few of them: a log, a pipe, a batch run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = Live(environment.shell())
        self._last_s = 0.0
        self._told: tuple[str, float] = ("", 0.0)

    def draw(self, picture: Picture, passed_s: float) -> bool:
        fraction = picture.fraction or 0.0
        new = picture.what != self._told[0] or fraction - self._told[1] >= _PLAIN_SHARE
        if passed_s - self._last_s < (_PLAIN_S if new else _PLAIN_LONGEST_S):
            return False
        self._last_s, self._told = passed_s, (picture.what, fraction)
        self.last(picture.words())
        return True

    def clear(self) -> None:
        """Lines stay."""

    def last(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def result(self, text: str) -> None:
        self._live.line(text)


class _Terminal(_Log):
    """The terminal's last line, written over; no control sequence but the carriage return."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._width = 0

    def draw(self, picture: Picture, passed_s: float) -> bool:  # noqa: ARG002
        text = picture.text(shutil.get_terminal_size().columns - 1)
        cells = cells_of(text)
        self._stream.write(f"\r{text}{' ' * (self._width - cells)}")
        self._stream.flush()
        self._width = cells
        return True

    def clear(self) -> None:
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0

"""One line that shows how far long work is, in a notebook, in a terminal and where nobody watches.

A thread of its own draws it, so that work may tell of itself as often as it likes, and a line whose work stands still
says so. Names in it are other people's: they are escaped and cut.
"""

from __future__ import annotations

import contextvars
import math
import shutil
import sys
import threading
import time
import unicodedata
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TextIO

from . import environment, escape
from .live import Live
from .progress import Pace, Progress, Step, silent
from .units import NA, count, rate, seconds, size, whole_seconds

_FIRST_S = 0.5  # what takes less shows nothing
_EVERY_S = 0.25
_BAR = 20
_WHAT = 48
_CUT = "overflow:hidden;text-overflow:ellipsis;white-space:pre"
_LINE = (
    "display:flex;gap:1ch;margin:0;padding:0 0 0 1ch;"
    "font-size:var(--jp-code-font-size);line-height:var(--jp-code-line-height)"
)
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

    When the block ends the line says in what time, or that it was stopped or failed; :meth:`end` puts a result there
    instead. What takes less than half a second shows nothing but a result.
    """

    def __init__(self) -> None:
        self._screen = _screen()
        self._pace: Pace | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawer: threading.Thread | None = None
        self._start_s = time.monotonic()
        self._drawn = False

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
        if self._pace is not None and (self._drawn or passed_s >= _FIRST_S):
            broken = "stopped" if kind is not None and issubclass(kind, KeyboardInterrupt) else "failed"
            how = "done in" if kind is None else f"{broken} after"
            facts = [_named(self._pace.step.what), *_final(self._pace)]
            self._screen.last(f"{how} {seconds(passed_s)}: {', '.join(facts)}")

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
                    picture = _picture(self._pace, time.monotonic(), passed_s)
                    self._drawn = self._screen.draw(picture, passed_s) or self._drawn
            wait_s = _EVERY_S


# ---------------------------------------------------------------------------------------------------------- the words


@dataclass(frozen=True, slots=True)
class _Picture:
    what: str
    fraction: float | None
    facts: tuple[str, ...]

    def words(self) -> str:
        return f"{self.what}: {', '.join(self.facts)}"

    def text(self, width: int | None = None) -> str:
        """One line with a bar, at most ``width`` cells wide: the bar goes first, then the last facts."""
        bar = "" if self.fraction is None else f" {_bar(self.fraction)}"
        facts = " · ".join(self.facts)
        if width is None:
            return f"{self.what}{bar}  {facts}"
        room = width - _cells(facts) - 2
        what = _fitting(self.what, max(room - len(bar), 16))
        if _cells(what) + len(bar) > room:
            bar = ""
        return _fitting(f"{what}{bar}  {facts}", width, tail=0)

    def html(self) -> str:
        what, facts = escape.html(self.what), escape.html(" · ".join(self.facts))
        bar = ""
        if self.fraction is not None:
            percent = f"{100 * self.fraction:.0f}"
            bar = (
                f'<progress max="100" value="{percent}" aria-label="{what}"'
                f' style="flex:0 999 12em;min-width:4em;height:auto">{percent} %</progress>'
            )
        # In <pre> no front end typesets a name as mathematics, and it looks like the text that takes its place.
        return (
            f'<pre style="{_LINE}"><span style="flex:0 9 auto;min-width:8ch;{_CUT}">{what}</span>{bar}'
            f'<span style="flex:0 .01 auto;min-width:0;{_CUT}">{facts}</span></pre>'
        )


def _picture(pace: Pace, now_s: float, passed_s: float) -> _Picture:
    step = pace.step
    facts = [*_amount(step)]
    still_s = pace.stalled_s(now_s)
    if still_s is not None:
        facts.append(f"nothing new for {whole_seconds(still_s)}")
    elif step.done is not None and step.unit:
        facts += [_speed(pace.rate(now_s), step.unit)] if step.unit != "s" else []
        left_s = pace.left_s(now_s)
        if step.total is not None:
            facts.append(f"time left {NA}" if left_s is None else f"{whole_seconds(math.ceil(left_s))} left")
    facts.append(f"{whole_seconds(passed_s)} so far")
    return _Picture(_named(step.what), step.fraction, tuple(facts))


def _final(pace: Pace) -> list[str]:
    """How much was done, and how fast on the whole."""
    mean = pace.mean_rate() if pace.step.unit not in ("", "s") else None
    return [*_amount(pace.step), *([_speed(mean, pace.step.unit)] if mean is not None else [])]


def _amount(step: Step) -> list[str]:
    done, total, unit = step.done, step.total, step.unit
    if done is None:
        return []
    if not unit:
        return [] if step.fraction is None else [f"{100 * step.fraction:.0f} %"]
    told = {"B": size, "s": whole_seconds}.get(unit, count)
    much, whole = told(done), told(total) if total is not None else ""
    if total is None or done == total:
        said = much
    else:
        number, _, own = much.partition(" ")
        said = f"{number if not done or own == whole.partition(' ')[2] else much} of {whole}"
    said = said if unit in ("B", "s") else f"{said} {unit}"
    return [said, f"{step.failed} failed"] if step.failed else [said]


def _speed(per_second: float | None, unit: str) -> str:
    if per_second is None:
        return f"rate {NA}"
    if unit == "B":
        return f"{size(per_second)}/s"
    return f"{rate(per_second)}/s" if per_second >= 1 else f"{rate(60 * per_second)}/min"


def _bar(fraction: float) -> str:
    filled = int(fraction * _BAR)  # full when all is done, never before
    return "█" * filled + "·" * (_BAR - filled)


def _named(text: str) -> str:
    return _fitting(" ".join(escape.plain(text).split()), _WHAT)


def _fitting(text: str, width: int, tail: int = 22) -> str:
    """``text`` in ``width`` cells of a terminal; of a longer one the last ``tail`` stay, because names differ there."""
    if _cells(text) <= width:
        return text
    end = text[-tail:] if 0 < tail < width // 2 else ""
    start = ""
    for character in text:
        if _cells(start + character) + 1 + _cells(end) > width:
            break
        start += character
    return f"{start}…{end}"


def _cells(text: str) -> int:
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


# -------------------------------------------------------------------------------------------------------- the screens


class _Screen(Protocol):
    """Where the line is."""

    def draw(self, picture: _Picture, passed_s: float) -> bool:
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

    def draw(self, picture: _Picture, passed_s: float) -> bool:  # noqa: ARG002
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

    def draw(self, picture: _Picture, passed_s: float) -> bool:
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

    def draw(self, picture: _Picture, passed_s: float) -> bool:  # noqa: ARG002
        text = picture.text(shutil.get_terminal_size().columns - 1)
        cells = _cells(text)
        self._stream.write(f"\r{text}{' ' * (self._width - cells)}")
        self._stream.flush()
        self._width = cells
        return True

    def clear(self) -> None:
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0

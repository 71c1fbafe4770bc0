"""What a progress line says: as text that fits a terminal, and as HTML that fits a notebook.

Names in it are other people's: they are escaped and cut, in the middle, because names of files differ at their ends.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from . import escape
from .progress import Pace, Step
from .units import NA, count, rate, seconds, size, whole_seconds

_BAR = 20
_SHORTEST_BAR = 8
_SHORTEST_NAME = 16
_WHAT = 48
_LINE = (
    "display:flex;flex-wrap:wrap;column-gap:2ch;margin:0;padding:0 0 0 1ch;"
    "font-size:var(--jp-code-font-size);line-height:var(--jp-code-line-height)"
)
# Where there is no room for all of it the name is cut; only where that is not enough the facts go below.
_NAME = "flex:99 1 12ch;max-width:max-content;overflow:hidden;text-overflow:ellipsis;white-space:pre"
_PROGRESS = "flex:1 1 4em;max-width:12em;height:auto"
_FACTS = "flex:0 1 auto;white-space:pre-wrap;word-break:normal"


@dataclass(frozen=True, slots=True)
class Picture:
    """One state of the line; ``what`` is harmless by now, ``fraction`` is the bar's."""

    what: str
    fraction: float | None
    facts: tuple[str, ...]

    def words(self) -> str:
        """In words alone, for a log."""
        return f"{self.what}: {', '.join(self.facts)}"

    def text(self, width: int | None = None) -> str:
        """One line with a bar, at most ``width`` cells wide: first the bar is cut, then the name, then the facts."""
        facts = " · ".join(self.facts)
        if width is None:
            bar = "" if self.fraction is None else f" {_bar(self.fraction, _BAR)}"
            return f"{self.what}{bar}  {facts}"
        room = width - cells_of(facts) - 2
        wanted, rest = cells_of(self.what), room - _SHORTEST_BAR - 1
        if self.fraction is None or rest < min(wanted, _SHORTEST_NAME):
            return _fitting(f"{_fitting(self.what, max(room, _SHORTEST_NAME))}  {facts}", width, tail=0)
        what = _fitting(self.what, rest)
        return f"{what} {_bar(self.fraction, min(_BAR, room - cells_of(what) - 1))}  {facts}"

    def html(self) -> str:
        """The line for a notebook: a ``<progress>`` with a name, one line where there is room for it."""
        what, facts, bar = escape.html(self.what), escape.html(" · ".join(self.facts)), ""
        if self.fraction is not None:
            percent = f"{100 * self.fraction:.0f}"
            bar = (
                f'<progress max="100" value="{percent}" aria-label="{what}" style="{_PROGRESS}">{percent} %</progress>'
            )
        # In <pre> no front end typesets a name as mathematics, and it looks like the text that takes its place.
        name, rest = f'<span style="{_NAME}">{what}</span>', f'<span style="{_FACTS}">{facts}</span>'
        return f'<pre style="{_LINE}">{name}{bar}{rest}</pre>'


def picture_of(pace: Pace, now_s: float, passed_s: float) -> Picture:
    """The line of a step that goes at this pace, ``passed_s`` after its command began."""
    step = pace.step
    facts = [*_amount(step)]
    still_s = pace.stalled_s(now_s)
    if still_s is not None:
        facts.append(f"nothing new for {whole_seconds(still_s)}")
    elif step.done is not None and step.unit and step.done != step.total:
        facts += [_speed(pace.rate(now_s), step.unit)] if step.unit != "s" else []
        if step.total is not None:
            left_s = pace.left_s(now_s)
            facts.append(f"time left {NA}" if left_s is None else f"{whole_seconds(math.ceil(left_s))} left")
    facts.append(f"{whole_seconds(passed_s)} so far")
    return Picture(_named(step.what), step.fraction, tuple(facts))


def ended(how: str, pace: Pace, passed_s: float) -> str:
    """``done in 12.1 s: answering, 60 prompts, 5.0/s``: how much was done, and how fast on the whole."""
    step = pace.step
    mean = pace.mean_rate() if step.unit not in ("", "s") else None
    speed = [_speed(mean, step.unit)] if mean is not None else []
    return f"{how} {seconds(passed_s)}: {', '.join([_named(step.what), *_amount(step), *speed])}"


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


def _bar(fraction: float, cells: int) -> str:
    filled = int(fraction * cells)  # full when all is done, never before
    return "█" * filled + "·" * (cells - filled)


def _named(text: str) -> str:
    return _fitting(" ".join(escape.plain(text).split()), _WHAT)


def _fitting(text: str, width: int, tail: int = 22) -> str:
    """``text`` in ``width`` cells of a terminal; of a longer one the last ``tail`` stay, because names differ there."""
    if cells_of(text) <= width:
        return text
    end = text[-tail:] if 0 < tail < width // 2 else ""
    start = ""
    for character in text:
        if cells_of(start + character) + 1 + cells_of(end) > width:
            break
        start += character
    return f"{start}…{end}"


def cells_of(text: str) -> int:
    """How many cells of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )

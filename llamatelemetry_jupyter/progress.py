"""How far long work is: what it tells of itself, and the rate and the time left that follow from that.

Who works says ``say(Step(…))`` as often as it likes and never draws; :mod:`.progressline` shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")
_WINDOW_S = 10.0  # a rate is of so long, and of so many advances at least
_ADVANCES = 5
_APART_S = 0.2  # advances that follow each other faster are remembered as one
_SHORTEST_S = 1.0  # a rate of less is a guess
_STALLED_S = 5.0
_STALLED_GAPS = 3
_EVERY = 256


@dataclass(frozen=True, slots=True)
class Step:
    """What is being done, and how much of it is: ``done`` of ``total``; ``None`` where nothing measures it.

    ``unit`` is ``"B"`` (bytes), ``"s"`` (seconds), ``""`` (a share of ``total``) or what is counted: ``"prompts"``.
    ``failed`` of what is done went wrong.
    """

    what: str
    done: float | None = None
    total: float | None = None
    unit: str = ""
    failed: int = 0

    @property
    def fraction(self) -> float | None:
        """0..1, or ``None`` where nothing measures it."""
        if self.done is None or not self.total:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)


#: ``say(step)``: called by whoever works, in its own thread, thousands of times a second if it likes.
Progress: TypeAlias = Callable[[Step], None]


def silent(_step: Step) -> None:
    """Takes steps and shows nothing."""


def counted(items: Iterable[_T], what: str, total: int | None, unit: str, say: Progress) -> Iterator[_T]:
    """``items``, while ``say`` is told how many of ``total`` were taken."""
    taken = 0
    for item in items:
        if taken % _EVERY == 0:
            say(Step(what, taken, total, unit))
        yield item
        taken += 1
    say(Step(what, taken, total, unit))


class Pace:
    """How fast one step goes, from what was told when; times are seconds of any one clock.

    It counts from what was done when it was first told of: a download that goes on has the rate of what arrives now.
    """

    def __init__(self, step: Step, now_s: float) -> None:
        self.step = step
        self._restart(step, now_s)

    def _restart(self, step: Step, now_s: float) -> None:
        self._first = self._done = step.done
        self._start_s = self._moved_s = now_s
        self._gap_s = 0.0
        self._seen = deque([(now_s, step.done)])

    def saw(self, step: Step, now_s: float) -> None:
        """Take the same step's newest state."""
        self.step = step
        if step.done is None or step.done == self._done:
            return
        if self._done is None or step.done < self._done or self._first is None:
            self._restart(step, now_s)  # measured for the first time, or begun again
            return
        self._gap_s = max(self._gap_s, now_s - self._moved_s)
        self._done, self._moved_s = step.done, now_s
        if now_s - self._seen[-1][0] >= _APART_S:
            self._seen.append((now_s, step.done))
            while len(self._seen) > _ADVANCES and now_s - self._seen[1][0] >= _WINDOW_S:
                self._seen.popleft()

    def rate(self, now_s: float) -> float | None:
        """Units per second of late, the time since the last advance included; ``None`` in the first second."""
        start_s, before = self._seen[0]
        return self._per_second(before, now_s - start_s)

    def mean_rate(self) -> float | None:
        """Units per second from the first that was told to the last advance."""
        return self._per_second(self._first, self._moved_s - self._start_s)

    def _per_second(self, before: float | None, passed_s: float) -> float | None:
        if before is None or self._done is None or self._done <= before or passed_s < _SHORTEST_S:
            return None
        return (self._done - before) / passed_s

    def left_s(self, now_s: float) -> float | None:
        """Seconds until all is done, if it goes on like this; ``None`` where that cannot be known."""
        done, total = self.step.done, self.step.total
        if done is None or total is None or not self.step.unit:
            return None  # the shares of a start's stages say nothing of their durations
        if self.step.unit == "s":
            return max(total - done, 0.0)
        per_second = self.rate(now_s)
        return None if per_second is None else max(total - done, 0.0) / per_second

    def stalled_s(self, now_s: float) -> float | None:
        """Seconds without an advance, when they are many more than ever before in this step."""
        done, total = self.step.done, self.step.total
        if done is None or (total is not None and done >= total):
            return None
        if not self._gap_s and self.step.unit not in ("B", ""):
            return None  # how long one of them takes is known when the first has come
        still_s = now_s - self._moved_s
        return still_s if still_s >= max(_STALLED_S, _STALLED_GAPS * self._gap_s) else None

"""How a command shows something that changes: one output that is rewritten, at most ten times a second.

In a kernel that is one ``display_id``, so that a reload, nbclient and papermill show the last state exactly once; in a
terminal the text is written as it comes.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

from .. import escape
from ..errors import CommandError

_MIN_INTERVAL_S = 0.1  # each update sends the whole text again, and front ends render Markdown slowly

_streamed: tuple[object, int] | None = None


class Live:
    """An output that is updated in place; nothing is shown before the first update."""

    def __init__(self, shell: Any) -> None:
        self.in_kernel = shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
        self._id = uuid.uuid4().hex
        self._shown = False
        self._next_s = 0.0
        self._stages: set[str] = set()

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last update."""
        return time.monotonic() >= self._next_s

    def update(self, data: Mapping[str, str], metadata: Mapping[str, object] | None = None) -> None:
        """Show ``data`` (MIME type → text) in the place of what was there; the kernel only."""
        if not self.in_kernel:
            return
        from IPython.display import display, update_display

        show = update_display if self._shown else display
        show(dict(data), raw=True, display_id=self._id, metadata=dict(metadata or {}))
        self._shown = True
        self._next_s = time.monotonic() + _MIN_INTERVAL_S

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

    def progress(self, stage: str, fraction: float | None) -> None:
        """Show how far a download is: in place in a kernel, each stage once in a terminal."""
        done = f" {fraction:.0%}" if fraction is not None else ""
        if self.in_kernel and self.due:
            self.line(f"{escape.plain(stage)} …{done}")
        elif not self.in_kernel and fraction is not None and stage not in self._stages:
            self._stages.add(stage)
            self.line(f"{escape.plain(stage)} …")


def watched(shell: Any) -> bool:
    """Whether somebody is there who sees a widget: a kernel, no batch run, and a front end that could be asked."""
    from ..environment import detect

    where = detect()
    return where.kernel and not where.batch and parent(shell).get("content", {}).get("allow_stdin") is not False


def parent(shell: Any) -> Mapping[str, Any]:
    """The message that asked for the running cell; a kernel only."""
    found = shell.get_parent()
    return found if isinstance(found, Mapping) else {}


def confirmed(question: str, again: str) -> bool:
    """Whether the user says yes; raises CommandError with ``again`` to type where nobody is there to say it."""
    from ..environment import detect

    nobody = CommandError("nobody is there to confirm it", hint=again)
    if detect().batch:
        raise nobody
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, RuntimeError) as error:
        # Without stdin a kernel raises StdinNotImplementedError (a RuntimeError), a terminal reads the end of it.
        raise nobody from error


def mark_streamed(answer: object, execution_count: int) -> None:
    """Say that cell ``execution_count`` shows ``answer`` already: its displayhook shall not show it again."""
    global _streamed  # noqa: PLW0603 (one kernel runs one cell at a time)
    _streamed = (answer, execution_count)


def was_streamed(answer: object) -> bool:
    """Whether the running cell has already shown ``answer``."""
    from IPython import get_ipython

    shell = get_ipython()
    return (
        _streamed is not None and _streamed[0] is answer and shell is not None and _streamed[1] == shell.execution_count
    )

"""Whether somebody watches, what commands ask them, and which answers a cell shows already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CommandError

_streamed: tuple[object, int] | None = None


def watched(request: Mapping[str, Any]) -> bool:
    """Whether somebody is there who sees a widget: a kernel, no batch run, and a front end that could be asked.

    ``request`` is the message that asked for the running cell (``Session.request``).
    """
    from ..environment import detect

    where = detect()
    return where.kernel and not where.batch and request.get("content", {}).get("allow_stdin") is not False


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

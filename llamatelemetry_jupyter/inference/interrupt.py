"""An interrupt that kept something: what a user reads instead of the traceback of a ``KeyboardInterrupt``."""

from __future__ import annotations


class Interrupted(KeyboardInterrupt):
    """The user stopped it; ``message`` says what is kept and ``hint`` how to get at it. Run All stops here."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.args[0]}", f"  try: {self.hint}"]

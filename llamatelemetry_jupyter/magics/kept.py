"""What a command keeps from one cell to the next, for the session that it belongs to."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..session import Session

T = TypeVar("T")


class Kept(Generic[T]):
    """One value, of one session: what was kept for another one is gone.

    Not a weak dictionary: engines know their session, so that its entries would keep their own keys alive.
    """

    def __init__(self) -> None:
        self._held: tuple[weakref.ref[Session], T] | None = None

    def get(self, session: Session) -> T | None:
        """What was kept for ``session``."""
        return self._held[1] if self._held is not None and self._held[0]() is session else None

    def put(self, session: Session, value: T) -> T:
        """Keep ``value`` for ``session``; returns it."""
        self._held = (weakref.ref(session), value)
        return value

"""``%llama status``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...views.text import Table
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """No options."""


def run(session: Session, args: argparse.Namespace) -> Table:  # noqa: ARG001 (a command's signature)
    """The server, its memory by owner and what was recorded, as a table."""
    from ...views.static import status_table

    return status_table(session.snapshot(), session.manager.last_crash)

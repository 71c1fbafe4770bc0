"""``%llama stop``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..output import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """No options."""


def run(session: Session, args: argparse.Namespace) -> None:  # noqa: ARG001 (a command's signature)
    """Stop the server; its spans and samples stay."""
    handle = session.stop()
    name = handle.model.id if handle and handle.model else None
    Live(session.shell).line(f"stopped {name}" if name else "no server was running")

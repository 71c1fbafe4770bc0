"""``%llama doctor``: what is there, what is missing, and what to type about it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...views.text import Table
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """What is looked at, and whether the network may be asked."""
    parser.add_argument("--online", action="store_true", help="also ask three hosts whether they answer")
    parser.add_argument("--host", action="store_true", help="what this notebook's page can do, as a block to copy")


def run(session: Session, args: argparse.Namespace) -> Table | None:
    """A table of checks; nothing is changed, and without ``--online`` nothing leaves this machine."""
    if args.host:
        from .. import hostcheck

        hostcheck.show(session)
        return None
    from ..checks import run_all

    rows = tuple((c.topic, c.status, c.what, c.fix) for c in run_all(session, online=args.online))
    return Table(("check", "status", "found", "type this"), rows)

"""``%llama compare-runs``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """Which two."""
    parser.add_argument("a", metavar="A", help="a session's id or its beginning (%%llama sessions), or this")
    parser.add_argument("b", nargs="?", default="this", metavar="B", help="the other (this)")


def run(session: Session, args: argparse.Namespace) -> Table:
    """Model, settings, rates, first token, memory and energy of two sessions, side by side."""
    from ...telemetry.sessions import run_of
    from ...views.sessions import runs_table

    found = []
    for named in (args.a, args.b):
        spans = session.recorded(named)
        found.append(run_of(spans, spans.path.stem if spans.path else named))
    return runs_table(*found)

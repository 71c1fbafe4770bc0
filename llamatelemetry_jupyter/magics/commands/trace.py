"""``%llama trace``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """Which trace."""
    parser.add_argument("trace", nargs="?", metavar="TRACE_ID", help="id or its beginning (the last trace)")
    parser.add_argument("--session", metavar="ID", help="of a session of before (%%llama sessions)")


def run(session: Session, args: argparse.Namespace) -> Table:
    """One trace as a tree with a waterfall."""
    from ...views.text import trace_tree

    session.settle()
    return trace_tree(session.recorded(args.session).trace(args.trace))

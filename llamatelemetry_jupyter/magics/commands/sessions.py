"""``%llama sessions``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...views.spans import Spans
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """Which one to open."""
    parser.add_argument("session", nargs="?", metavar="ID", help="open this one (its beginning is enough), to be read")


def run(session: Session, args: argparse.Namespace) -> Table | Spans:
    """The sessions that are kept, the newest first; with an id that session's spans, which can be asked further."""
    from ...views.sessions import sessions_table
    from ...views.spans import Spans

    session.spans.flush()
    if args.session is None:
        return sessions_table(session.sessions.list())
    opened = session.recorded(args.session)
    return Spans(lambda: opened)

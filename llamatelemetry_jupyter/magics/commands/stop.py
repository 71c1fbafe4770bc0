"""``%llama stop``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape
from ..output import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """Which of several."""
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="which of several servers (default)")
    parser.add_argument("--all", action="store_true", help="every server of this notebook")


def run(session: Session, args: argparse.Namespace) -> None:
    """Stop the server; its spans and samples stay."""
    stopped = session.stop(None if args.all else args.name)
    if stopped:
        said = "stopped " + ", ".join(h.model.id if h.model else h.url for h in stopped)
    else:
        others = ", ".join(h.name for h in session.handles())
        said = f"no server of that name was running; running: {others}" if others else "no server was running"
    Live(session.shell).line(escape.plain(said))

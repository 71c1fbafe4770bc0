"""``%llama stop``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape
from ...live import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...values import ServerHandle


def configure(parser: Parser) -> None:
    """Which of several."""
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="which of several servers (default)")
    parser.add_argument("--all", action="store_true", help="every server of this notebook")
    parser.add_argument("--orphans", action="store_true", help="servers of yours whose kernel has gone")


def run(session: Session, args: argparse.Namespace) -> None:
    """Stop the server; its spans and samples stay. An attached one is only let go."""
    if args.orphans:
        from ...server.state import end_abandoned

        stopped = end_abandoned()
        said = f"stopped {_names(stopped)}" if stopped else "no server without a kernel was running"
    elif stopped := session.stop(None if args.all else args.name):
        said = f"{'stopped' if any(h.owned for h in stopped) else 'let go'} {_names(stopped)}"
    else:
        others = ", ".join(h.name for h in session.handles())
        said = f"no server of that name was running; running: {others}" if others else "no server was running"
    Live(session.shell).line(escape.plain(said))


def _names(handles: tuple[ServerHandle, ...]) -> str:
    return ", ".join(h.model.id if h.model else h.url for h in handles)

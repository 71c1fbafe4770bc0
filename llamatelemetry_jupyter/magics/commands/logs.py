"""``%llama logs``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape
from ...errors import ServerError
from ...live import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """Whose, and how many lines."""
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="which of several servers (default)")
    parser.add_argument("-n", "--lines", type=int, default=20, metavar="N", help="how many lines (20)")


def run(session: Session, args: argparse.Namespace) -> None:
    """Show the end of the server's log, also of one that has crashed."""
    manager = session.managers.get(args.name)
    handle = manager.handle if manager else None
    if handle is not None and not handle.log_path:
        raise ServerError(f"the log of {handle.url} is not provided by this backend", hint="%llama status")
    lines = manager.log(last=max(1, args.lines)) if manager else []
    if not lines:
        raise ServerError("there is no log: no server was started in this kernel", hint="%llama start")
    Live(session.shell).line("\n".join(escape.plain(line) for line in lines))

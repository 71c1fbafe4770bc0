"""``%llama restart``: the same server again, with what is typed changed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...progressline import Line
from ..parser import Parser
from ..settings import add_settings, given
from .start import noticing, report

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """Which of several, and every setting of the server."""
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="which of several servers (default)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds to wait until it is ready")
    add_settings(parser)


def run(session: Session, args: argparse.Namespace) -> None:
    """Stop the server, also a crashed one, and start it with its settings and the changed ones."""
    before = next((h for h in session.handles() if h.name == args.name), None)
    manager = session.manager_of(args.name)
    told: list[str] = []
    with Line() as line:
        handle = manager.restart(line, args.timeout, on_notice=noticing(line, told), **given(args))
        report(line, manager, before, handle, told)

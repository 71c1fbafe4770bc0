"""``%llama report``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape
from ...live import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session


def configure(parser: Parser) -> None:
    """Where to, and how much."""
    parser.add_argument("to", nargs="?", default="report.html", metavar="FILE", help="an .html file (report.html)")
    parser.add_argument("--window", type=float, metavar="S", help="the last S seconds (the whole session)")
    parser.add_argument("--full", action="store_true", help="also prompts, answers, paths and host names")


def run(session: Session, args: argparse.Namespace) -> None:
    """The dashboard as one interactive HTML file, without a kernel, a server or a network."""
    from ...reporting import report
    from ...views.format import size

    path = report(args.to, window_s=args.window, full=args.full)
    what = "" if args.full else " · without prompts, answers, paths and host names (--full writes them, too)"
    Live(session.shell).line(f"written: {escape.plain(path)} · {size(path.stat().st_size)}{what}")

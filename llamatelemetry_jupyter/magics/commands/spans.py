"""``%llama spans``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser

if TYPE_CHECKING:
    from pandas import DataFrame

    from ...session import Session
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """How many, and in which form."""
    parser.add_argument("-n", "--last", type=int, default=20, metavar="N", help="the newest N (20)")
    parser.add_argument("--frame", action="store_true", help="all of them as a pandas DataFrame")


def run(session: Session, args: argparse.Namespace) -> Table | DataFrame:
    """The newest spans as a table, or all of them as a DataFrame."""
    from ...views.text import spans_table

    if args.last < 1:
        raise CommandError(f"-n must be at least 1, not {args.last}", hint="%llama spans -n 20")
    session.settle()
    if args.frame:
        return session.spans.frame()
    return spans_table(session.spans.rows(last=args.last))

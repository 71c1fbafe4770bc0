"""``%llama spans``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import CommandError
from ...telemetry.query import GROUPS
from ..parser import Parser

if TYPE_CHECKING:
    from pandas import DataFrame

    from ...session import Session
    from ...views.spans import Spans, Summary


def configure(parser: Parser) -> None:
    """Which, how many, and in which form."""
    parser.add_argument("text", nargs="*", metavar="TEXT", help="in a span's name, model, error or attributes")
    parser.add_argument("-n", "--last", type=int, metavar="N", help="the newest N (20 are shown)")
    parser.add_argument("--name", metavar="NAME", help='their name, "chat*" for those that begin so')
    parser.add_argument("-m", "--model", metavar="MODEL", help='their model, "qwen*" for those that begin so')
    parser.add_argument("--status", choices=("ok", "unset", "error"), help="how they ended")
    parser.add_argument("--cell", metavar="ID", help="the cell that they ran in")
    parser.add_argument("--trace", metavar="ID", help="the trace that they belong to")
    parser.add_argument("--since", metavar="WHEN", help="ended since then: 10m, 2h, 1d, 14:30 or 2026-11-24")
    parser.add_argument("--until", metavar="WHEN", help="ended before then")
    parser.add_argument("--by", choices=tuple(GROUPS), help="counts and percentiles instead of spans")
    parser.add_argument("--session", metavar="ID", help="of a session of before (%%llama sessions)")
    parser.add_argument("--frame", action="store_true", help="as a pandas DataFrame, all of them")


def run(session: Session, args: argparse.Namespace) -> Spans | Summary | DataFrame:
    """The newest spans that are meant; ``_`` can be asked further, as ``lt.spans``."""
    from ...views.spans import Spans

    if args.last is not None and args.last < 1:
        raise CommandError(f"-n must be at least 1, not {args.last}", hint="%llama spans -n 20")
    session.settle()
    opened = session.recorded(args.session)
    spans = Spans(lambda: opened)
    found = spans.search(" ".join(args.text)).where(
        name=args.name,
        model=args.model,
        status=args.status,
        cell=args.cell,
        trace=args.trace,
        since=args.since,
        until=args.until,
    )
    found = found if args.last is None else found.last(args.last)
    if args.by:
        return found.by(args.by)
    return found.frame() if args.frame else found

"""``%llama trace``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...telemetry.recorded import RecordedSpans
    from ...values import SpanRow
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """Which trace."""
    parser.add_argument("trace", nargs="?", metavar="TRACE_ID", help="id or its beginning (the last trace)")
    parser.add_argument("--session", metavar="ID", help="of a session of before (%%llama sessions)")


def run(session: Session, args: argparse.Namespace) -> Table:
    """One trace as a tree with a waterfall."""
    from ...views.text import trace_tree

    session.settle()
    return trace_tree(select(session.recorded(args.session), args.trace))


def select(spans: RecordedSpans, trace_id: str | None) -> Sequence[SpanRow]:
    """The rows of the trace whose id begins with ``trace_id``; of the last one when it is ``None``."""
    if trace_id is None:
        last = spans.rows(last=1)
        return spans.rows(trace_id=last[-1].trace_id) if last else []
    found = spans.traces(trace_id.lower())
    if len(found) == 1:
        return spans.rows(trace_id=found[0])
    said = "several traces begin with" if found else "there is no trace"
    raise CommandError(f"{said} {trace_id!r}", hint="%llama spans")

"""``%llama status``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import LlamaError
from ...views.text import Table
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...values import ServerHandle


def configure(parser: Parser) -> None:
    """Which of several."""
    parser.add_argument("-N", "--name", metavar="NAME", help="which of several servers (the default one)")


def run(session: Session, args: argparse.Namespace) -> Table:
    """The server, its memory by owner and what was recorded, as a table; other servers in a line each."""
    from ...views.static import status_table

    session.settle()
    shown = session.chosen(args.name)
    table = status_table(session.snapshot(server=args.name))
    lost = [("spans", said)] if (said := session.spans.trouble()) else []
    return replace(table, rows=(*table.rows, *lost, *_more(session, shown.name if shown else None)))


def _more(session: Session, shown: str | None) -> list[tuple[str, str]]:
    from ...server import attach

    rows = []
    for handle in session.handles():
        if handle.name != shown:
            model = handle.model.id if handle.model else "model n/a"
            rows.append((f"server {handle.name}", f"{model}, {handle.backend}, {handle.url}"))
            continue
        manager = session.managers[handle.name]
        rows += [("warning", f"{cause}; try: {remedy}") for cause, remedy in manager.warnings]
        if manager.kept:
            rows.append(("kept", "goes on when this kernel ends"))
        if handle.backend == "router":
            rows += _routed(handle)
        if missing := attach.not_provided(handle):
            rows.append(("not provided", f"{', '.join(missing)}: not provided by this backend ({handle.backend})"))
    return rows


def _routed(handle: ServerHandle) -> list[tuple[str, str]]:
    from ...server import attach

    try:
        return [(f"  {one.id}", one.status) for one in attach.routed(handle)]
    except LlamaError as error:  # a router that is gone must not hide the rest of the table
        return [("  models", f"n/a: {error}")]

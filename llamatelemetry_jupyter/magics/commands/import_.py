"""``%llama import``: spans from a file into this session."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...progressline import Line
from ..parser import Parser
from .export import counted

if TYPE_CHECKING:
    from ...session import Session
    from ...telemetry.exchange import Added


def configure(parser: Parser) -> None:
    """Which file."""
    parser.add_argument(
        "file", metavar="FILE", help="spans.jsonl or .json (OTLP), spans.parquet (ClickHouse's columns)"
    )


def run(session: Session, args: argparse.Namespace) -> None:
    """Add the spans of a file; those that are there already are not added again."""
    from ...telemetry import exchange

    with Line() as line:
        added = exchange.read(Path(args.file).expanduser(), session.spans, line)
        line.end(_told(added))


def _told(added: Added) -> str:
    parts = [f"{counted(added.new)} added"]
    parts += [f"{added.known} were there already"] if added.known else []
    parts += [f"not spans: {added.unread} part{'' if added.unread == 1 else 's'} of the file"] if added.unread else []
    return " · ".join(parts)

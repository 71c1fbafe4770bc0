"""``%llama metrics``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser

if TYPE_CHECKING:
    from pandas import DataFrame

    from ...session import Session
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """In which form."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--frame", action="store_true", help="as a pandas DataFrame, with every attribute")
    form.add_argument(
        "--prometheus", nargs="?", const="", metavar="FILE", help="in Prometheus' text format, printed or into FILE"
    )


def run(session: Session, args: argparse.Namespace) -> Table | DataFrame | None:
    """Counts and times since the kernel started, as a table, a DataFrame or Prometheus' text."""
    from ...views.metrics import metrics_frame, metrics_table

    if args.prometheus is None:
        points = session.read_metrics()
        return metrics_frame(points) if args.frame else metrics_table(points)
    session.spans.flush()
    text = session.metrics.prometheus()
    if args.prometheus:
        _write(Path(args.prometheus).expanduser(), text)
    else:
        print(text, end="")
    return None


def _write(path: Path, text: str) -> None:
    """Put the file in place whole: somebody may read it at any time."""
    from ..._files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}", hint="%llama metrics --prometheus llama.prom"
        ) from error

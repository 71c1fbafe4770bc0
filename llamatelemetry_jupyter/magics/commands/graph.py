"""``%llama graph``: traces as a graph, drawn here, written to files, and on Graphistry when the user says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import escape
from ...errors import CommandError
from ...live import Live
from ...progressline import Line
from ..output import confirmed
from ..parser import Parser

if TYPE_CHECKING:
    from ...graphistry.connector import UploadPlan
    from ...session import Session
    from ...views.graph import Drawing


def configure(parser: Parser) -> None:
    """Which traces, and where to."""
    parser.add_argument("trace", nargs="?", metavar="TRACE_ID", help="id or its beginning (the last trace)")
    parser.add_argument("--all", action="store_true", help="every trace of this kernel")
    parser.add_argument(
        "--overview", action="store_true", help="the session as a whole: cells, traces, calls, models, devices"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write nodes, edges and a page there")
    parser.add_argument("--graphistry", action="store_true", help="upload nodes and edges, after asking")
    parser.add_argument("--yes", action="store_true", help="upload without asking")


def run(session: Session, args: argparse.Namespace) -> Drawing:
    """The graph of one trace, of all, or of the session, as a picture; ``.nodes`` and ``.edges`` are DataFrames."""
    from ...graphistry.builders import session_graph, trace_tree
    from ...views.graph import Drawing, write_files

    chosen = [name for name in ("all", "overview") if getattr(args, name)]
    if len(chosen) + bool(args.trace) > 1:
        raise CommandError("TRACE_ID, --all and --overview exclude each other", hint=f"%llama graph --{chosen[0]}")
    rows = session.spans.rows() if chosen else session.spans.trace(args.trace)
    if not rows:
        raise CommandError("there is no trace yet", hint="%llama chat Hello")
    frames = session_graph(rows) if args.overview else trace_tree(rows)
    folder = args.out or (Path("llamatelemetry-graph") if args.graphistry else None)
    if folder is not None:
        written = write_files(frames, folder)
        Live(session.shell).line(f"written: {', '.join(str(path) for path in written)}")
    drawing = Drawing(frames)
    if args.graphistry:
        drawing = _upload(session, frames, folder, args.yes) or drawing
    return drawing


def _upload(session: Session, frames: Any, folder: Path | None, yes: bool) -> Drawing | None:
    from ...graphistry.connector import prepare, upload
    from ...views.graph import Drawing

    plan = prepare(frames)  # raises ExportError naming the missing credentials; the files are written by now
    Live(session.shell).line(announce(plan))
    question = f"Send this to {escape.plain(plan.host)}?"
    if not yes and not confirmed(question, "%llama graph --graphistry --yes"):
        Live(session.shell).line(f"nothing was sent; the files are in {folder}")
        return None
    with Line() as line:
        sent = upload(plan, on_progress=line)
        line.end(f"private graph: {sent.url}")
    return Drawing(frames, url=sent.url)


def announce(plan: UploadPlan) -> str:
    """Where what would go, in three lines."""
    return "\n".join(
        [
            f"to {escape.plain(plan.host)}, private:",
            f"  {plan.node_rows} nodes: {', '.join(plan.node_columns)}",
            f"  {plan.edge_rows} edges: {', '.join(plan.edge_columns)}",
        ]
    )

"""``%llama export``: spans as a file, or to an OpenTelemetry receiver when the user says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ... import escape
from ...errors import CommandError
from ..output import Live, confirmed
from ..parser import Parser
from .trace import select

if TYPE_CHECKING:
    from ...session import Session
    from ...telemetry.destination import Destination
    from ...telemetry.otlp import Exporter

_OTLP = "otlp"
_LEFT_OUT = "without prompts, answers, paths and host names"


def configure(parser: Parser) -> None:
    """Where to, and how much."""
    parser.add_argument(
        "to", metavar="FILE|otlp", help="spans.jsonl (OTLP), trace.json (Perfetto), spans.parquet; or otlp: a receiver"
    )
    parser.add_argument("--trace", metavar="TRACE_ID", help="one trace only, by its id or its beginning (a file)")
    parser.add_argument("--endpoint", metavar="URL", help="the receiver (what OTEL_EXPORTER_OTLP_ENDPOINT says)")
    parser.add_argument(
        "--full", action="store_true", help="also prompts, answers, paths and host names that are there"
    )
    parser.add_argument("--yes", action="store_true", help="send without asking")
    parser.add_argument("--stop", action="store_true", help="send what is waiting, then nothing more")


def run(session: Session, args: argparse.Namespace) -> None:
    """Write a file, or begin to send; what is sent and where to is said first."""
    if args.to != _OTLP:
        _write(session, args)
    elif args.stop:
        _stop(session)
    else:
        _send(session, args)


def spans(count: int) -> str:
    """So many spans, in words."""
    return f"{count} span{'' if count == 1 else 's'}"


def _write(session: Session, args: argparse.Namespace) -> None:
    from ...telemetry import exchange
    from ...views.format import size

    if args.endpoint or args.stop or args.yes:
        raise CommandError("--endpoint, --yes and --stop are for a receiver", hint="%llama export otlp --endpoint URL")
    session.settle()  # energy and memory of the last call come a moment after it
    session.spans.flush()
    rows = select(session, args.trace) if args.trace else session.spans.rows()
    if not rows:
        raise CommandError("there are no spans yet", hint="%llama chat Hello")
    path = Path(args.to).expanduser()
    written = exchange.write(path, rows, session.samples, everything=args.full)
    what = "as they are" if args.full else f"{_LEFT_OUT} (--full writes them, too)"
    Live(session.shell).line(f"written: {escape.plain(path)} · {spans(len(rows))}, {size(written)} · {what}")


def _send(session: Session, args: argparse.Namespace) -> None:
    from ...telemetry import destination, exchange, otlp

    if args.trace:
        raise CommandError(
            "--trace is for a file; a receiver gets every span", hint="%llama export spans.jsonl --trace ID"
        )
    running: Exporter | None = session.held(_OTLP)
    if running is not None and running.progress().running and not args.endpoint and args.full == running.everything:
        _say(session, running)
        return
    target = destination.find(args.endpoint)
    exporter = otlp.Exporter(session.spans, target, exchange.own_resource(), everything=args.full)
    if (
        running is not None
        and running.progress().running
        and running.destination == target
        and running.everything == args.full
    ):
        exporter.close()
        _say(session, running)
        return
    try:
        if not _allowed(session, target, args):
            exporter.close()
            Live(session.shell).line("nothing was sent")
            return
    except BaseException:
        exporter.close()
        raise
    away = exporter.probe()
    session.hold(_OTLP, exporter.start())
    wait = f"; {away}, so they wait here until it does" if away else ""
    Live(session.shell).line(f"sending to {target.host}{wait}. %llama export otlp --stop ends it")


def _allowed(session: Session, target: Destination, args: argparse.Namespace) -> bool:
    """Whether spans may go there; asked once per receiver, and never about this machine itself."""
    count = session.spans.totals()["spans"]
    what = "with prompts, answers, paths and host names that are there" if args.full else _LEFT_OUT
    Live(session.shell).line(f"to {target.host}: {spans(count)} and every one to come, {what}")
    agreed = session.agreed
    if args.yes or target.here or (target.url, args.full) in agreed:
        return True
    words = [
        "%llama export otlp",
        f"--endpoint {args.endpoint}" if args.endpoint else "",
        "--full" if args.full else "",
    ]
    again = " ".join([*filter(None, words), "--yes"])
    if not confirmed(f"Send this to {target.host}?", escape.plain(again)):
        return False
    agreed.add((target.url, args.full))
    return True


def _stop(session: Session) -> None:
    exporter: Exporter | None = session.held(_OTLP)
    if exporter is None:
        raise CommandError("nothing is being sent", hint="%llama export otlp")
    session.release(_OTLP)
    _say(session, exporter)


def _say(session: Session, exporter: Exporter) -> None:
    told = exporter.progress()
    parts = [f"{told.host}: {spans(told.sent)} sent"]
    parts += [f"{told.waiting} waiting"] if told.waiting else []
    parts += [f"{told.refused} refused"] if told.refused else []
    parts += [told.error] if told.error else []
    parts += [] if told.running else ["ended"]
    Live(session.shell).line(" · ".join(parts))

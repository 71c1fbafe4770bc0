"""``%llama export``: spans as a file, or to an OpenTelemetry receiver when the user says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ... import escape
from ...errors import CommandError
from ...live import Live
from ...progressline import Line
from ..output import confirmed
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...telemetry.destination import Destination
    from ...telemetry.sending import Sending

_OTLP = "otlp"
_LEFT_OUT = "without prompts, answers, paths and host names"


def configure(parser: Parser) -> None:
    """Where to, and how much."""
    parser.add_argument(
        "to", metavar="FILE|otlp", help="spans.jsonl (OTLP), trace.json (Perfetto), spans.parquet; or otlp: a receiver"
    )
    parser.add_argument("--trace", metavar="TRACE_ID", help="one trace only, by its id or its beginning (a file)")
    parser.add_argument("--session", metavar="ID", help="of a session of before (a file; %%llama sessions)")
    parser.add_argument("--endpoint", metavar="URL", help="the receiver (what OTEL_EXPORTER_OTLP_ENDPOINT says)")
    parser.add_argument(
        "--metrics", action="store_true", help="send metrics, too, once a minute (OTEL_METRIC_EXPORT_INTERVAL)"
    )
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


def counted(count: int) -> str:
    """So many spans, in words."""
    return f"{count} span{'' if count == 1 else 's'}"


def _write(session: Session, args: argparse.Namespace) -> None:
    from ...telemetry import exchange
    from ...views.format import size

    if args.endpoint or args.stop or args.yes or args.metrics:
        raise CommandError(
            "--endpoint, --metrics, --yes and --stop are for a receiver", hint="%llama export otlp --endpoint URL"
        )
    session.settle()  # energy and memory of the last call come a moment after it
    session.spans.flush()
    spans = session.recorded(args.session)
    rows = spans.trace(args.trace) if args.trace else spans.rows()
    if not rows:
        raise CommandError("there are no spans yet", hint="%llama chat Hello")
    path = Path(args.to).expanduser()
    before = spans is not session.spans
    resource = exchange.resource_of(spans) if before else exchange.own_resource()
    samples = None if before else session.samples
    what = "as they are" if args.full else f"{_LEFT_OUT} (--full writes them, too)"
    with Line() as line:
        written = exchange.write(path, rows, resource, samples, everything=args.full, on_progress=line)
        line.end(f"written: {path} · {counted(len(rows))}, {size(written)} · {what}")


def _send(session: Session, args: argparse.Namespace) -> None:
    from ...telemetry import destination

    if args.trace or args.session:
        option = "trace" if args.trace else "session"
        raise CommandError(
            f"--{option} is for a file; a receiver gets every span of this session",
            hint=f"%llama export spans.jsonl --{option} ID",
        )
    target = destination.find(args.endpoint) if args.endpoint else None
    running: Sending | None = session.held(_OTLP)
    if running is not None and running.running and _is_asked_for(running, target, args):
        _say(session, running)
        return
    target = target or destination.find()
    sending = _made(session, target, args)
    try:
        if not _allowed(session, sending, args):
            sending.close()
            Live(session.shell).line("nothing was sent")
            return
    except BaseException:
        sending.close()
        raise
    away = sending.spans.probe()
    session.hold(_OTLP, sending.start(away))
    wait = f"; {away}, so they wait here until it does" if away else ""
    Live(session.shell).line(f"sending to {target.host}{wait}. %llama export otlp --stop ends it")


def _is_asked_for(running: Sending, target: Destination | None, args: argparse.Namespace) -> bool:
    """Whether what is running is what would be begun; without an endpoint it is asked how far it is."""
    return (
        target in (None, running.spans.destination)
        and args.full == running.spans.everything
        and (running.metrics is not None or not args.metrics)
    )


def _made(session: Session, target: Destination, args: argparse.Namespace) -> Sending:
    from ...telemetry import destination, exchange, otlp, otlp_metrics, sending

    metrics = None
    if args.metrics:
        metrics = otlp_metrics.MetricsExporter(
            session.metrics.data,
            destination.find(args.endpoint, signal="metrics"),
            everything=args.full,
            interval_s=otlp_metrics.interval(),
        )
    return sending.Sending(otlp.Exporter(session.spans, target, exchange.own_resource(), everything=args.full), metrics)


def _allowed(session: Session, sending: Sending, args: argparse.Namespace) -> bool:
    """Whether spans may go there; asked once per receiver, and never about this machine itself."""
    target, count = sending.spans.destination, session.spans.totals()["spans"]
    what = "with prompts, answers, paths and host names that are there" if args.full else _LEFT_OUT
    also = f", metrics every {sending.metrics.interval_s:g} s" if sending.metrics is not None else ""
    Live(session.shell).line(f"to {target.host}: {counted(count)} and every one to come{also}, {what}")
    agreed = session.agreed
    if args.yes or target.here or (target.url, args.full) in agreed:
        return True
    words = [
        "%llama export otlp",
        f"--endpoint {args.endpoint}" if args.endpoint else "",
        "--metrics" if args.metrics else "",
        "--full" if args.full else "",
    ]
    again = " ".join([*filter(None, words), "--yes"])
    if not confirmed(f"Send this to {target.host}?", escape.plain(again)):
        return False
    agreed.add((target.url, args.full))
    return True


def _stop(session: Session) -> None:
    running: Sending | None = session.held(_OTLP)
    if running is None:
        raise CommandError("nothing is being sent", hint="%llama export otlp")
    session.release(_OTLP)
    _say(session, running)


def _say(session: Session, running: Sending) -> None:
    told = running.spans.progress()
    parts = [f"{told.host}: {counted(told.sent)} sent"]
    parts += [f"{told.waiting} waiting"] if told.waiting else []
    parts += [f"{told.refused} refused"] if told.refused else []
    parts += [told.error] if told.error else []
    if running.metrics is not None:
        counts = running.metrics.progress()
        times = f"metrics sent {counts.rounds} time{'' if counts.rounds == 1 else 's'}"
        parts.append(f"{times}, {counts.points} values" if counts.rounds else times)
        parts += [f"metrics: {counts.error}"] if counts.error else []
    parts += [] if told.running else ["ended"]
    Live(session.shell).line(" · ".join(parts))

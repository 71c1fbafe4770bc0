"""``%llama receive``: spans of other processes of this machine, over OTLP/HTTP."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import CommandError
from ...live import Live
from ..parser import Parser
from .export import counted

if TYPE_CHECKING:
    from ...session import Session
    from ...telemetry.receiver import Receiver

_NAME = "receiver"


def configure(parser: Parser) -> None:
    """Where, and for how long."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="a port of your choice (a free one)")
    parser.add_argument("--stop", action="store_true", help="take nothing more")


def run(session: Session, args: argparse.Namespace) -> Receiver | None:
    """Listen on 127.0.0.1; the value says what a sender's environment needs."""
    from ...telemetry import exchange, privacy
    from ...telemetry.receiver import Receiver

    running: Receiver | None = session.held(_NAME)
    if args.stop:
        if running is None:
            raise CommandError("nothing is being received", hint="%llama receive")
        session.release(_NAME)
        Live(session.shell).line(f"ended: {counted(running.received)} received")
        return None
    if running is not None and args.port in (0, running.port):
        return running
    session.release(_NAME)
    own = exchange.own_resource()
    made = Receiver(session.spans, [own, privacy.public(own)], args.port)
    session.hold(_NAME, made)
    return made

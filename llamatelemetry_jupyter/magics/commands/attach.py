"""``%llama attach``: a server that runs already, somebody else's or one that was kept."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape, secrets
from ...live import Live
from ..parser import Parser
from .start import describe

if TYPE_CHECKING:
    from ...session import Session
    from ...values import ServerHandle


def configure(parser: Parser) -> None:
    """Where it is, and its key."""
    parser.add_argument("url", nargs="?", metavar="URL", help="its address (without: a server that was kept)")
    parser.add_argument("--api-key", metavar="KEY", help="its key, or better the name of the secret that holds it")
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="one of several servers (default)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds to wait while it loads")


def run(session: Session, args: argparse.Namespace) -> None:
    """Find out what it is; say what it does not provide."""
    key = (secrets.get(args.api_key) or args.api_key) if args.api_key else None
    handle = session.attach(args.url, key, name=args.name, timeout_s=args.timeout)
    Live(session.shell).line("\n".join(escape.plain(line) for line in _told(handle)))


def _told(handle: ServerHandle) -> list[str]:
    from ...server import attach

    verb = "taken over" if handle.owned else "attached"
    lines = [f"{verb}: {describe(handle)}"]
    if handle.backend == "router":
        lines += [f"  {one.id}: {one.status}" for one in attach.routed(handle)]
    if missing := attach.not_provided(handle):
        lines.append(f"not provided by this backend: {', '.join(missing)}")
    return lines

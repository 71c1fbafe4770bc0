"""``%llama config``: what this session records of prompts and answers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import CommandError
from ...views.text import Table
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session

_VALUES = {"on": True, "off": False, "environment": None}


def configure(parser: Parser) -> None:
    """Which setting, and its value."""
    parser.add_argument(
        "setting", nargs="?", metavar="SETTING", help="capture: whether prompts and answers are recorded"
    )
    parser.add_argument("value", nargs="?", metavar="VALUE", help=f"{', '.join(_VALUES)}")


def run(session: Session, args: argparse.Namespace) -> Table:  # noqa: ARG001 (the form of every command)
    """Change a setting, then show them all."""
    from ...telemetry import privacy

    if args.setting not in (None, "capture"):
        raise CommandError(f"there is no setting {args.setting!r}", hint="%llama config capture on")
    if args.setting and args.value not in _VALUES:
        said = repr(args.value) if args.value else "nothing"
        raise CommandError(f"capture is {', '.join(_VALUES)}, not {said}", hint="%llama config capture off")
    if args.setting:
        privacy.capture(_VALUES[args.value])
    captured = "on: prompts and answers are recorded" if privacy.captured() else "off: no prompt or answer is recorded"
    functions = len(privacy.redactors())
    rows = (
        ("capture", captured),
        ("redaction", f"{functions} functions of lt.redact" if functions else "secrets of a known form are masked"),
    )
    return Table(("setting", "value"), rows)

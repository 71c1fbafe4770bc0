"""``%llama start``: a model, served."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ... import escape
from ...errors import CommandError
from ...progressline import Line
from .. import defaults
from ..parser import Parser
from ..settings import add_settings, given

if TYPE_CHECKING:
    from ...server.process import ServerManager
    from ...session import Session
    from ...values import ServerHandle


def configure(parser: Parser) -> None:
    """The model, how it is started, and every setting of the server."""
    parser.add_argument("model", nargs="?", help="a name, hf:, kaggle: or https: address or .gguf file (smollm2-135m)")
    parser.add_argument("-N", "--name", default="default", metavar="NAME", help="one of several servers (default)")
    parser.add_argument("--engine", metavar="PATH", help="a llama-server, xllamacpp, or a build that was installed")
    parser.add_argument("--keep", action="store_true", help="the server goes on when this kernel ends")
    parser.add_argument("--restart", action="store_true", help="restart it also when its settings are the same")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds to wait until it is ready")
    add_settings(parser)
    parser.usage = "%(prog)s [MODEL] [OPTION …]"


def run(session: Session, args: argparse.Namespace) -> None:
    """Start the server and say in one line what is there.

    The same settings again change nothing, others restart it; without any, a server that runs is what is meant.
    """
    before = next((h for h in session.handles() if h.name == args.name), None)
    if before is None:
        defaults.fill(session.shell, args, "model", "engine", "ctx")
    settings = given(args)
    if before is not None and not before.owned:
        raise CommandError(
            f"server {args.name!r} is attached: {before.url}", hint="%llama start --name other   (or %llama stop first)"
        )
    told: list[str] = []
    with Line() as line:
        if before is not None and not (args.model or settings or args.engine or args.restart or args.keep):
            line.end(f"already running: {describe(before)}")
            return
        handle = session.start(
            _model(args, before, line),
            name=args.name,
            engine=args.engine,
            replace=args.restart,
            keep=args.keep,
            on_progress=line,
            on_notice=noticing(line, told),
            timeout_s=args.timeout,
            **settings,
        )
        report(line, session.manager_of(args.name), before, handle, told)


def noticing(line: Line, told: list[str]) -> Callable[[str], None]:
    """Shows at once what is to be known before the engine starts, and adds its lines to ``told``."""

    def notice(text: str) -> None:
        told.extend(escape.plain(one) for one in text.splitlines())
        line.note("\n".join(text.splitlines()))

    return notice


def report(
    line: Line, manager: ServerManager, before: ServerHandle | None, handle: ServerHandle, told: Sequence[str]
) -> None:
    """What runs now, and what the engine did not say aloud and nobody ``told`` before it started."""
    again = before is not None and before.pid == handle.pid
    first = "already running: " if again else "restarted: " if before is not None else ""
    lines = [f"{first}{describe(handle)}"]
    if not again:
        for cause, remedy in manager.warnings:
            if escape.plain(f"warning: {cause}") not in told:
                lines += [f"warning: {cause}", f"  try: {remedy}"]
    if manager.kept and not again:
        lines.append("it goes on when this kernel ends; %llama attach finds it again, %llama stop ends it")
    line.end("\n".join(lines))


def _model(args: argparse.Namespace, before: ServerHandle | None, line: Line) -> str:
    """The model that is meant, in the form that fits; says in one line which form and why where there was a choice."""
    from ...models import catalogue
    from ...server.available import free

    running = before.model if before is not None else None
    if running is not None:
        name = running.id if catalogue.entry_of(running.id) else running.path
        # Hints say `--ctx N --restart` without a name, and a name alone stays with the form that is running.
        if args.model is None or args.model.lower() == running.id.partition(":")[0]:
            return name
    chosen = catalogue.choose(args.model or "smollm2-135m", free(before), line)
    if chosen.why:
        line.note(chosen.why)
    return chosen.model


def describe(handle: ServerHandle) -> str:
    """Model, engine, context per slot and address in one line."""
    model = handle.model.id if handle.model else "model n/a"
    slots = "slots n/a" if handle.slots is None else f"{handle.slots} slot{'s' if handle.slots != 1 else ''}"
    context = "n/a" if handle.ctx_per_slot is None else f"{handle.ctx_per_slot:,}"
    return escape.plain(
        f"{model} · {handle.engine or handle.backend} · {slots} with {context} tokens each · {handle.url}"
    )

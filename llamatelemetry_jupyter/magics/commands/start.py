"""``%llama start``: a model, served."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import escape
from ..output import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...fetch import Progress
    from ...session import Session
    from ...values import ServerHandle


def configure(parser: Parser) -> None:
    """Options of the server."""
    parser.add_argument("model", nargs="?", help="a name, hf:, kaggle: or https: address or .gguf file (smollm2-135m)")
    parser.add_argument("--ctx", type=int, metavar="N", help="context per slot, in tokens")
    parser.add_argument("--slots", type=int, metavar="N", help="requests answered at the same time")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--gpu-layers", type=int, metavar="N", help="layers on the GPU (all that fit)")
    parser.add_argument("--port", type=int, metavar="N", help="port on 127.0.0.1 (a free one)")
    parser.add_argument("--engine", metavar="PATH", help="a llama-server binary to use")
    parser.add_argument("--restart", action="store_true", help="stop the running server first")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds to wait until it is ready")


def run(session: Session, args: argparse.Namespace) -> None:
    """Start the server and say in one line what is there; a second start with the same settings says so."""
    live = Live(session.shell)

    def progress(stage: str, fraction: float | None) -> None:
        done = f" {fraction:.0%}" if fraction is not None else ""
        if live.in_kernel and live.due:
            live.line(f"{escape.plain(stage)} …{done}")

    names = ("ctx", "slots", "threads", "gpu_layers", "port")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    before = session.handle
    handle = session.start(
        _model(args, before, progress),
        engine=args.engine,
        replace=args.restart,
        on_progress=progress,
        timeout_s=args.timeout,
        **settings,
    )
    again = before is not None and before.pid == handle.pid
    live.line(f"{'already running: ' if again else ''}{describe(handle)}")


def _model(args: argparse.Namespace, before: ServerHandle | None, progress: Progress) -> str:
    """The model that is meant, in the form that fits; says in one line which form and why where there was a choice."""
    from ...models import catalogue
    from ..memory import free

    running = before.model if before is not None else None
    if running is not None:
        name = running.id if catalogue.entry_of(running.id) else running.path
        # Hints say `--ctx N --restart` without a name, and a name alone stays with the form that is running.
        if args.model is None or args.model.lower() == running.id.partition(":")[0]:
            return name
    buffers = before.buffers if before is not None and args.restart else ()
    chosen = catalogue.choose(args.model or "smollm2-135m", free(buffers), progress)
    if chosen.why:
        print(escape.plain(chosen.why))
    return chosen.model


def describe(handle: ServerHandle) -> str:
    """Model, engine, context per slot and address in one line."""
    model = handle.model.id if handle.model else "model n/a"
    slots = "slots n/a" if handle.slots is None else f"{handle.slots} slot{'s' if handle.slots != 1 else ''}"
    context = "n/a" if handle.ctx_per_slot is None else f"{handle.ctx_per_slot:,}"
    return escape.plain(
        f"{model} · {handle.engine or handle.backend} · {slots} with {context} tokens each · {handle.url}"
    )

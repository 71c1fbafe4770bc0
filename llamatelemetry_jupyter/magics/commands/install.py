"""``%llama install``: a build of llama.cpp's server, downloaded when the user says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ... import escape
from ...errors import EngineError
from ...live import Live
from ...progressline import Line
from ..output import confirmed
from ..parser import Parser

if TYPE_CHECKING:
    from ...server.engines import Build
    from ...server.install import Plan
    from ...server.machine import Machine
    from ...session import Session
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """Which one, and where from."""
    parser.add_argument("--engine", metavar="NAME", help="cuda, vulkan or cpu (the build that fits), or a build's id")
    parser.add_argument("--from", dest="local", type=Path, metavar="FOLDER", help="files on this machine: no network")
    parser.add_argument("--yes", action="store_true", help="download without asking")
    parser.add_argument("--list", action="store_true", help="every build, and why it fits or not")


def run(session: Session, args: argparse.Namespace) -> Table | None:
    """Say what would come from where, ask, install it, try it; without ``--engine`` the list of builds."""
    from ...server import engines, install
    from ...server.machine import Machine

    machine = Machine.here()
    if args.list or args.engine is None:
        return _table(machine)
    live = Live(session.shell)
    if args.local is None:
        ready = (install.tried(b) for b in engines.installed() if args.engine in (b.id, b.backend))
        if working := next((build for build in ready if build.problem is None), None):
            live.line(f"already installed: {_told(working)}")
            return None
    plan = install.plan(args.engine, machine, args.local)
    print(escape.plain(plan.describe()))
    if not args.yes and not _confirmed(plan, args):
        live.line("nothing was installed")
        return None
    with Line() as line:
        build = install.install(plan, line)
        if build.problem is not None:
            raise EngineError(
                f"{build.id} is installed but will not be used: {escape.plain(build.problem)}", hint="%llama doctor"
            )
        line.end(f"installed: {_told(build)}")
    return None


def _told(build: Build) -> str:
    """The build, what it sees, what vouches for it, and how to start it."""
    seen = ", ".join(build.devices) if build.devices else "the CPU"
    hashes = ", ".join(f"{origin.sha256[:16]}…" for origin in build.origins)
    vouched = "SHA-256 as expected" if build.verified else f"unverified, SHA-256 {hashes} recorded"
    return escape.plain(f"{build.id} · runs on {seen} · {vouched} · %llama start --engine {build.backend}")


def _confirmed(plan: Plan, args: argparse.Namespace) -> bool:
    again = f"%llama install --engine {args.engine}{f' --from {args.local}' if args.local else ''} --yes"
    return confirmed(f"{'Copy' if plan.local else 'Download'} and install {plan.entry.id}?", again)


def _table(machine: Machine) -> Table:
    from ...server import engines
    from ...units import size
    from ...views.text import Table

    there = {build.id: build for build in engines.installed()}
    rows = []
    for entry in engines.entries():
        total = sum(file.file_bytes or 0 for file in entry.files)
        hashed = "known" if entry.verified else "unverified"
        state = _state(there.pop(entry.id)) if entry.id in there else entry.misfit(machine) or "fits"
        rows.append((entry.id, entry.backend, size(total) if total else "n/a", hashed, entry.licence, state))
    rows += [(b.id, b.backend, "n/a", "unverified", "n/a", _state(b)) for b in there.values()]
    return Table(("engine", "backend", "download", "SHA-256", "licence", "here"), tuple(rows), frozenset({"download"}))


def _state(build: Build) -> str:
    return f"installed, does not run: {build.problem}" if build.problem else "installed"

"""``%llama models``: what a model is, before it is loaded."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ... import escape
from ..output import Live
from ..parser import Parser

if TYPE_CHECKING:
    from ...session import Session
    from ...views.models import ModelView


def configure(parser: Parser) -> None:
    """What to do, and with which model."""
    parser.add_argument("action", choices=("info",), help="info: architecture, tensors, memory by layer")
    parser.add_argument("model", help="a known name, a .gguf file, hf:OWNER/REPOSITORY/FILE.gguf or an https: address")
    parser.add_argument(
        "--ctx", type=int, default=8192, metavar="N", help="context of the KV cache that is drawn (8192)"
    )


def run(session: Session, args: argparse.Namespace) -> ModelView:
    """The header of a model as a picture with tables; of a remote one nothing else is fetched."""
    from ...models.demand import Demand
    from ...models.gguf import read_model
    from ...models.shape import shape_of
    from ...views.models import model_view

    header = read_model(located(session, args.model))
    return model_view(header, shape_of(header), Demand(args.ctx))


def located(session: Session, model: str) -> str:
    """The file or address behind a name; a known model that is not here yet is fetched."""
    from ...models import catalogue
    from ...models.source import is_remote

    path = os.path.expanduser(model)
    if is_remote(model):
        return model
    if path.lower().endswith(".gguf") or os.path.exists(path):
        return path
    live = Live(session.shell)

    def progress(stage: str, fraction: float | None) -> None:
        if live.in_kernel and live.due:
            live.line(f"{escape.plain(stage)} …{'' if fraction is None else f' {fraction:.0%}'}")

    return catalogue.resolve(model, progress).path

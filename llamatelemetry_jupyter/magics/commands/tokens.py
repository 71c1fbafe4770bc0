"""``%llama tokens``: how the model's tokenizer cuts a text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser
from ..template import substitute

if TYPE_CHECKING:
    from ...session import Session
    from ...views.tokens import Tokens

TAKES_PROMPT = True
_MAX_BYTES = 16 * 2**20


def configure(parser: Parser) -> None:
    """What to cut; the text is the rest of the line, or the cell."""
    parser.add_argument("-m", "--model", metavar="NAME", help="whose tokenizer (the running model's)")
    parser.add_argument("--server", metavar="NAME", help="the server to ask (the one that runs the model)")
    parser.add_argument("--file", metavar="PATH", help="cut this text file")
    parser.add_argument("--template", action="store_true", help="as chat sends it: inside the model's chat template")
    parser.add_argument("--raw", action="store_true", help="take {{name}} as it is")


def run(session: Session, args: argparse.Namespace) -> Tokens:
    """The tokens of a text, with their ids."""
    from ...inference.tokens import cut
    from ...views.tokens import Tokens

    if args.file and args.prompt.strip():
        raise CommandError("a text and --file were given; one of them is cut", hint=f"%llama tokens --file {args.file}")
    text = _read(args.file) if args.file else args.prompt.removesuffix("\n")
    if not text:
        raise CommandError("there is no text", hint="%llama tokens Why is the sky blue?")
    engine = session.engine(args.model, server=args.server)
    names = session.shell.user_ns if session.shell else {}
    return Tokens(cut(engine, text if args.raw or args.file else substitute(text, names), chat=args.template))


def _read(path: str) -> str:
    source = Path(path).expanduser()
    try:
        if source.stat().st_size > _MAX_BYTES:
            raise CommandError(f"{path} is larger than 16 MiB", hint="cut a part of it: %%llama tokens")
        return source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text: {error}", hint="--file a text file") from error
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", hint="%llama tokens --file notes.txt") from error

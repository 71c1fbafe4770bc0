"""``%llama tokens``: how the model's tokenizer cuts a text, and how sure it was of each token of an answer."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CommandError, LlamaError
from ...values import Answer
from ..parser import Parser
from ..template import substitute

if TYPE_CHECKING:
    from ...api.client import LlamaCppClient
    from ...session import Session
    from ...views.tokens import Tokens

TAKES_PROMPT = True
_MAX_BYTES = 16 * 2**20


def configure(parser: Parser) -> None:
    """What to cut; the text is the rest of the line, or the cell."""
    parser.add_argument(
        "--answer", nargs="?", const="_llama", metavar="NAME", help="the last answer's own tokens, or this variable's"
    )
    parser.add_argument("-m", "--model", metavar="NAME", help="whose tokenizer (the running model's)")
    parser.add_argument("--server", metavar="NAME", help="the server to ask (the one that runs the model)")
    parser.add_argument("--file", metavar="PATH", help="cut this text file")
    parser.add_argument("--template", action="store_true", help="as chat sends it: inside the model's chat template")
    parser.add_argument("--raw", action="store_true", help="take {{name}} as it is")


def run(session: Session, args: argparse.Namespace) -> Tokens:
    """The tokens of a text, with their ids; those of an answer with their logprobs, too."""
    if args.answer:
        return _of_answer(session, args)
    from ...inference.tokens import cut
    from ...views.tokens import Tokens

    if args.file and args.prompt.strip():
        raise CommandError("a text and --file were given; one of them is cut", hint=f"%llama tokens --file {args.file}")
    text = _read(args.file) if args.file else args.prompt.removesuffix("\n")
    if not text:
        raise CommandError("there is no text", hint="%llama tokens Why is the sky blue?")
    engine = session.engine(args.model, server=args.server)
    names = session.shell.user_ns if session.shell else {}
    said = text if args.raw or args.file else substitute(text, names)
    model = engine.handle.model if engine.handle else None
    return Tokens(cut(engine, said, chat=args.template), model=model.id if model else None)


def show(tokens: Tokens) -> None:
    """Display the widget, and beside it what a page without widgets shows."""
    from IPython.display import display

    from ...widgets.tokens import TokensWidget

    twin = uuid.uuid4().hex
    display(TokensWidget(snapshot=tokens.snapshot(), static_id=twin))
    html = f'<div data-llamatelemetry-static="{twin}">{tokens._repr_html_()}</div>'
    display({"text/html": html, "text/plain": str(tokens)}, raw=True)


def _of_answer(session: Session, args: argparse.Namespace) -> Tokens:
    from ...inference.tokens import written
    from ...views.tokens import Tokens

    if args.prompt.strip() or args.file or args.template:
        raise CommandError("a text and --answer were given; one of them is shown", hint="%llama tokens --answer")
    name = args.answer
    answer = session.shell.user_ns.get(name) if session.shell else None
    if not isinstance(answer, Answer):
        said = "there is no answer yet" if name == "_llama" and answer is None else f"{name} is not an answer"
        raise CommandError(said, hint="%llama chat --logprobs Why is the sky blue?")
    tokens = written(answer, _client(session, answer))
    if not any(one.logprob is not None for one in tokens):
        raise CommandError("that answer came without logprobs", hint="%llama chat --logprobs and the question again")
    return Tokens(tokens, "answer", answer.model)


def _client(session: Session, answer: Answer) -> LlamaCppClient | None:
    """Whoever knows the names of that answer's tokens, while the server runs it."""
    try:
        return session.engine(answer.model, server=answer.server).client
    except LlamaError:
        return None


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

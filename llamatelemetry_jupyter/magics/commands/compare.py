"""``%llama compare``: one prompt, several temperatures, seeds or models, the answers beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CommandError, LlamaError
from ...inference.interrupt import Interrupted
from ...live import Live
from ...progress import Progress, Step
from ...progressline import shown
from ..output import mark_streamed
from ..parser import Parser
from ..template import substitute

if TYPE_CHECKING:
    from ...api.stream import TokenStream
    from ...inference.engine import InferenceEngine
    from ...inference.options import ChatOptions
    from ...session import Session
    from ...views.comparison import Column, Comparison

TAKES_PROMPT = True
_MAX_COLUMNS = 24
_SERVER = "compare"


def configure(parser: Parser) -> None:
    """What is varied; the prompt is the rest of the line, or the cell."""
    parser.add_argument("-m", "--model", metavar="A,B", help="models: those that run, others are started in turn")
    parser.add_argument("-t", "--temperature", metavar="X,Y", help="temperatures (0,0.7,1 when nothing is varied)")
    parser.add_argument("--seed", metavar="N,M", help="seeds")
    parser.add_argument("-s", "--system", metavar="TEXT", help="system prompt")
    parser.add_argument("-n", "--max-tokens", type=int, default=128, metavar="N", help="of each answer (128)")
    parser.add_argument("--out", metavar="NAME", help="put the Comparison into this variable")
    parser.add_argument("--raw", action="store_true", help="send {{name}} as it is")


def run(session: Session, args: argparse.Namespace) -> Comparison:
    """Ask one after the other, so that the rates can be compared, and show the answers side by side."""
    from ...views.comparison import Comparison

    if not args.prompt.strip():
        raise CommandError("the prompt is empty", hint="%llama compare -t 0,1 Why is the sky blue?")
    if args.out and not args.out.isidentifier():
        raise CommandError(f"--out needs a variable name, not {args.out!r}", hint="%llama compare --out answers …")
    names = session.shell.user_ns if session.shell else {}
    prompt = (args.prompt if args.raw else substitute(args.prompt, names)).strip()
    options: ChatOptions = {"max_tokens": args.max_tokens}
    if args.system:
        options["system"] = args.system if args.raw else substitute(args.system, names)
    columns = _columns(args)
    models = list(dict.fromkeys(column.model for column in columns))
    view = _View(session, Comparison(prompt, tuple(columns)), args.out)
    # In a notebook the table grows in view: only what is fetched and started before has to be told of.
    waits = any(model is not None and _running(session, model) is None for model in models)
    with shown(waits or not view.live.in_kernel) as say:
        _check_models(session, models, say)
        number = 0
        try:
            for model, group in groupby(columns, key=lambda column: column.model):
                with _engine(session, model, say) as engine:
                    for column in group:
                        say(Step("comparing", number, len(columns), "answers"))
                        view.ask(engine, number, column, options)
                        number += 1
                        say(Step("comparing", number, len(columns), "answers"))
        except KeyboardInterrupt as interrupt:
            view.finish()
            said = f"{number} of {len(columns)} answers are complete and kept"
            raise Interrupted(said, hint="_llama.frame()") from interrupt
        except LlamaError:
            view.finish()
            raise
        return view.finish()


class _View:
    """The comparison while it grows."""

    def __init__(self, session: Session, comparison: Comparison, out: str | None) -> None:
        self.session, self.comparison, self.out = session, comparison, out
        self.live = Live(session.shell)

    def ask(self, engine: InferenceEngine, number: int, column: Column, options: ChatOptions) -> None:
        """Fill one column; what ends it early, an error or the user, is shown in its place and raised."""
        model = engine.handle.model.id if engine.handle and engine.handle.model else column.model
        column = replace(column, model=model)
        # Without the cache: else the first column alone would pay for reading the prompt.
        options = {**options, "temperature": column.temperature, "seed": column.seed, "cache_prompt": False}
        stream: TokenStream | None = None
        try:
            with engine.stream(self.comparison.prompt, **options) as stream:
                for event in stream:
                    if event.kind == "text" and self.live.in_kernel and self.live.due:
                        self._put(number, replace(column, answer=stream.answer))
        except LlamaError as error:
            self._put(number, replace(column, error=str(error)))
            raise
        finally:
            if stream is not None and stream.ended and stream.answer.finish_reason != "error":
                self._put(number, replace(column, answer=stream.answer))

    def _put(self, number: int, column: Column) -> None:
        before = self.comparison.columns
        self.comparison = replace(self.comparison, columns=(*before[:number], column, *before[number + 1 :]))
        if self.live.in_kernel and self.live.due:
            self.live.update(self.comparison._repr_mimebundle_())

    def finish(self) -> Comparison:
        """Show the last state and keep it."""
        shell = self.session.shell
        if shell is not None:
            shell.user_ns["_llama"] = self.comparison
            if self.out:
                shell.user_ns[self.out] = self.comparison
        if self.live.in_kernel:
            self.live.update(self.comparison._repr_mimebundle_())
            mark_streamed(self.comparison, shell.execution_count)
        return self.comparison


def _columns(args: argparse.Namespace) -> list[Column]:
    from ...views.comparison import Column

    models = [one.strip() for one in args.model.split(",") if one.strip()] if args.model else [None]
    temperatures = _numbers("--temperature", args.temperature, float)
    seeds = _numbers("--seed", args.seed, int)
    if args.temperature is None and args.seed is None and len(models) < 2:
        temperatures = [0.0, 0.7, 1.0]
    made = []
    for model in dict.fromkeys(models):
        for temperature in temperatures:
            for seed in seeds:
                said = [model] if model and len(models) > 1 else []
                said += [f"temperature {temperature:g}"] if temperature is not None else []
                said += [f"seed {seed}"] if seed is not None else []
                made.append(Column(", ".join(said) or str(model), model, temperature, seed))
    if len(made) > _MAX_COLUMNS:
        raise CommandError(f"{len(made)} columns are too many to compare", hint=f"at most {_MAX_COLUMNS}")
    return made


def _numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    if text is None:
        return [None]
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise CommandError(f"{option} takes numbers with commas between, not {text!r}", hint=f"{option} 0,1") from error
    if not found or any(not 0 <= one <= 2**32 - 1 for one in found):
        raise CommandError(f"{option} takes numbers of at least 0, not {text!r}", hint=f"{option} 0,1")
    return list(dict.fromkeys(found))


def _running(session: Session, model: str) -> str | None:
    """The name of the server that runs ``model``."""
    for handle in session.handles():
        known = handle.model
        if known is not None and model in (known.id, known.path, Path(known.path).name):
            return handle.name
    return None


def _check_models(session: Session, models: list[str | None], progress: Progress) -> None:
    """A name that is no model stops the comparison before it has begun; a model that is missing is fetched now."""
    from ...models import catalogue

    for model in models:
        if model is not None and _running(session, model) is None:
            catalogue.resolve(model, progress)


@contextmanager
def _engine(session: Session, model: str | None, progress: Progress) -> Iterator[InferenceEngine]:
    """An engine on ``model``, on a server of this command's own where none runs it."""
    if model is None or (name := _running(session, model)) is not None:
        yield session.engine(None if model is None else model, server=None if model is None else name)
        return
    session.start(model, name=_SERVER, on_progress=progress)
    try:
        yield session.engine(server=_SERVER)
    finally:
        session.stop(_SERVER)

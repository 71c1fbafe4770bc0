"""``%llama chat`` and ``%%llama``: an answer streamed into the cell, kept as a value; without a prompt the widget."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import escape
from ...errors import CommandError, RequestError, ServerError
from ...inference.interrupt import Interrupted
from ...live import Live
from ...values import Answer, TokenEvent
from .. import defaults
from ..kept import Kept
from ..output import mark_streamed
from ..parser import Parser
from ..template import substitute

if TYPE_CHECKING:
    from ...inference.chat import Chat
    from ...inference.engine import InferenceEngine
    from ...session import Session

TAKES_PROMPT = True
_ALTERNATIVES = 5

#: The conversation that ``--continue`` goes on with.
_kept: Kept[Chat] = Kept()


def configure(parser: Parser) -> None:
    """Options; the prompt is the rest of the line, or the cell."""
    parser.add_argument("-m", "--model", metavar="NAME", help="the model to ask (the running one)")
    parser.add_argument("--server", metavar="NAME", help="the server to ask (the one that runs the model)")
    parser.add_argument("-c", "--continue", action="store_true", dest="go_on", help="go on with the last conversation")
    parser.add_argument("-s", "--system", metavar="TEXT", help="system prompt")
    parser.add_argument("-t", "--temperature", type=float, metavar="X", help="0 always takes the likeliest token")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="stop after N tokens (512)")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same answer")
    parser.add_argument(
        "--json-schema", metavar="SCHEMA", help="a variable, a file or JSON text: the answer follows it"
    )
    parser.add_argument(
        "--logprobs", action="store_true", help="keep each token's probability, for %%llama tokens --answer"
    )
    parser.add_argument("--out", metavar="NAME", help="put the Answer into this variable")
    parser.add_argument("--capture", action="store_true", help="record this prompt and its answer in the span")
    parser.add_argument("--raw", action="store_true", help="send {{name}} as it is")


def run(session: Session, args: argparse.Namespace) -> Answer | None:
    """Ask the running model and stream its answer; on a line without a prompt, show the chat widget."""
    defaults.fill(session.shell, args, "system", "temperature", "max_tokens")
    about_one = args.go_on or args.json_schema or args.logprobs or args.out or args.capture or args.raw
    if not args.prompt.strip() and not args.in_cell and not about_one:
        from .. import panel

        panel.show(session, args)
        return None
    if not args.prompt.strip():
        raise CommandError("the prompt is empty", hint="%llama chat Why is the sky blue?")
    if args.out and not args.out.isidentifier():
        raise CommandError(f"--out needs a variable name, not {args.out!r}", hint="%%llama --out answer")
    names = session.shell.user_ns if session.shell else {}
    engine = session.engine(args.model, server=args.server)
    prompt = args.prompt if args.raw else substitute(args.prompt, names)
    system = args.system if args.raw or not args.system else substitute(args.system, names)
    options = {
        "system": system,
        "temperature": args.temperature,
        "max_tokens": args.max_tokens,
        "seed": args.seed,
        "json_schema": _schema(args.json_schema, names) if args.json_schema else None,
        "logprobs": args.logprobs or None,
        "top_logprobs": _ALTERNATIVES if args.logprobs else None,
    }
    chat = _conversation(session, engine, go_on=args.go_on)
    view = _View(session.shell)
    try:
        with _capturing(args.capture):
            answer = chat.ask(
                prompt.strip(), on_event=view.event, **{k: v for k, v in options.items() if v is not None}
            )
    except KeyboardInterrupt as interrupt:
        if engine.last is None:
            raise
        _keep(session, view, engine.last, args.out)
        raise Interrupted(
            "the server stopped generating; the text so far is kept in _llama", hint="print(_llama.text)"
        ) from interrupt
    except (ServerError, RequestError):
        # The engine died in mid-answer: what had arrived stays on screen and in the variable.
        if engine.last is not None and view.started:
            _keep(session, view, engine.last, args.out)
        raise
    _keep(session, view, answer, args.out)
    if chat.dropped:
        some = f"the {chat.dropped} oldest turns do" if chat.dropped > 1 else "the oldest turn does"
        print(f"{some} not fit into the context any more and {'were' if chat.dropped > 1 else 'was'} left out")
    return answer


def _conversation(session: Session, engine: InferenceEngine, *, go_on: bool) -> Chat:
    """The last conversation, on the engine of now, or a new one: without ``--continue`` every call begins one."""
    from ...inference.chat import Chat

    known = _kept.get(session)
    if go_on:
        if not known:  # no turn has ended
            raise CommandError("there is no conversation to go on with", hint="%llama chat Hello")
        known.engine = engine
        return known
    return _kept.put(session, Chat(engine))


def _capturing(wanted: bool) -> AbstractContextManager[None]:
    from ...telemetry import privacy

    return privacy.capturing() if wanted else nullcontext()


def _keep(session: Session, view: _View, answer: Answer, out: str | None) -> None:
    view.finish(answer)
    if session.shell is not None:
        session.shell.user_ns["_llama"] = answer
        if out:
            session.shell.user_ns[out] = answer


class _View:
    """The answer's output while it grows."""

    def __init__(self, shell: Any) -> None:
        self.live = Live(shell)
        self.shell = shell
        self.parts: list[str] = []
        self.reasoning: list[str] = []
        self.started = False

    def event(self, event: TokenEvent) -> None:
        if event.kind == "text":
            self.parts.append(event.text)
            self.live.write(event.text)
        elif event.kind == "reasoning":
            self.reasoning.append(event.text)
        elif event.kind != "progress":
            return
        self.started = self.started or event.kind != "progress"
        self.live.soon(partial(self._now, event))

    def _now(self, event: TokenEvent) -> dict[str, str]:
        text = "".join(self.parts)
        if text:  # the plain text comes with the whole answer: each update sends everything again
            return {"text/markdown": escape.markdown(text)}
        if self.reasoning:
            words = "".join(self.reasoning)[-80:].replace("\n", " ")
            return {"text/plain": f"thinking … {escape.plain(words)}"}
        done = f" {event.progress:.0%}" if event.progress is not None else ""
        return {"text/plain": f"reading the prompt …{done}"}

    def finish(self, answer: Answer) -> None:
        if self.live.in_kernel:
            metadata = {
                "trace_id": answer.trace_id,
                "span_id": answer.span_id,
                "model": answer.model,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
            }
            self.live.update(answer._repr_mimebundle_(), {"llamatelemetry": metadata})
            mark_streamed(answer, self.shell.execution_count)
        elif self.started:
            self.live.write("\n")


def _schema(given: str, names: dict[str, Any]) -> Any:
    value: Any = names.get(given)
    if hasattr(value, "model_json_schema"):
        return value.model_json_schema()
    if isinstance(value, dict):
        return value
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"--json-schema {given!r} is neither a dict in this notebook nor a readable file",
            hint='--json-schema \'{"type": "object", …}\'',
        ) from error
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise CommandError(
            f"--json-schema is not valid JSON: {error}", hint='--json-schema \'{"type": "object"}\''
        ) from error
    if not isinstance(schema, dict):
        raise CommandError("--json-schema must be a JSON object", hint='--json-schema \'{"type": "object"}\'')
    return schema

"""From the text after ``%llama`` to the command that it names."""

from __future__ import annotations

import importlib
from functools import cache
from keyword import iskeyword
from typing import Any

from ..errors import CommandError
from .extension import cells
from .parser import Help, Parser, closest, split, split_prompt

#: Subcommand → what it does; the module of the same name (``import_`` for a word of Python's) holds
#: ``configure(parser)`` and ``run(...)``.
COMMANDS = {
    "start": "start the server with a model that fits",
    "restart": "the same server again, with changed settings",
    "attach": "use a server that runs already: somebody's, or one that was kept",
    "status": "what is running, where, and what it holds",
    "stop": "stop the server",
    "logs": "the last lines of the server's log",
    "models": "models by name: list, look into, fetch, delete",
    "install": "download a build of the engine that uses this machine's GPU",
    "doctor": "what is there, what is missing, and what to type about it",
    "chat": "ask the model, with the cell as prompt under %%llama; without a prompt a chat to type in",
    "compare": "one prompt, several temperatures, seeds or models, side by side",
    "tokens": "a text as the model's tokenizer cuts it; an answer's tokens and how likely each was",
    "embed": "texts as vectors, and rows found by meaning",
    "spans": "the recorded spans: filtered, searched, summed up, as a table or a DataFrame",
    "sessions": "the sessions that are kept, and the spans of one of them",
    "compare-runs": "two sessions side by side: model, settings, speed, memory, energy",
    "trace": "one trace as a tree and a waterfall",
    "metrics": "counts and times of requests, servers and GPUs; Prometheus' text",
    "dashboard": "live memory, tokens, slots and spans",
    "graph": "a trace as a graph: here, as files, or on Graphistry",
    "report": "the dashboard as one interactive HTML file",
    "export": "spans as a file, or to an OpenTelemetry receiver",
    "import": "spans from a file into this session",
    "receive": "spans of other processes of this machine",
    "config": "whether prompts and answers are recorded",
    "plan": "where a model's memory would go, and what fits",
    "gpu": "the cards, who owns their memory, and how they reach each other",
    "limits": "the most tokens per second that a model can reach here, and how close it came",
}
#: Commands that take the cell below ``%%llama COMMAND`` as their text; without a command it is ``chat``.
CELL_COMMANDS = ("chat", "compare", "tokens", "embed")


@cache
def parser(name: str) -> Parser:
    """The parser of subcommand ``name``."""
    made = Parser(f"%llama {name}", COMMANDS[name] + ".")
    module(name).configure(made)
    return made


def module(name: str) -> Any:
    """The module of subcommand ``name``."""
    file = f"{name}_" if iskeyword(name) else name.replace("-", "_")
    return importlib.import_module(f"{__package__}.commands.{file}")


def overview() -> str:
    """The text of ``%llama --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  %llama {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["Run a GGUF model here and see what it does.", "", *lines, "", "%llama COMMAND --help tells more."]
    )


def run(shell: Any, line: str, cell: str | None) -> object:
    """Run the command in ``line``; a cell's body is its prompt."""
    from ..session import current_session

    try:
        name, rest = _command(line, cell)
        command = module(name)
        own = parser(name)
        if getattr(command, "TAKES_PROMPT", False):
            words, prompt = split_prompt(own, rest)
            args = own.parse_args(words)
            if cell is not None:
                if prompt:
                    raise CommandError(
                        f"text after %%llama is not read: {prompt[:40]!r}",
                        hint="put the prompt into the lines below %%llama",
                    )
                prompt = cell
            args.prompt, args.in_cell = prompt, cell is not None
        else:
            args = own.parse_args(split(rest))
    except Help as asked:
        print(asked)
        return None
    session = current_session()
    session.shell = shell
    session.cells = cells(shell)
    return command.run(session, args)


def _command(line: str, cell: str | None) -> tuple[str, str]:
    first, _, rest = line.strip().partition(" ")
    if first in ("-h", "--help", "help") and cell is None:
        raise Help(overview() if not rest.strip() else parser(_known(rest.strip())).format_help())
    if cell is not None:
        if first in COMMANDS and first not in CELL_COMMANDS:
            raise CommandError(f"%%llama asks the model; {first} is a line of its own", hint=f"%llama {first}")
        return (first, rest) if first in CELL_COMMANDS else ("chat", line.strip())
    if not first:
        raise Help(overview())
    return _known(first), rest


def _known(name: str) -> str:
    if name in COMMANDS:
        return name
    near = closest(name, list(COMMANDS))
    if name.startswith("-"):
        raise CommandError(f"%llama needs a command before {name}", hint=f"%llama chat {name} …")
    raise CommandError(
        f"unknown command {name!r}" + (f"; did you mean {near!r}?" if near else ""),
        hint=f"%llama {near}" if near else "%llama --help",
    )

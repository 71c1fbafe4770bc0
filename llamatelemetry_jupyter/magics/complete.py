"""Tab after ``%llama``: the same parsers that parse the line, plus the names of models, servers and variables."""

from __future__ import annotations

from typing import Any

from ..values import Answer
from .commands import gpu, models
from .router import CELL_COMMANDS, COMMANDS, parser

#: What may stand next where it is a word of ours.
_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("models",): models.ACTIONS,
    ("gpu",): gpu.ACTIONS,
    ("export",): ("otlp",),
    ("config",): ("capture",),
    ("config", "capture"): ("on", "off", "environment"),
}


def complete(shell: Any, line: str, symbol: str) -> list[str]:
    """Words that can stand where ``symbol`` is being typed in ``line``."""
    magic, _, rest = line.lstrip().partition(" ")
    words = rest.split()
    # IPython takes a comma for the end of a word: of "a,b" only "b" is the symbol.
    before = words[:-1] if symbol and words and words[-1].endswith(symbol) else words
    command = before[0] if before else None
    if magic == "%%llama" and command not in CELL_COMMANDS:
        command = "chat"
    if command is None:
        return [name for name in COMMANDS if name.startswith(symbol)]
    if command not in COMMANDS:
        return []
    own = parser(command)
    if before and before[-1] in ("-m", "--model"):
        return _models(symbol)
    if before and before[-1] == "--engine":
        return _engines(command, symbol)
    if (before and before[-1] == "--session") or (command in ("sessions", "compare-runs") and symbol[:1] != "-"):
        return [one for one in _sessions() if one.startswith(symbol)]
    if before and before[-1] == "--name" and command == "spans":
        return [name for name in _span_names() if name.startswith(symbol)]
    if before and before[-1] in ("-N", "--name", "--server"):
        return [name for name in _servers() if name.startswith(symbol)]
    if before and before[-1] == "--answer":
        return [name for name, value in _named(shell) if isinstance(value, Answer) and name.startswith(symbol)]
    if before and before[-1] in ("--from", "--json-schema") and command != "install":  # there it is a folder
        return [name for name in _variables(shell) if name.startswith(symbol)]
    if before and before[-1] == "--column":
        return [name for name in _columns(shell, before) if name.startswith(symbol)]
    if before and own.takes_value(before[-1]):
        return [value for value in own.values(before[-1]) if value.startswith(symbol)]
    if symbol.startswith("-"):
        return [option for option in own.options() if option.startswith(symbol)]
    if ours := _WORDS.get(tuple(before)):
        return [word for word in ours if word.startswith(symbol)]
    return _models(symbol) if command in ("start", "models", "plan", "limits") else []


def _servers() -> list[str]:
    from ..session import existing

    session = existing()
    return [handle.name for handle in session.handles()] if session else []


def _sessions() -> list[str]:
    from ..session import existing

    session = existing()
    return ["this", *sorted(path.stem for path in session.sessions.folder.glob("*.sqlite"))] if session else []


def _span_names() -> list[str]:
    from ..session import existing

    session = existing()
    return sorted({one.name for one in session.spans.latencies() if " " not in one.name}) if session else []


def _variables(shell: Any) -> list[str]:
    """The notebook's own variables that hold something, modules and functions left out."""
    return [name for name, value in _named(shell) if hasattr(value, "__len__") or isinstance(value, type)]


def _named(shell: Any) -> list[tuple[str, object]]:
    """What the notebook has given a name, by name."""
    hidden = getattr(shell, "user_ns_hidden", {})
    return sorted(
        ((name, value) for name, value in shell.user_ns.items() if not name.startswith("_") and name not in hidden),
        key=lambda one: one[0],
    )


def _columns(shell: Any, before: list[str]) -> list[str]:
    """The columns of the DataFrame that ``--from`` names."""
    named = before[before.index("--from") + 1] if "--from" in before[:-1] else None
    return [str(column) for column in getattr(shell.user_ns.get(named), "columns", ())]


def _models(symbol: str) -> list[str]:
    from ..models.catalogue import names

    return [name for name in names() if name.startswith(symbol)]


def _engines(command: str, symbol: str) -> list[str]:
    """What can be installed, or what can be started by name; a path is completed by nobody better than the shell."""
    from ..server import engines

    started = ("xllamacpp", *{b.backend: b for b in engines.installed()}, *(b.id for b in engines.installed()))
    return [name for name in (engines.names() if command == "install" else started) if name.startswith(symbol)]

"""Tab after ``%llama``: the same parsers that parse the line, plus the names of models."""

from __future__ import annotations

from .commands.models import ACTIONS
from .router import COMMANDS, parser


def complete(_shell: object, line: str, symbol: str) -> list[str]:
    """Words that can stand where ``symbol`` is being typed in ``line``."""
    magic, _, rest = line.lstrip().partition(" ")
    words = rest.split()
    before = words[:-1] if symbol and words and words[-1] == symbol else words
    command = "chat" if magic == "%%llama" else (before[0] if before else None)
    if command is None:
        return [name for name in COMMANDS if name.startswith(symbol)]
    if command not in COMMANDS:
        return []
    own = parser(command)
    if before and before[-1] in ("-m", "--model"):
        return _models(symbol)
    if before and before[-1] == "--engine":
        return _engines(command, symbol)
    if before and own.takes_value(before[-1]):
        return []
    if symbol.startswith("-"):
        return [option for option in own.options() if option.startswith(symbol)]
    if command == "models" and len(before) == 1:
        return [action for action in ACTIONS if action.startswith(symbol)]
    return _models(symbol) if command in ("start", "models", "plan") else []


def _models(symbol: str) -> list[str]:
    from ..models.catalogue import names

    return [name for name in names() if name.startswith(symbol)]


def _engines(command: str, symbol: str) -> list[str]:
    """What can be installed, or what can be started by name; a path is completed by nobody better than the shell."""
    from ..server import engines

    started = ("xllamacpp", *{b.backend: b for b in engines.installed()}, *(b.id for b in engines.installed()))
    return [name for name in (engines.names() if command == "install" else started) if name.startswith(symbol)]

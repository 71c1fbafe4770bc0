"""What one server setting is called: here, on ``llama-server``'s command line, and in ``xllamacpp.CommonParams``.

A setting is written once, as a field of :class:`.settings.ServerSettings` made by :func:`option`. Its check, both
engines' renderings, the options of ``%llama start`` and the table in docs/server.md all read that one description, so
they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..errors import CommandError, EngineError
from ..values import JSON

Kind = Literal["text", "int", "float", "choice", "switch", "texts", "numbers"]
#: Groups of the help page and the table, in their order.
GROUPS = ("model", "context and memory", "GPU", "chat", "other tasks", "speculation", "process")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. ``about`` is its help line, ``why`` the reason of its default.

    ``flags`` are alternatives (llama.cpp renames), the newest first; ``off`` those that switch it off. Nothing is
    rendered for a value of ``silent``, because it is the engine's own default. Flags that are not ``everywhere`` are
    rendered only where ``--help`` lists them. ``value`` derives what is rendered from all settings.
    """

    about: str
    why: str = ""
    group: str = "process"
    kind: Kind = "text"
    flags: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    param: Callable[[Any], JSON] = lambda value: value
    value: Callable[[Any], Any] | None = None
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 1 << 30
    silent: tuple[Any, ...] = (None, ())
    everywhere: bool = True

    def check(self, name: str, value: Any) -> None:
        """Raise CommandError for a value that no engine takes."""
        if value is None and None in self.silent:
            return
        flag = spelled(name)
        if self.kind in ("int", "float"):
            whole = type(value) is int
            if not (whole or (self.kind == "float" and type(value) is float)) or not self.low <= value <= self.high:
                raise CommandError(
                    f"{flag} must be from {self.low:g} to {self.high:g}, not {value!r}",
                    hint=f"%llama start {flag} {max(self.low, 1):g}",
                )
        elif self.kind == "choice" and value not in self.choices:
            raise CommandError(f"{flag} {value!r}: one of {', '.join(self.choices)}", hint="%llama start --help")
        elif self.kind == "switch" and type(value) is not bool:
            raise CommandError(f"{flag} is True or False, not {value!r}", hint="%llama start --help")
        elif self.kind == "text" and not isinstance(value, str):
            raise CommandError(f"{flag} must be text, not {value!r}", hint="%llama start --help")
        elif self.kind == "texts" and not (isinstance(value, tuple) and all(isinstance(v, str) and v for v in value)):
            raise CommandError(f"{flag} must be a tuple of texts, not {value!r}", hint="%llama start --help")
        elif self.kind == "numbers" and not (
            isinstance(value, tuple) and all(type(v) in (int, float) and self.low <= v <= self.high for v in value)
        ):
            raise CommandError(f"{flag} must be a tuple of numbers, not {value!r}", hint="%llama start --help")

    def argv(self, value: Any, features: frozenset[str], *, asked: bool) -> list[str]:
        """Arguments for ``value``; raises EngineError when it was ``asked`` for and this build has no such flag."""
        names = self.off if value is False and self.off else self.flags
        flag = next((f for f in names if f in features), names[0] if names and self.everywhere else None)
        if flag is None:
            if asked and names:
                raise EngineError(
                    f"this llama-server has no {names[0]}: it is too old", hint="%llama start --engine xllamacpp"
                )
            return []
        if value is True or value is False:
            return [flag]
        return [flag, ",".join(map(_text, value)) if isinstance(value, (tuple, list)) else _text(value)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def option(default: Any, about: str, why: str = "", **described: Any) -> Any:
    """A dataclass field with its :class:`Option`."""
    return field(default=default, metadata={"option": Option(about, why, **described)})


def options(settings: type | object) -> Mapping[str, Option]:
    """Field name → option, in the order of the fields."""
    return {f.name: f.metadata["option"] for f in fields(settings) if "option" in f.metadata}  # type: ignore[arg-type]


def spelled(name: str) -> str:
    """The option of ``%llama start`` for the field ``name``."""
    return f"--{name.replace('_', '-')}"


def table(settings: type) -> str:
    """The options as Markdown, a table per group; docs/server.md holds it."""
    defaults = {f.name: f.default for f in fields(settings)}
    lines = []
    for group in GROUPS:
        rows = [(name, one) for name, one in options(settings).items() if one.group == group]
        lines += [f"### {group[0].upper()}{group[1:]}", "", "| Setting | What it does | Default | llama-server |"]
        lines.append("|---|---|---|---|")
        for name, one in rows:
            why = (
                ". ".join(part for part in (_shown(defaults[name]), one.why.removesuffix(".")) if part)
                or "the engine's"
            )
            flag = ", ".join(f"`{f}`" for f in (*one.flags[:1], *one.off[:1])) or "–"
            wheel = "" if one.attributes else " (not in xllamacpp)"
            lines.append(f"| `{name}`<br>`{_cli(name, one)}` | {one.about} | {why} | {flag}{wheel} |")
        lines.append("")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value in (None, ()):
        return ""
    return f"`{'on' if value is True else 'off' if value is False else value}`"


def _cli(name: str, one: Option) -> str:
    if one.kind == "switch":
        return f"{spelled(name)} / --no-{name.replace('_', '-')}"
    return f"{spelled(name)} {metavar(one)}"


def metavar(one: Option) -> str:
    """What stands for the value in a help page."""
    if one.kind == "choice":
        return "\\|".join(one.choices)
    return {"int": "N", "float": "X", "texts": "A,B", "numbers": "X,Y"}.get(one.kind, "TEXT")

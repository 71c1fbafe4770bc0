"""A Python function as a model sees it: name, purpose, and a JSON schema of its parameters, which also checks calls."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from ..errors import CommandError
from ..values import JSON

_SIMPLE: Mapping[Any, JSON] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# "name: text", "name (type): text" and ":param type name: text": Google's, NumPy's one-line and Sphinx's form.
_PARAMETER = re.compile(r"^\s*(?::param\s+(?:[^\s:]+\s+)?)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s+(\S.*)$")
_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples|Note|Notes)\s*:?\s*$")


@dataclass(frozen=True, slots=True)
class Signature:
    """``schema`` is the function's description for the model; ``hints`` its parameters' types."""

    function: Callable[..., Any]
    name: str
    schema: dict[str, JSON]
    hints: Mapping[str, Any]
    required: frozenset[str]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        """What a model has to know of ``function``; raises CommandError where that cannot be said in JSON."""
        name = getattr(function, "__name__", None) or type(function).__name__
        if not callable(function) or not _NAME.fullmatch(name):
            raise CommandError(f"{name!r} cannot be called by name", hint="def name(parameter: str) -> str: …")
        if inspect.iscoroutinefunction(function):
            raise CommandError(f"{name} is async; a call has to return its result", hint=f"def {name}(…): …")
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = typing.get_type_hints(function, include_extras=True)
        except (TypeError, ValueError, NameError) as error:
            said = f"the signature of {name} cannot be read: {error}"
            raise CommandError(said, hint="plain types: str, int, list[str]") from error
        purpose, told = _docstring(inspect.getdoc(function) or "")
        properties: dict[str, JSON] = {}
        required: list[JSON] = []
        for one in parameters:
            if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY):
                raise CommandError(
                    f"{name}: a model names every argument, so {one} cannot be given", hint=f"def {name}(text: str): …"
                )
            described = dict(_schema(hints.get(one.name, Any), f"{name}: {one.name}"))
            if one.name in told:
                described["description"] = told[one.name]
            if one.default is one.empty:
                required.append(one.name)
            elif one.default is None or isinstance(one.default, str | int | float | bool):
                described["default"] = one.default
            properties[one.name] = described
        schema: dict[str, JSON] = {
            "name": name,
            "description": purpose,
            "parameters": {"type": "object", "properties": properties, "required": required},
        }
        known = {one.name: hints.get(one.name, Any) for one in parameters}
        return cls(function, name, schema, known, frozenset(map(str, required)))

    def bind(self, given: Mapping[str, JSON]) -> dict[str, Any]:
        """The arguments as the function wants them; raises ValueError that says, for the model, what does not fit."""
        unknown = [name for name in given if name not in self.hints]
        missing = sorted(self.required - set(given))
        if unknown or missing:
            said = [f"unknown argument {name!r}" for name in unknown] + [
                f"argument {name!r} is missing" for name in missing
            ]
            raise ValueError(f"{', '.join(said)}; arguments of {self.name}: {', '.join(self.hints) or 'none'}")
        return {name: _fit(value, self.hints[name], name) for name, value in given.items()}


def _schema(hint: Any, where: str) -> dict[str, JSON]:
    if hint in (Any, inspect.Parameter.empty):
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, where) for one in inner]}
    if origin is typing.Annotated:
        words = [one for one in inner[1:] if isinstance(one, str)]
        return {**_schema(inner[0], where), **({"description": words[0]} if words else {})}
    if hint is list or origin is list:
        return {"type": "array", **({"items": _schema(inner[0], where)} if inner else {})}
    if hint is dict or (origin is dict and inner[0] is str):
        return {"type": "object", **({"additionalProperties": _schema(inner[1], where)} if inner else {})}
    raise CommandError(
        f"{where} has a type that JSON cannot say: {getattr(hint, '__name__', hint)}",
        hint="str, int, float, bool, list, dict, Literal, Enum, or | of them",
    )


def _fit(value: JSON, hint: Any, where: str) -> Any:
    """``value`` as ``hint`` wants it: an Enum's member, a float for a whole number; ValueError when it cannot be."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Annotated:
        return _fit(value, inner[0], where)
    if origin in (Union, types.UnionType):
        for one in inner:
            try:
                return _fit(value, one, where)
            except ValueError:
                continue
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    elif origin is Literal:
        if any(value == one and type(value) is type(one) for one in inner):
            return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint is int:
        # Models write 3.0; is_integer is false for what JSON's NaN and Infinity become.
        if (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        ):
            return int(value)
    elif hint is list or origin is list:
        if isinstance(value, list):
            return [_fit(one, inner[0], f"{where}[{i}]") for i, one in enumerate(value)] if inner else value
    elif hint is dict or origin is dict:
        if isinstance(value, dict):
            return {key: _fit(one, inner[1], f"{where}.{key}") for key, one in value.items()} if inner else value
    elif isinstance(value, hint):
        return value
    wanted = _schema(hint, where)
    raise ValueError(f"argument {where} must be {wanted.get('type') or wanted}, not {value!r}"[:300])


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The words before the first section, and what is said of each parameter."""
    lines = text.splitlines()
    end = next(
        (i for i, line in enumerate(lines) if _SECTION.match(line) or line.lstrip().startswith(":param")), len(lines)
    )
    told = {found[1]: found[2].strip() for line in lines[end:] if (found := _PARAMETER.match(line))}
    return " ".join(" ".join(lines[:end]).split()), told

"""The options of ``%llama start`` and ``restart``: one for each server setting, made from the settings' own table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..server.options import GROUPS, Option, options, spelled
from ..server.settings import ServerSettings
from .parser import Parser


def add_settings(parser: Parser) -> None:
    """Add an option for every setting but the model, grouped as in the documentation."""
    parser.usage = "%(prog)s [OPTION …]"  # fifty of them are no use in one line
    described = options(ServerSettings)
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for name, one in described.items():
            if one.group == title and name != "model":
                _add(group, name, one)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were typed, by field name."""
    names = (name for name in options(ServerSettings) if name != "model")
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _add(group: argparse._ArgumentGroup, name: str, one: Option) -> None:
    flag = spelled(name)
    about = one.about
    if one.kind == "switch":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=about, default=None)
    elif one.kind == "choice":
        group.add_argument(flag, choices=one.choices, help=f"{about} ({', '.join(one.choices)})")
    else:
        of, metavar = _KINDS[one.kind]
        group.add_argument(flag, type=of, metavar=metavar, help=about)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


_numbers.__name__, _texts.__name__ = "numbers X,Y", "list A,B"  # argparse names them in its messages

_KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (int, "N"),
    "float": (float, "X"),
    "text": (str, "TEXT"),
    "numbers": (_numbers, "X,Y"),
    "texts": (_texts, "A,B"),
}

"""Credentials by name from the environment and from sources that others add (Kaggle's secrets, Colab's).

Values are never printed, logged, put into spans or into ``os.environ``; :func:`known` lists them for whoever has to
recognise them in other text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

Source = Callable[[str], "str | None"]

_NAMED = re.compile(r"KEY|TOKEN(?!I[SZ])|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE|DSN", re.IGNORECASE)
_SHORTEST = 8  # shorter values stand in ordinary text
_WORD = 12  # letters alone below that are a word: "disabled"
_MOST = 256

_sources: list[Source] = [os.environ.get]
_remembered: dict[str, None] = {}


def add_source(source: Source) -> Callable[[], None]:
    """Ask ``source`` after those that are there already; returns the function that removes it again."""
    _sources.append(source)
    return lambda: _sources.remove(source) if source in _sources else None


def get(name: str) -> str | None:
    """The secret ``name`` of the first source that has it, else ``None``."""
    for source in _sources:
        if value := source(name):
            return remember(value)
    return None


def remember(value: str) -> str:
    """``value``, which from now on is one of :func:`known`: a key that was made here, or that a user gave."""
    _remembered.pop(value, None)
    _remembered[value] = None
    while len(_remembered) > _MOST:
        del _remembered[next(iter(_remembered))]
    return value


def known() -> list[str]:
    """Secrets of at least 8 characters, longest first: those remembered, and the environment's by their names."""
    named = (value for name, value in os.environ.items() if _NAMED.search(name))
    found = {*_remembered, *named}
    return sorted(filter(_telling, found), key=len, reverse=True)


def _telling(value: str) -> bool:
    """Not a path, a number or a word, which stand in ordinary text (``SSH_AUTH_SOCK``, ``KEY_ID``, ``AUTH_MODE``)."""
    plain = value.isdigit() or value.startswith("/") or (value.isalpha() and len(value) < _WORD)
    return len(value) >= _SHORTEST and not plain

"""Credentials by name from the environment and from sources that others add (Kaggle's secrets, Colab's).

Values are never printed, logged, put into spans or into ``os.environ``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

Source = Callable[[str], "str | None"]

_sources: list[Source] = [os.environ.get]


def add_source(source: Source) -> Callable[[], None]:
    """Ask ``source`` after those that are there already; returns the function that removes it again."""
    _sources.append(source)
    return lambda: _sources.remove(source) if source in _sources else None


def get(name: str) -> str | None:
    """The secret ``name`` of the first source that has it, else ``None``."""
    for source in _sources:
        if value := source(name):
            return value
    return None

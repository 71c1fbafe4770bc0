"""Functions of :mod:`.ask` as methods of a client: same parameters and documentation, sent and waited for.

A class of its own per transport would repeat some forty signatures; a type that depends on whether one waits cannot be
written in Python. ``ParamSpec`` keeps every parameter checked, and ``help()``, Tab and Shift-Tab show them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def method(ask: Callable[..., Any], call: Callable[..., Any], note: str = "") -> Any:
    """``call`` with the name, the parameters and the documentation of ``ask``; ``note`` is added to the latter."""
    parameters = list(inspect.signature(ask).parameters.values())
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = inspect.Signature([me, *parameters])  # type: ignore[attr-defined]
    call.__doc__ = f"{ask.__doc__}\n{note}" if note else ask.__doc__
    call.__name__ = ask.__name__
    call.__module__ = ask.__module__
    return call

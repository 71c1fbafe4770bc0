"""``{{name}}`` in prompts, and nothing else.

Prompts are full of braces: JSON, LaTeX, f-strings, code. So only a double brace around a name, with attributes and
constant indices, is replaced; every other brace passes. Nothing is called and nothing is evaluated.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Mapping
from typing import Any

from ..errors import CommandError
from .parser import closest

_SLOT = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[[^\[\]{}]+\])*)\s*\}\}")
_FRAME_ROWS = 20


def substitute(text: str, names: Mapping[str, Any]) -> str:
    """``text`` with every ``{{name}}`` replaced by that value as text; raises CommandError for an unknown name."""
    return _SLOT.sub(lambda slot: as_text(_look_up(slot[1], names)), text)


def as_text(value: object) -> str:
    """A value as prompt text; tables are cut to their head, with their shape and types said."""
    if type(value).__module__.startswith("pandas") and hasattr(value, "head"):
        frame: Any = value
        note = f"(first {_FRAME_ROWS} of {len(frame)} rows)\n" if len(frame) > _FRAME_ROWS else ""
        return f"{frame.head(_FRAME_ROWS).to_string()}\n{note}types:\n{getattr(frame, 'dtypes', '')}"
    return str(value)


def _look_up(expression: str, names: Mapping[str, Any]) -> object:
    try:
        return _value(ast.parse(expression, mode="eval").body, names)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(
            f"{{{{{expression}}}}} has no value: {type(error).__name__}: {error}",
            hint="define it in a cell above, or send the braces as they are with --raw",
        ) from error


def _value(node: ast.expr, names: Mapping[str, Any]) -> object:
    if isinstance(node, ast.Name):
        if node.id not in names:
            near = closest(node.id, [n for n in names if not n.startswith("_") and not hasattr(builtins, n)])
            raise CommandError(
                f"{{{{{node.id}}}}}: no variable of that name" + (f"; did you mean {{{{{near}}}}}?" if near else ""),
                hint="define it in a cell above, or send the braces as they are with --raw",
            )
        return names[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr)
    if isinstance(node, ast.Subscript):
        value: Any = _value(node.value, names)
        return value[ast.literal_eval(node.slice)]
    raise ValueError("only names, attributes and constant indices can stand between {{ and }}")

"""Prompts that end in a question mark.

IPython takes any line that ends in ``?`` for a request for help: ``%llama chat Why is the sky blue?`` would look up
``blue``. A token transformer that comes before that one (priority 5 in every IPython from 7.34) hands such a line to
the magic; ``%llama?`` and ``%llama chat?`` still ask for help.
"""

from __future__ import annotations

import re
import tokenize
from typing import Any

from IPython.core.inputtransformer2 import TokenTransformBase

_PROMPT = re.compile(r"(\s*(?:[^\W\d][\w.]*\s*=\s*)?)%llama[ \t]+(\w+[ \t]+\S.*\?)\s*")


class Question(TokenTransformBase):  # type: ignore[misc]  # IPython is not typed
    """Finds the first ``%llama COMMAND … ?`` of a cell, with or without ``name =`` before it."""

    priority = 1

    @classmethod
    def find(cls, tokens_by_line: list[list[Any]]) -> Question | None:
        """The transformer of the first such line, ``None`` when there is none."""
        for line in tokens_by_line:
            first = next((token for token in line if token.type not in (tokenize.INDENT, tokenize.DEDENT)), None)
            if first is not None and _PROMPT.fullmatch(first.line):
                return cls(first.start)
        return None

    def transform(self, lines: list[str]) -> list[str]:
        """The cell with that line as a call of the magic."""
        before, after = lines[: self.start_line], lines[self.start_line + 1 :]
        found = _PROMPT.fullmatch(lines[self.start_line])
        if found is None:
            raise SyntaxError(lines[self.start_line])  # another transformer's turn
        return [*before, f"{found[1]}get_ipython().run_line_magic('llama', {found[2]!r})\n", *after]

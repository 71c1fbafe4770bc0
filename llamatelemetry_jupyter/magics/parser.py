"""argparse for magics: errors are :class:`CommandError`, ``--help`` returns text, near misses are named.

One tree of parsers feeds parsing, ``--help``, "did you mean" and Tab, so that they cannot disagree.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import NoReturn

from ..errors import CommandError


class Help(Exception):  # noqa: N818 (a request, not an error)
    """``--help`` was asked for; its text is ``args[0]``."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that neither prints nor exits."""

    def __init__(self, prog: str, description: str, **options: object) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        """Raise the message as two lines, with the nearest option when one was misspelt."""
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown and unknown[1].startswith("-"):
            word = unknown[1].split("=")[0]
            raise CommandError(f"unknown option {word} for {self.prog}", hint=self._suggestion(word))
        raise CommandError(f"{self.prog}: {message}", hint=f"{self.prog} --help")

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002 (argparse's signature)
        """Raise :class:`Help` with the text."""
        raise Help(self.format_help())

    def takes_value(self, option: str) -> bool | None:
        """Whether ``option`` is followed by a value; ``None`` when there is no such option."""
        action = self._option_string_actions.get(option)
        return None if action is None else action.nargs != 0

    def values(self, option: str) -> list[str]:
        """What may follow ``option`` where there is a choice."""
        action = self._option_string_actions.get(option)
        return [str(value) for value in action.choices or ()] if action is not None else []

    def options(self) -> list[str]:
        """Every option string."""
        return sorted(self._option_string_actions)

    def _suggestion(self, word: str) -> str:
        near = closest(word, self.options())
        return f"{self.prog} {near}  (did you mean {near}?)" if near else f"{self.prog} --help"


def closest(word: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that ``word`` was probably meant to be: one that it begins, else one spelt nearly so."""
    import difflib

    begun = [name for name in names if word.strip("-") and name.startswith(word)]
    found = begun or difflib.get_close_matches(word, names, 1, 0.6)
    return found[0] if found else None


def split(line: str) -> list[str]:
    """Shell-like words of a command that takes no prose."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise CommandError(
            f"a quote is not closed in: {line.strip()}", hint='put the whole value in quotes, "like this"'
        ) from error


_WORD = re.compile(r"\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\S+)")


def split_prompt(parser: Parser, line: str) -> tuple[list[str], str]:
    """``(options, prompt)``: options end at the first word that is none; from there on the line is kept verbatim.

    So apostrophes, quotes and backslashes in prose need no care; ``--`` ends the options early.
    """
    words: list[str] = []
    position = 0
    while match := _WORD.match(line, position):
        word = match[1]
        if word == "--":
            return words, line[match.end() :].strip()
        if not word.startswith("-") or word == "-":
            break
        words.append(word)
        position = match.end()
        if "=" not in word and parser.takes_value(word) and (value := _WORD.match(line, position)):
            words.append(_unquote(value[1]))
            position = value.end()
    return words, line[position:].strip()


def _unquote(word: str) -> str:
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'":
        inner = word[1:-1]
        return re.sub(r"\\(.)", r"\1", inner) if word[0] == '"' else inner
    return word

"""A chat's transcript for readers without a kernel, and as cells of a notebook; all text in it is other people's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import escape
from .format import count, rate, seconds

MAX_BYTES = 140_000
_HINT = "%llama chat TEXT asks the model and shows its answer here\n  try: %llama chat Why is the sky blue?"
_NAMES = {"user": "You", "assistant": "Model"}
_OPTIONS = {"system": "-s", "temperature": "-t", "max_tokens": "-n", "seed": "--seed"}
_BOX = "white-space:pre-wrap;overflow-wrap:anywhere"


def static_text(turns: Sequence[Mapping[str, Any]]) -> str:
    """The transcript as text; of an empty one, how to ask without a widget."""
    if not turns:
        return _HINT
    return "\n\n".join(f"{_who(one)}: {escape.plain(one['text'])}{_below(one, chr(10))}" for one in turns)


def static_html(turns: Sequence[Mapping[str, Any]]) -> str:
    """The newest turns as HTML in which nothing is live: no script, no style sheet, no link, under 150 kB."""
    parts: list[str] = []
    size = 0
    for one in reversed(turns):
        text = escape.html(one["text"])
        made = (
            f'<p style="margin:10px 0 2px"><b>{escape.html(_who(one))}</b></p>'
            f'<div style="{_BOX}">{text}</div><small>{escape.html(_below(one))}</small>'
        )
        size += len(made.encode("utf-8", "replace"))
        if parts and size > MAX_BYTES:
            parts.append(f"<p>{len(turns) - len(parts)} earlier turns are left out</p>")
            break
        parts.append(made[:MAX_BYTES] if size <= MAX_BYTES else "<p>a turn that is too long to be kept here</p>")
    if not turns:
        parts.append(f'<pre style="margin:0">{escape.html(_HINT)}</pre>')
    return f'<div style="max-width:60em">{"".join(reversed(parts))}</div>'


def figures(turn: Mapping[str, Any]) -> list[str]:
    """What an answer cost, in words: tokens, time, rate, and why it ended when that was not the model's choice."""
    found = []
    if turn["tokens"] is not None:
        found.append(f"{count(turn['tokens'])} tokens")
    if turn["seconds"] is not None:
        found.append(seconds(turn["seconds"]))
    if turn["tokens_per_s"] is not None:
        found.append(f"{rate(turn['tokens_per_s'])} tokens/s")
    ended = {"stopped": "stopped", "failed": "broke off", "running": "still being written"}.get(turn["state"])
    if ended or turn["finish_reason"] == "length":
        found.append(ended or "stopped at the token limit")
    return found


def cells(turns: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> list[dict[str, str]]:
    """The transcript as cells: ``{kind: code | markdown, source}``; questions can be run again, answers are escaped."""
    made: list[dict[str, str]] = []
    words = [f"{flag} {_quoted(str(parameters[name]))}" for name, flag in _OPTIONS.items() if name in parameters]
    for one in turns:
        if one["role"] == "user":
            again = [] if not made else ["--continue"]
            line = " ".join(["%%llama", "--raw", *again, *words])
            made.append({"kind": "code", "source": f"{line}\n{one['text']}"})
        elif one["text"]:
            made.append({"kind": "markdown", "source": escape.markdown(one["text"])})
    return made


def percent(made: Sequence[Mapping[str, str]]) -> str:
    """Cells as text in the percent format, which editors and jupytext read."""
    parts = []
    for one in made:
        body = one["source"]
        if one["kind"] == "markdown":
            body = "\n".join(f"# {line}".rstrip() for line in body.split("\n"))
        # A line of the text must not begin a cell.
        body = re.sub(r"(?m)^# %%", "# % %", body)
        parts.append(f"# %%{' [markdown]' if one['kind'] == 'markdown' else ''}\n{body}\n")
    return "\n".join(parts)


def _quoted(word: str) -> str:
    """One word of a magic's line: in double quotes a backslash escapes."""
    one_line = " ".join(word.split())
    return one_line if re.fullmatch(r"[\w.]+", one_line) else '"' + re.sub(r'(["\\])', r"\\\1", one_line) + '"'


def _who(turn: Mapping[str, Any]) -> str:
    named = f" ({escape.plain(turn['model'])})" if turn["model"] else ""
    return f"{_NAMES[turn['role']]}{named}"


def _below(turn: Mapping[str, Any], before: str = "") -> str:
    said = [*figures(turn)] if turn["role"] == "assistant" else []
    if turn["error"]:
        said.append(f"{turn['error']['what']}; try: {turn['error']['hint']}")
    return before + escape.plain(" · ".join(said)) if said else ""

"""Which spans are meant: one set of conditions that means the same for rows in memory and for a file's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from ..values import SpanRow


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that all hold; ``None`` asks for nothing.

    ``name`` and ``model`` may hold ``*`` and ``?``; ``cell`` and ``trace`` are ids or their beginnings. ``since_ns``
    and ``until_ns`` are compared with the end. ``text`` is looked for without regard to case in name, model, server,
    error and in the names and values of attributes.
    """

    name: str | None = None
    model: str | None = None
    server: str | None = None
    status: str | None = None
    cell: str | None = None
    trace: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    text: str | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is asked for."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def matches(self, row: SpanRow) -> bool:
        """Whether ``row`` is meant."""
        return (
            (self.name is None or fnmatchcase(row.name, self.name))
            and (self.model is None or (row.model is not None and fnmatchcase(row.model, self.model)))
            and (self.server is None or row.server == self.server)
            and (self.status is None or row.status == self.status)
            and (self.cell is None or (row.cell_id or "").startswith(self.cell))
            and (self.trace is None or row.trace_id.startswith(self.trace))
            and (self.since_ns is None or row.end_ns >= self.since_ns)
            and (self.until_ns is None or row.end_ns < self.until_ns)
            and (self.text is None or self._said(row))
        )

    def _said(self, row: SpanRow) -> bool:
        assert self.text is not None
        wanted = self.text.lower()
        return any(wanted in one.lower() for one in (row.name, row.model, row.server, row.error_type) if one) or _holds(
            row.attributes, wanted
        )

    def sql(self) -> tuple[str, list[object]]:
        """The same as an SQL condition on ``spans`` with its values; rows that it lets through still have to match.

        It needs the functions of :func:`functions`; only ``text`` may let too many rows through.
        """
        parts: list[str] = []
        values: list[object] = []

        def add(part: str, *given: object) -> None:
            parts.append(part)
            values.extend(given)

        for column in ("name", "model"):
            if (wanted := getattr(self, column)) is not None:
                add(f"glob_match({column}, ?)", wanted) if set("*?[") & set(wanted) else add(f"{column} = ?", wanted)
        for column, equal in (("server", self.server), ("status", self.status)):
            if equal is not None:
                add(f"{column} = ?", equal)
        for column, begin in (("cell_id", self.cell), ("trace_id", self.trace)):
            if begin is not None:
                add(f"substr({column}, 1, ?) = ?", len(begin), begin)
        if self.since_ns is not None:
            add("end_ns >= ?", self.since_ns)
        if self.until_ns is not None:
            add("end_ns < ?", self.until_ns)
        if self.text is not None:
            add("says(name, model, server, error_type, attributes, ?)", self.text)
        return " and ".join(parts) or "1", values


def functions() -> dict[str, tuple[int, Callable[..., Any]]]:
    """What :meth:`Where.sql` calls: name → number of arguments and function."""
    return {"glob_match": (2, lambda text, glob: text is not None and fnmatchcase(text, glob)), "says": (6, _says)}


def _says(*found: str | None) -> bool:
    *texts, attributes, wanted = found
    assert wanted is not None
    if any(wanted.lower() in text.lower() for text in texts if text):
        return True
    # As it stands in JSON, where a quote or a backslash has another before it.
    return json.dumps(wanted, ensure_ascii=False)[1:-1].lower() in (attributes or "").lower()


def _holds(value: object, wanted: str) -> bool:
    if isinstance(value, str):
        return wanted in value.lower()
    if isinstance(value, dict) or hasattr(value, "items"):
        return any(wanted in str(k).lower() or _holds(v, wanted) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return any(_holds(one, wanted) for one in value)
    return wanted in json.dumps(value, default=str).lower()

"""What the dashboard's graph asks of a session: a picture's nodes and edges, and sending it in two steps.

First what would go where is told, and only then, with that answer's token, anything leaves the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .progress import Progress, Step
from .values import SpanRow

if TYPE_CHECKING:
    from .graphistry.connector import UploadPlan
    from .graphistry.parts import Summary
    from .replies import Operation
    from .session import Session

#: A picture is made of the newest spans, because it is made anew while the notebook runs.
MAX_SPANS = 10_000
#: The saved picture is made after each cell: its graph is of so many spans, and names so many traces.
_SAVED_SPANS, _SAVED_TRACES = 1000, 8
TOKEN_S = 600.0
#: Prepared and not sent: more are forgotten, the oldest first.
_MAX_PLANS = 4
_STAYS = ("prompts and answers", "attributes", "error messages", "paths", "host names")


def overview(session: Session) -> Summary:
    """The session's graph for a picture in a file: the newest thousand spans, the newest eight traces apart."""
    from .graphistry import summary

    return summary.session(session.spans.rows(last=_SAVED_SPANS), _SAVED_TRACES)


class Graphs:
    """The operations ``graph``, ``graph.prepare`` and ``graph.upload`` on ``session``, which may be a weak proxy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._plans: dict[str, tuple[UploadPlan, float]] = {}
        self._lock = threading.Lock()

    def operations(self) -> Mapping[str, Operation]:
        """They by their names."""
        return {"graph": self.draw, "graph.prepare": self.prepare, "graph.upload": self.upload}

    def draw(self, kind: str, trace_id: str | None = None, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """Nodes and edges of the session, or of a trace (the newest without ``trace_id``), with their places."""
        from .graphistry import summary
        from .views.diagram import diagram

        rows, left_out = self._rows(kind, trace_id)
        made = summary.session(rows) if kind == "session" else summary.trace(rows)
        shown = rows[0].trace_id if kind == "trace" and rows else None
        return {"kind": kind, "trace_id": shown, "spans": len(rows), **diagram(made, left_out)}

    def prepare(self, kind: str, trace_id: str | None = None, *, progress: Progress) -> dict[str, Any]:
        """What :meth:`upload` would send where; nothing is sent. Raises ExportError without credentials."""
        from .graphistry import connector
        from .graphistry.builders import session_graph, trace_tree

        rows, left_out = self._rows(kind, trace_id)
        if not rows:
            raise CommandError("there is no trace yet", hint="%llama chat Hello")
        progress(Step("making the tables"))
        plan = connector.prepare(session_graph(rows) if kind == "session" else trace_tree(rows))
        now = time.monotonic()
        with self._lock:
            alive = [(token, kept) for token, kept in self._plans.items() if kept[1] > now]
            self._plans = dict(alive[1 - _MAX_PLANS :]) | {plan.token: (plan, now + TOKEN_S)}
        return {
            "token": plan.token,
            "host": plan.host,
            "rows": {"nodes": plan.node_rows, "edges": plan.edge_rows},
            "columns": {"nodes": list(plan.node_columns), "edges": list(plan.edge_columns)},
            "private": True,
            "left_out": [*_STAYS, *left_out],
        }

    def upload(self, token: str, *, progress: Progress) -> dict[str, Any]:
        """Send what ``token`` stands for, private; the link to it. A token is good once, for ten minutes."""
        from .graphistry import connector

        with self._lock:
            plan, until = self._plans.pop(token, (None, 0.0))
        if plan is None or until < time.monotonic():
            raise CommandError(
                f"this export was sent before, or not confirmed within {TOKEN_S / 60:.0f} minutes; nothing was sent",
                hint="Export to Graphistry, again",
            )
        sent = connector.upload(plan, on_progress=progress)
        return {"url": sent.url, "host": plan.host}

    def _rows(self, kind: str, trace_id: str | None) -> tuple[Sequence[SpanRow], list[str]]:
        """The newest spans that are meant, and in words which are not among them."""
        spans = self._session.spans
        if kind == "session":
            rows, known = spans.rows(last=MAX_SPANS), spans.totals()["spans"]
        elif kind == "trace":
            if trace_id is None:
                last = spans.rows(last=1)
                trace_id = last[0].trace_id if last else ""
            found = spans.rows(trace_id=trace_id) if trace_id else []
            if trace_id and not found:
                raise CommandError(f"there is no trace {trace_id!r}", hint="%llama spans")
            rows, known = found[-MAX_SPANS:], len(found)
        else:
            raise CommandError(f"no graph of {kind!r}; there are session and trace", hint="%llama graph --help")
        return rows, [f"{known - len(rows):,} earlier spans"] if known > len(rows) else []

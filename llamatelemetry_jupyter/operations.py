"""What a dashboard's panes and buttons ask of the session: the operations behind :mod:`.replies`.

Each takes ``progress`` and its request's ``args`` as keywords and returns JSON-safe data; errors are LlamaErrors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import CommandError
from .graphs import Graphs
from .replies import Operation

if TYPE_CHECKING:
    from .session import Session

#: Tells the front end how far an operation is: a stage in words, and a part of 1 or ``None``.
Progress: TypeAlias = "Callable[[str, float | None], None]"


def of(session: Session) -> Mapping[str, Operation]:
    """The operations by their names, on ``session``, which may be a weak proxy."""
    return {"trace": partial(trace, session), **Graphs(session).operations()}


def trace(session: Session, trace_id: str, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """All spans of a trace, each with its attributes, and of a streamed answer the times between its tokens."""
    from .views.model import depths, span_dict

    rows = session.spans.rows(trace_id=trace_id)
    if not rows:
        raise CommandError(f"there is no trace {trace_id!r}", hint="%llama spans")
    depth = depths(rows)
    return {
        "spans": [
            span_dict(row, depth[row.trace_id, row.span_id])
            | {"attributes": dict(row.attributes), "gaps_s": session.spans.gaps(row.span_id)}
            for row in rows
        ]
    }

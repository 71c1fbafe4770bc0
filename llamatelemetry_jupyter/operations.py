"""What a dashboard's panes and buttons ask of the session: the operations behind :mod:`.replies`.

Each takes ``progress`` and its request's ``args`` as keywords and returns JSON-safe data; errors are LlamaErrors. They
run on threads of their own, beside a cell that may start or stop the same server: its manager holds the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .graphs import Graphs
from .progress import Progress, Step
from .replies import Operation

if TYPE_CHECKING:
    from .session import Session
    from .values import ServerHandle, SpanRow

_DEFAULT_MODEL = "smollm2-135m"
#: As far back as a sampler's ring reaches.
_LONGEST_S = 86_400.0
#: Samples of so long before and after a trace are drawn with it, and so many points of each.
_AROUND_NS = 1_500_000_000
_POINTS = 600
_CLIPBOARD_CHARACTERS = 2_000_000


def of(session: Session, model: str | None = None) -> Mapping[str, Operation]:
    """The operations by their names, on ``session``, which may be a weak proxy; ``model`` is what Start starts."""
    own = (history, otlp, span, trace, traces)
    return {
        **{operation.__name__: partial(operation, session) for operation in own},
        "server.restart": partial(restart, session),
        "server.start": partial(start, session, default=model or _DEFAULT_MODEL),
        "server.stop": partial(stop, session),
        **Graphs(session).operations(),
    }


def traces(session: Session, since_ms: float = 0, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """The newest 10,000 traces of which something ended at or after ``since_ms`` (Unix ms), as columns."""
    from .views.traces import trace_list

    return trace_list(session.spans.outlines(), int(since_ms * 1e6))


def trace(session: Session, trace_id: str, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """All spans of a trace with their attributes as far as there is room, and what the devices did meanwhile."""
    from .views.traces import trace as whole

    rows = _rows(session, trace_id)
    start_ns, end_ns = min(one.start_ns for one in rows), max(one.end_ns for one in rows)
    around = session.samples.window(start_ns - _AROUND_NS, end_ns + _AROUND_NS, _POINTS)
    return whole(rows, session.spans.gaps, around)


def span(session: Session, trace_id: str, span_id: str, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """The attributes of one span, for which there was no room in the answer of :func:`trace`."""
    from .views.traces import details

    for row in _rows(session, trace_id):
        if row.span_id == span_id:
            return details(row, session.spans.gaps)
    raise CommandError(f"there is no span {span_id!r} in that trace", hint="%llama spans")


def otlp(session: Session, trace_id: str, *, progress: Progress) -> str:  # noqa: ARG001
    """A trace as OTLP's JSON, for the clipboard."""
    from .telemetry import exchange, otlp_json
    from .telemetry.wire import from_row

    resource = exchange.own_resource()
    made = otlp_json.dumps([from_row(row, resource) for row in _rows(session, trace_id)])
    if len(made) > _CLIPBOARD_CHARACTERS:
        said = f"the trace is {len(made) / 1e6:.1f} MB of JSON, too much for a clipboard"
        raise CommandError(said, hint="%llama export spans.jsonl")
    return made


def _rows(session: Session, trace_id: str) -> Sequence[SpanRow]:
    rows = session.spans.rows(trace_id=trace_id)
    if not rows:
        raise CommandError(f"there is no trace {trace_id!r}", hint="%llama spans")
    return rows


def history(session: Session, window_s: float, *, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """A snapshot of the last ``window_s`` seconds, a day at most."""
    return session.snapshot(window_s=min(max(float(window_s), 1.0), _LONGEST_S))


def start(
    session: Session,
    model: str | None = None,
    name: str = "default",
    *,
    default: str = _DEFAULT_MODEL,
    progress: Progress,
) -> dict[str, Any]:
    """The server ``name``: the one that runs, else the one of before with its settings, else one of ``model``."""
    progress(Step("starting"))
    manager = session.manager_of(name)
    if (handle := manager.handle) is None:
        if model is None and manager.asked is not None:
            session.sampler.start()
            handle = manager.restart(progress)
        else:
            handle = session.start(_form(model or default, progress), name=name, on_progress=progress)
    return _told(handle)


def restart(session: Session, name: str = "default", *, progress: Progress) -> dict[str, Any]:
    """The server ``name`` anew, with the settings asked for last; an attached one is somebody else's to restart."""
    progress(Step("restarting"))
    manager = session.manager_of(name)
    if (handle := manager.handle) is not None and not handle.owned:
        raise CommandError(f"server {name!r} is attached: {handle.url}", hint="%llama stop")
    session.sampler.start()
    return _told(manager.restart(progress))


def stop(session: Session, name: str = "default", *, progress: Progress) -> dict[str, Any]:
    """Stop the server ``name``, also while it starts; an attached one is let go."""
    progress(Step("stopping"))
    session.stop(name)
    return {"state": session.manager_of(name).state()}


def _form(model: str, progress: Progress) -> str:
    from .models import catalogue
    from .server.available import free

    return catalogue.choose(model, free(), progress).model


def _told(handle: ServerHandle) -> dict[str, Any]:
    return {"name": handle.name, "model": handle.model.id if handle.model else None, "url": handle.url}

"""``lt.figures``: plotly figures of the session, to restyle or embed: ``lt.figures.memory().update_layout(…)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .session import current_session

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def memory(window_s: float = 600.0) -> Figure:
    """Memory by owner over the last ``window_s`` seconds, a panel per device."""
    from .views import plots

    return plots.memory(_snapshot(window_s))


def throughput(window_s: float = 600.0) -> Figure:
    """Tokens per second over the last ``window_s`` seconds, and each call's decode rate."""
    from .views import plots

    return plots.throughput(_snapshot(window_s))


def latency(session: str | None = None) -> Figure:
    """Time to the first token and of whole calls by model; of this ``session`` or of one before by its id."""
    from .telemetry.where import Where
    from .views import plots

    return plots.latency(current_session().recorded(session).select(Where()))


def waterfall(trace: str | None = None, session: str | None = None) -> Figure:
    """One trace by its id or the beginning of that; without one the last."""
    from .views import plots

    return plots.waterfall(current_session().recorded(session).trace(trace))


def compare(*sessions: str) -> Figure:
    """Sessions side by side by their ids (``%llama sessions``); ``"this"`` is the running one."""
    from .telemetry.sessions import run_of
    from .views import plots

    if len(sessions) < 2:
        raise CommandError("two or more sessions are compared", hint='lt.figures.compare("this", "ID")')
    found = current_session()
    return plots.compare([run_of(found.recorded(one), one) for one in sessions])


def _snapshot(window_s: float) -> dict[str, Any]:
    if not window_s > 0:
        raise CommandError(f"window_s must be positive, not {window_s}", hint="window_s=600")
    session = current_session()
    session.settle()
    return session.snapshot(window_s=window_s)

"""``lt.report``: the session as one interactive HTML file, that opens without a kernel, a server or a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from . import __version__, operations
from ._files import write_text
from .clock import now_ns
from .errors import CommandError, LlamaError
from .session import Session, current_session

_ENDING = ".html"
_DAY_S = 86_400.0
#: Details of so many traces go into a page, the newest, as long as they fit.
_TRACES, _TRACES_BYTES = 200, 2_000_000


def report(path: str | Path = "report.html", *, window_s: float | None = None, full: bool = False) -> Path:
    """Write the dashboard as it is now into ``path``; returns where it is.

    ``window_s``: the last so many seconds; without it the whole session, a day at most. Prompts, answers, paths and
    names of hosts are left out unless ``full``. Raises CommandError.
    """
    path = Path(path).expanduser()
    if path.suffix != _ENDING:
        raise CommandError(
            f"a report is a file that ends in {_ENDING}, not {path.name!r}", hint='lt.report("run.html")'
        )
    if window_s is not None and not 0 < window_s <= _DAY_S:
        raise CommandError(f"window_s is up to a day and positive, not {window_s}", hint="window_s=3600")
    session = current_session()
    session.settle()
    session.spans.flush()
    try:
        write_text(path, page_of(session, window_s or _since_start_s(session), full=full))
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", hint='lt.report("OTHER.html")') from error
    return path


def page_of(session: Session, window_s: float, *, full: bool) -> str:
    """The page of the last ``window_s`` seconds."""
    from .graphs import overview
    from .views.page import page
    from .views.static import static_html

    snapshot = session.snapshot(1200, window_s)
    answers = _answers(session, snapshot)
    if not full:
        snapshot, answers = _public(snapshot), _public(answers)
    when = datetime.fromtimestamp(snapshot["now_ms"] / 1e3).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006 (local time)
    return page(snapshot, answers, f"llamatelemetry {__version__} · {when}", static_html(snapshot, overview(session)))


def _since_start_s(session: Session) -> float:
    first = [row.start_ns for row in session.spans.rows()[:1]]
    first += [one.t_ns[0] for one in session.samples.window(now_ns() - int(_DAY_S * 1e9), now_ns(), 64).devices[:1]]
    return min(_DAY_S, max(60.0, (now_ns() - min(first)) / 1e9 + 1.0)) if first else 60.0


def _answers(session: Session, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What the page would ask, by :func:`.views.page.key`."""
    from .views.page import key

    known = operations.of(session)
    found = {
        key("traces"): known["traces"](progress=_nobody),
        key("graph", "session"): known["graph"](kind="session", progress=_nobody),
    }
    room = _TRACES_BYTES
    for trace_id in _newest(snapshot):
        with suppress(LlamaError):  # deleted meanwhile
            made = {
                key("trace", "", trace_id): known["trace"](trace_id=trace_id, progress=_nobody),
                key("graph", "trace", trace_id): known["graph"](kind="trace", trace_id=trace_id, progress=_nobody),
            }
            room -= len(json.dumps(made))
            if room < 0:
                break
            found |= made
    return found


def _newest(snapshot: Mapping[str, Any]) -> Iterator[str]:
    yield from list(dict.fromkeys(one["trace_id"] for one in reversed(snapshot["spans"])))[:_TRACES]


def _nobody(stage: str, fraction: float | None) -> None:
    """Progress that nobody watches."""


def _public(value: Any) -> Any:
    """The same without content, paths and names of hosts."""
    from .telemetry import privacy

    if isinstance(value, str):
        return privacy.anonymous(value)
    if isinstance(value, list):
        return [_public(one) for one in value]
    if isinstance(value, dict):
        return {
            name: privacy.public(inner) if name == "attributes" and isinstance(inner, dict) else _public(inner)
            for name, inner in value.items()
        }
    return value

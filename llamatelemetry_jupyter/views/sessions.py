"""Sessions as a list, and two of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ..telemetry.sessions import Run, SessionInfo
from .format import NA, count, rate, seconds, short, size
from .text import Table

_MODELS = 3


def sessions_table(sessions: Sequence[SessionInfo]) -> Table:
    """One session a row, the newest first."""
    headers = ("session", "began", "lasted", "models", "spans", "calls", "errors", "out", "size", "state")
    lines = tuple(
        (
            one.id,
            _moment(one.start_ns),
            seconds((one.end_ns - one.start_ns) / 1e9) if one.start_ns is not None and one.end_ns is not None else NA,
            _models(one.models),
            *(count(one.totals.get(name)) for name in ("spans", "calls", "errors", "output_tokens")),
            size(one.size_bytes),
            _state(one),
        )
        for one in sessions
    )
    right = frozenset({"lasted", "spans", "calls", "errors", "out", "size"})
    return Table(headers, lines, right, "no sessions yet; try: %llama chat Hello")


def _state(one: SessionInfo) -> str:
    if one.problem:
        return f"cannot be read: {short(one.problem, 60)}"
    dropped = f", {one.totals['dropped']:,} spans dropped" if one.totals.get("dropped") else ""
    return ("running" if one.running else "ended") + dropped


def _moment(t_ns: int | None) -> str:
    return NA if t_ns is None else f"{datetime.fromtimestamp(t_ns / 1e9).astimezone():%Y-%m-%d %H:%M}"


def _models(models: Sequence[str]) -> str:
    more = f" and {len(models) - _MODELS} more" if len(models) > _MODELS else ""
    return ", ".join(short(model, 40) for model in models[:_MODELS]) + more


_FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("calls", "calls", count),
    ("errors", "errors", count),
    ("input tokens", "input_tokens", count),
    ("output tokens", "output_tokens", count),
    ("tokens/s (median)", "decode_tokens_per_s", rate),
    ("first token (median)", "ttft_s", seconds),
    ("first token (p95)", "ttft_p95_s", seconds),
    ("a call (median)", "duration_s", seconds),
    ("memory at most", "peak_bytes", size),
    ("energy of the calls", "energy_j", lambda value: NA if value is None else f"{value:,.1f} J"),
    ("energy per token", "energy_per_token_j", lambda value: NA if value is None else f"{value:,.2f} J"),
)


def runs_table(a: Run, b: Run) -> Table:
    """Two sessions: models, figures with the second's change, and settings that either has."""
    first, second = ("A", "B") if a.id == b.id else (a.id, b.id)
    lines = [("models", _models(a.models) or NA, _models(b.models) or NA, _differs(a.models, b.models))]
    for label, name, shown in _FIGURES:
        one, other = getattr(a, name), getattr(b, name)
        lines.append((label, shown(one), shown(other), _change(one, other)))
    for name in sorted({*a.settings, *b.settings}):
        one, other = a.settings.get(name), b.settings.get(name)
        lines.append((short(name, 48), short(one or NA, 48), short(other or NA, 48), _differs(one, other)))
    return Table(("figure", first, second, "change"), tuple(lines), frozenset({"change"}))


def _differs(one: object, other: object) -> str:
    return "" if one == other else "differs"


def _change(one: float | None, other: float | None) -> str:
    if one is None or other is None or one == other:
        return ""
    return f"{(other / one - 1) * 100:+.0f} %".replace("-", "−") if one else "differs"

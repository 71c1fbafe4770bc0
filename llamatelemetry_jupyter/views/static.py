"""The dashboard for readers without a kernel: a picture and the same numbers as a table, no script, no network.

An ``<img>`` with an SVG data URI and a plain HTML table are the two forms that survive everywhere: JupyterLab strips
inline SVG from a notebook that is not trusted, and exported HTML blanks widgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..graphistry.parts import Summary
from ..telemetry import figures
from . import svg, theme
from .format import NA, clock, count, rate, seconds, short, since, size, state, used, watts
from .graph import session_html
from .picture import picture
from .text import CALL_FIGURES, Table

MAX_BYTES = 150_000
_GRAPH_BYTES = 50_000
_MAX_DEVICES = 9
_LAST_CALLS = 8
#: Rows of the table of the server → the figure that they begin with.
_STATUS_FIGURES = {
    "slots": "slots_busy",
    "context": "kv_tokens",
    "last call": "decode_tokens_per_s",
    "power": "power_w",
    "calls": "calls",
    "spans": "spans",
    **{f"  {style['label']}": owner for owner, style in theme.OWNERS.items()},
}


def static_html(snapshot: Mapping[str, Any], graph: Summary | None = None) -> str:
    """The picture and its numbers as tables, in under 150 kB of HTML without script or style sheet.

    ``graph`` is the session's (:func:`..graphistry.summary.session`), drawn below them.
    """
    alt = _alt(snapshot)
    tables = [status_table(snapshot)]
    if (calls := calls_table(snapshot)).rows:
        tables.append(calls)
    made_of = [one._repr_html_() for one in tables]
    if graph is not None and graph.parts:
        made_of.append(session_html(graph, _GRAPH_BYTES))
    below = "".join(f'<div style="margin-top:8px">{one}</div>' for one in made_of)
    below = f'<div style="font-size:12px">{below}</div>'
    for points, rows in ((240, 18), (120, 18), (60, 12), (24, 6)):
        made = svg.image(picture(snapshot, max_points=points, max_rows=rows), alt) + below
        if len(made.encode("utf-8", "replace")) < MAX_BYTES:
            return made
    return svg.image(svg.document("", 1, 1), alt) + below


def static_text(snapshot: Mapping[str, Any]) -> str:
    """The same numbers as aligned text of at most 100 columns."""
    calls = calls_table(snapshot)
    return f"{status_table(snapshot)}\n\n{calls}" if calls.rows else str(status_table(snapshot))


def calls_table(snapshot: Mapping[str, Any]) -> Table:
    """The newest calls in the snapshot, the newest last."""
    calls = [s for s in snapshot["spans"] if theme.span_kind(s["name"]) == "chat"][-_LAST_CALLS:]
    return Table(
        ("time", "call", "took", "in", "cached", "out", "tokens/s", "first token", "J", "status"),
        tuple(
            (
                clock(s["start_ms"]),
                short(s["name"], 24),
                seconds((s["end_ms"] - s["start_ms"]) / 1e3),
                count(s["input_tokens"]),
                count(s["cached_tokens"]),
                count(s["output_tokens"]),
                rate(s["decode_tokens_per_s"]),
                seconds(s["ttft_s"]),
                rate(s["energy_j"]),
                short(s["error_type"] or "error", 16) if s["status"] == "error" else "ok",
            )
            for s in calls
        ),
        frozenset(("took", *CALL_FIGURES)),
        "no calls yet; try: %llama chat Hello",
        figures.titles({"took": "duration_s", **CALL_FIGURES}),
    )


def status_table(snapshot: Mapping[str, Any]) -> Table:
    """Server, memory by owner and totals, one figure a row."""
    server, totals, titles = snapshot["server"], snapshot["totals"], figures.titles(_STATUS_FIGURES)
    rows: list[tuple[str, str]] = []
    if server is None:
        rows.append(("server", "none; try: %llama start"))
    else:
        kv = f"KV cache holds {_na(server['kv_tokens'])}"
        per_slot = f"{_na(server['ctx_per_slot'])} tokens per slot, " if server["ctx_per_slot"] else ""
        last = (
            f"{rate(server['decode_tokens_per_s'])} tokens/s, prefill {rate(server['prefill_tokens_per_s'])} tokens/s, "
            f"first token {seconds(server['ttft_s'])}"
        )
        rows.append(("server", f"{short(server['model'] or NA, 56)}, {state(server)}"))
        rows += [(name, _na(server[key])) for name, key in (("engine", "engine"), ("address", "url")) if server[key]]
        busy = f"{_na(server['slots_busy'])} of {_na(server['slots'])} busy, {_na(server['queued'])} waiting"
        if server.get("since_ms") is not None:
            busy, kv = since(server["since_ms"]), f"KV cache {since(server['since_ms'])}"
        rows += [("slots", busy), ("context", per_slot + kv), ("last call", last if server["ttft_s"] else "none yet")]
    if any(device["id"] != "host" for device in snapshot["devices"]):
        rows.append(("power", watts(snapshot["devices"])))
    if (silent := snapshot.get("since_ms")) is not None:
        rows.append(("readings", f"{since(silent)}: the sampler is silent"))
    tokens = f"{count(totals['input_tokens'])} → {count(totals['output_tokens'])} tokens"
    rows.append(("calls", f"{count(totals['calls'])} ({tokens}), {count(totals['errors'])} errors"))
    rows.append(("spans", f"{totals['spans']} in {totals['traces']} traces"))
    for device in snapshot["devices"][:_MAX_DEVICES]:
        rows.append((f"{device['name']}", used(device)))
        for owner in device["owners"]:
            if owner["owner"] != "free" and owner["bytes"]:
                filled = f", {size(owner['filled_bytes'])} filled" if owner.get("filled_bytes") is not None else ""
                guess = " (estimate)" if owner["source"] == "estimate" else ""
                name, kind = f"  {owner['label']}", f"  {theme.OWNERS[owner['owner']]['label']}"
                rows.append((name, f"{size(owner['bytes'])}{filled}{guess}"))
                if kind in titles:  # a name may say more: this kernel: torch
                    titles[name] = titles[kind]
    return Table(("what", "now"), tuple(rows), titles=titles)


def _alt(snapshot: Mapping[str, Any]) -> str:
    server, totals = snapshot["server"], snapshot["totals"]
    what = f"{short(server['model'] or 'model n/a', 60)} {server['state']}" if server else "no server"
    figures = ", ".join(f"{totals[k]} {k.replace('_', ' ')}" for k in ("calls", "output_tokens", "spans"))
    return f"Dashboard of {what}: {figures}. The tables below hold the same numbers."


def _na(value: object) -> str:
    return NA if value is None else short(value, 78)

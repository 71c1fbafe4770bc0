"""Colours, patterns and names of everything that is drawn, once for all views.

``js/src/theme.js`` holds the same tables (a test compares them). Hues follow Okabe and Ito's palette for colour-blind
readers, darkened on light pages and lightened on dark ones until each stands out by 3:1 or more (WCAG 1.4.11; a test
computes it). Colour is never the only sign: owners have a pattern too, spans and states a shape or a word.
"""

from __future__ import annotations

from typing import Literal, TypedDict

SpanKind = Literal["cell", "chat", "queue", "prefill", "decode", "error", "other"]


class OwnerStyle(TypedDict):
    """How an owner of memory looks; ``pattern`` names one of :data:`PATTERNS`."""

    label: str
    light: str
    dark: str
    pattern: str


class SpanStyle(TypedDict):
    """How a kind of span looks; ``shape`` is its mark in a graph."""

    label: str
    light: str
    dark: str
    shape: str


#: Backgrounds that the colours are checked against: white and JupyterLab's, VS Code's dark page.
LIGHT_BACKGROUNDS = ("#ffffff", "#fbfbfa")
DARK_BACKGROUNDS = ("#111111", "#1e1e1e")

#: Pattern tiles are 8 × 8 px: these lines and dots in the page's colour over the owner's colour.
PATTERNS: dict[str, str] = {
    "solid": "",
    "diagonal": "M-2 2L2 -2M0 8L8 0M6 10L10 6",
    "antidiagonal": "M-2 6L2 10M0 0L8 8M6 -2L10 2",
    "horizontal": "M0 4H8",
    "vertical": "M4 0V8",
    "grid": "M0 4H8M4 0V8",
    "cross": "M0 0L8 8M8 0L0 8",
    "dots": "M2 2h1M6 6h1",
    "sparse": "M4 4h1",
}

OWNERS: dict[str, OwnerStyle] = {
    "weights": {"label": "weights", "light": "#0072b2", "dark": "#56b4e9", "pattern": "solid"},
    "kv": {"label": "KV cache", "light": "#c44e00", "dark": "#ee7a30", "pattern": "diagonal"},
    "compute": {"label": "compute buffers", "light": "#00866a", "dark": "#2fc39a", "pattern": "dots"},
    "output": {"label": "output buffer", "light": "#b5629a", "dark": "#e08fbf", "pattern": "cross"},
    "context": {"label": "engine itself", "light": "#5b6fc0", "dark": "#93a3ee", "pattern": "horizontal"},
    "kernel": {"label": "this kernel", "light": "#8f7000", "dark": "#e6b422", "pattern": "vertical"},
    "other": {"label": "other processes", "light": "#6e6e6e", "dark": "#a8a8a8", "pattern": "grid"},
    "unknown": {"label": "not attributed", "light": "#83807b", "dark": "#8f8c87", "pattern": "antidiagonal"},
    "free": {"label": "free", "light": "#8c8c8c", "dark": "#7d7d7d", "pattern": "sparse"},
}

SPANS: dict[str, SpanStyle] = {
    "cell": {"label": "cell", "light": "#5f6b76", "dark": "#9aa7b3", "shape": "square"},
    "chat": {"label": "request", "light": "#0072b2", "dark": "#56b4e9", "shape": "circle"},
    "queue": {"label": "queue", "light": "#8f7000", "dark": "#e6b422", "shape": "triangle"},
    "prefill": {"label": "prefill", "light": "#b5629a", "dark": "#e08fbf", "shape": "diamond"},
    "decode": {"label": "decode", "light": "#00866a", "dark": "#2fc39a", "shape": "hexagon"},
    "error": {"label": "error", "light": "#c62f1d", "dark": "#ff7a66", "shape": "cross"},
    "other": {"label": "other span", "light": "#6e6e6e", "dark": "#a8a8a8", "shape": "circle"},
}

#: What a session's graph has besides spans.
NODES: dict[str, SpanStyle] = {
    "notebook": {"label": "notebook", "light": "#3f4851", "dark": "#c3ccd5", "shape": "page"},
    "trace": {"label": "trace", "light": "#5b6fc0", "dark": "#93a3ee", "shape": "ring"},
    "model": {"label": "model", "light": "#c44e00", "dark": "#ee7a30", "shape": "star"},
    "device": {"label": "device", "light": "#8f7000", "dark": "#e6b422", "shape": "chip"},
}

#: Marks around (0, 0), 13 px wide.
SHAPES: dict[str, str] = {
    "square": "M-5.5-5.5h11v11h-11z",
    "circle": "M0-6.5a6.5 6.5 0 1 0 .01 0z",
    "triangle": "M0-6.5L6.5 5.5H-6.5z",
    "diamond": "M0-7.5L7.5 0L0 7.5L-7.5 0z",
    "hexagon": "M-3.5-6h7l3.5 6l-3.5 6h-7l-3.5-6z",
    "cross": "M-5-5L5 5M5-5L-5 5",
    "page": "M-5-6.5h6.5l3.5 3.5v9.5h-10z",
    "ring": "M0-6.5a6.5 6.5 0 1 0 .01 0zM0-3a3 3 0 1 1-.01 0z",
    "star": "M0-7L2-2.3L7-2L3.1 1.3L4.4 6.3L0 3.5L-4.4 6.3L-3.1 1.3L-7-2L-2-2.3z",
    "chip": "M-4-4h1.5v-2.5h1.5v2.5h2v-2.5h1.5v2.5h1.5v8h-1.5v2.5h-1.5v-2.5h-2v2.5h-1.5v-2.5h-1.5z",
}

#: Server states: a sign beside the word, so that colour is not needed.
STATES: dict[str, str] = {
    "starting": "◌",
    "loading": "◌",
    "ready": "●",
    "generating": "▶",
    "sleeping": "◑",
    "crashed": "✕",
    "stopped": "■",
    "unreachable": "?",
}

_PHASES: dict[str, SpanKind] = {"queue": "queue", "prefill": "prefill", "decode": "decode"}
#: ``request`` is another client's, seen in the server's log.
_OPERATIONS = {"chat", "text_completion", "generate_content", "embeddings", "rerank", "request"}


def span_kind(name: str) -> SpanKind:
    """The kind of a span by its name: ``notebook cell`` → cell, ``chat smollm2`` → chat, ``decode`` → decode."""
    first, _, rest = name.partition(" ")
    if first in _OPERATIONS:
        return "chat"
    if first == "cell" or (first == "notebook" and rest.startswith("cell")):
        return "cell"
    return _PHASES.get(name, "other")

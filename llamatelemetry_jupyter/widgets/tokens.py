"""The tokens' widget: what is synchronised with its front end, and nothing else."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

_STATIC = Path(__file__).with_name("static")


class TokensWidget(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is skipped by mypy
    """Shows :meth:`..views.tokens.Tokens.snapshot`, which never changes; ``js/src/tokens.js`` is its source."""

    _esm = _STATIC / "tokens.js"
    _css = _STATIC / "tokens.css"

    snapshot = traitlets.Dict().tag(sync=True)
    #: Id of the static strip that the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)

    def __repr__(self) -> str:
        return "llamatelemetry tokens (live; a page without widgets shows the strip beside it)"

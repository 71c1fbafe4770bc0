"""The tokens' widget: what is synchronised with its front end, and nothing else."""

from __future__ import annotations

import traitlets

from .base import STATIC, Widget


class TokensWidget(Widget):
    """Shows :meth:`..views.tokens.Tokens.snapshot`, which never changes; ``js/src/tokens.js`` is its source."""

    _esm = STATIC / "tokens.js"
    _css = STATIC / "tokens.css"

    snapshot = traitlets.Dict().tag(sync=True)
    #: Id of the static strip that the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)

    def __repr__(self) -> str:
        return "llamatelemetry tokens (live; a page without widgets shows the strip beside it)"

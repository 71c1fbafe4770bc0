"""The dashboard's widget: what is synchronised with its front end, and nothing else.

Imported only when a dashboard is shown: anywidget takes a fifth of a second to load.
"""

from __future__ import annotations

import traitlets

from .base import STATIC, LiveWidget


class Dashboard(LiveWidget):
    """Shows ``snapshot`` (views.model) and the live messages of a feed; ``js/src`` is its source."""

    _esm = STATIC / "dashboard.js"
    _css = STATIC / "dashboard.css"

    snapshot = traitlets.Dict().tag(sync=True)
    #: Number of the newest message that ``snapshot`` includes; the front end drops what is older.
    seq = traitlets.Int(0).tag(sync=True)
    #: Id of the static picture that the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)

    def __repr__(self) -> str:
        return "llamatelemetry dashboard (live; a page without widgets shows the picture beside it)"

"""The dashboard's widget: what is synchronised with its front end, and nothing else.

Imported only when a dashboard is shown: anywidget takes a fifth of a second to load.
"""

from __future__ import annotations

from collections.abc import Callable

import traitlets

from .base import STATIC, Widget


class Dashboard(Widget):
    """Shows ``snapshot`` (views.model) and the live messages of a feed; ``js/src`` is its source."""

    _esm = STATIC / "dashboard.js"
    _css = STATIC / "dashboard.css"

    snapshot = traitlets.Dict().tag(sync=True)
    #: Number of the newest message that ``snapshot`` includes; the front end drops what is older.
    seq = traitlets.Int(0).tag(sync=True)
    #: Id of the static picture that the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)

    #: What gives the traits of now to a front end that comes later: a page that is loaded again, a second tab.
    now: Callable[[], dict[str, object]] | None = None

    def get_state(self, key: object = None, drop_defaults: bool = False) -> dict[str, object]:
        """The synchronised traits; all of them at once is what a front end asks for that has nothing yet."""
        state: dict[str, object] = super().get_state(key=key, drop_defaults=drop_defaults)
        return state | self.now() if key is None and self.now is not None else state

    def __repr__(self) -> str:
        return "llamatelemetry dashboard (live; a page without widgets shows the picture beside it)"

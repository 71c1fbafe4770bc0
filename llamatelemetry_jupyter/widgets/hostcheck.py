"""The widget of ``%llama doctor --host``: what is synchronised with its front end, and nothing else."""

from __future__ import annotations

import traitlets

from .base import STATIC, Widget


class HostCheckWidget(Widget):
    """Shows the ``report`` and answers what only a page can see; ``js/src/hostcheck.js`` is its source."""

    _esm = STATIC / "hostcheck.js"
    _css = STATIC / "hostcheck.css"

    report = traitlets.Unicode("").tag(sync=True)
    #: Id of the same report as an output of its own, which the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)

    def __repr__(self) -> str:
        return "llamatelemetry host check (live; a page without widgets shows the report beside it)"

"""``%llama dashboard``: the live widget, and beside it the picture that survives a save."""

from __future__ import annotations

import argparse
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import environment
from ...errors import CommandError
from ...views.static import static_html, static_text
from .. import defaults
from ..parser import Parser

if TYPE_CHECKING:
    from ...feed import Feed
    from ...session import Session
    from ...widgets.dashboard import Dashboard

_WINDOW_S, _LONGEST_S = 120.0, 86_400.0


def configure(parser: Parser) -> None:
    """How far back, and in which form."""
    parser.add_argument("--window", type=float, metavar="S", help="seconds shown (120)")
    parser.add_argument("--static", action="store_true", help="only the picture, no live widget")


def run(session: Session, args: argparse.Namespace) -> None:
    """Show memory by owner, tokens/s, slots and spans on one time axis."""
    defaults.fill(session.shell, args, "window")
    window_s = _WINDOW_S if args.window is None else args.window
    if not 0 < window_s <= _LONGEST_S:
        said = f"--window is in seconds, up to a day, not {window_s:g}"
        raise CommandError(said, hint="%llama dashboard --window 600")
    session.sampler.start()
    where = environment.detect()
    _Shown(session, window_s, live=where.kernel and not where.batch and not args.static).show(where.kernel)


class _Shown:
    """One dashboard on the page: a widget while the kernel lives, a picture for everybody who comes later."""

    def __init__(self, session: Session, window_s: float, *, live: bool) -> None:
        self.session = weakref.proxy(session)
        self.window_s = window_s
        self.live = live
        self.id = uuid.uuid4().hex
        self.widget: Dashboard | None = None
        self.feed: Feed | None = None
        self.drawn: object = None
        self._forget: Callable[[], None] = lambda: None

    def snapshot(self) -> dict[str, Any]:
        """What there is to show now."""
        found: dict[str, Any] = self.session.snapshot(window_s=self.window_s)
        return found

    def state(self, most_spans: int) -> dict[str, Any]:
        """What there is to say of now."""
        found: dict[str, Any] = self.session.state(most_spans)
        return found

    def watched(self) -> object:
        """What managers know of their servers' starts and ends, before a sample can tell."""
        return self.session.statuses()

    def show(self, kernel: bool) -> None:
        from IPython.display import display

        snapshot = self.snapshot()
        if not kernel:
            print(static_text(snapshot))
            return
        if self.live:
            self._show_widget(snapshot)
        display(self._bundle(snapshot), raw=True, display_id=self.id)
        self._forget = self.session.on_refresh(self.refresh)
        # A cell that is run again replaces its own; where the host does not tell which cell that is, there is one.
        self.session.hold(f"dashboard {self.session.cell_id}", self)

    def close(self) -> None:
        """End the live part; the picture stays where it is, with its last state."""
        self._forget()
        if self.feed is not None:
            self.feed.stop()
        if self.widget is not None:
            self.widget.close()

    def _show_widget(self, snapshot: dict[str, Any]) -> None:
        from IPython.display import display

        from ... import operations
        from ...feed import Feed
        from ...replies import Replies
        from ...widgets.dashboard import Dashboard

        self.widget = Dashboard(snapshot=snapshot, static_id=self.id)
        display(self.widget)
        sources = (self.session.samples, self.session.spans)
        self.feed = Feed(self.snapshot, self.state, *sources, self.widget.send, watch=self.watched)
        self.widget.now = self.feed.now
        self.widget.on_msg(self.feed.on_message)
        known = operations.of(self.session, defaults.of(self.session.shell).model)
        replies = Replies(self.widget.send, known, threads=self.feed.live)
        self.widget.on_msg(replies.on_message)
        self.feed.start()

    def refresh(self) -> None:
        """At the end of a cell: the picture and the trait follow what happened, and only then."""
        snapshot = self.snapshot()
        server = snapshot["server"]
        state = (snapshot["totals"]["spans"], server and (server["name"], server["state"], server["url"]))
        if state == self.drawn:
            return
        self.drawn = state
        self.session.settle()
        snapshot = self.snapshot()
        from IPython.display import update_display

        update_display(self._bundle(snapshot), raw=True, display_id=self.id)
        if self.widget is not None and self.feed is not None:
            self.feed.refresh(self.widget, snapshot)

    def _bundle(self, snapshot: dict[str, Any]) -> dict[str, str]:
        # The widget's style sheet hides this element while the widget is alive on the same page.
        from ...graphs import overview

        html = f'<div data-llamatelemetry-static="{self.id}">{static_html(snapshot, overview(self.session))}</div>'
        return {"text/html": html, "text/plain": static_text(snapshot)}

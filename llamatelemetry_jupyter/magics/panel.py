"""The chat on the page: a widget while the kernel lives, a transcript for everybody who comes later."""

from __future__ import annotations

import argparse
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..conversation import Conversation
from ..errors import CommandError
from ..views import transcript
from .output import watched

if TYPE_CHECKING:
    from ..session import Session
    from ..widgets.chat import ChatWidget


def show(session: Session, args: argparse.Namespace) -> None:
    """Show a chat with the server that ``args`` name; a cell that is run again goes on with its own."""
    if not watched(session.request):
        print(transcript.static_text(()))  # nobody is there to type into a widget
        return
    if _cannot_send():
        raise CommandError("this ipykernel cannot send from a thread", hint="pip install -U 'ipykernel>=7.1'")
    cell = session.cell_id
    key = f"chat {cell or uuid.uuid4().hex}"
    before: Panel | None = session.held(key)
    asked = {"model": args.model, "server": args.server}
    if before is None or before.asked != asked:
        parameters = {name: getattr(args, name) for name in ("system", "temperature", "max_tokens", "seed")}
        conversation = Conversation(weakref.proxy(session), parameters=parameters, **asked)
    else:
        conversation = before.conversation
        before.leave()
    panel = Panel(session, conversation, asked, cell)
    session.hold(key, panel)
    panel.show()


def _cannot_send() -> bool:
    ipykernel = sys.modules.get("ipykernel")
    return ipykernel is not None and tuple(ipykernel.version_info[:2]) == (7, 0)


class Panel:
    """One widget of a conversation and its static twin."""

    def __init__(self, session: Session, conversation: Conversation, asked: Mapping[str, Any], cell: str) -> None:
        self.conversation = conversation
        self.asked = dict(asked)
        self._session = weakref.proxy(session)
        self._cell = cell
        self._id = uuid.uuid4().hex
        self._widget: ChatWidget | None = None
        self._lock = threading.Lock()
        self._kept: object = None
        self._left = False
        self._forget: Callable[[], None] = lambda: None

    def show(self) -> None:
        """Display both."""
        from IPython.display import display

        from ..replies import Replies
        from ..widgets.chat import ChatWidget

        self._session.telemetry  # noqa: B018 (made here: two threads that need it first would make two)
        self._widget = widget = ChatWidget(
            turns=self.conversation.shown(), about=self.conversation.about(), static_id=self._id, cell_id=self._cell
        )
        display(widget)
        display(self._bundle(), raw=True, display_id=self._id)
        widget.on_msg(Replies(widget.send, self.operations()).on_message)
        self.conversation.listener = self
        self._forget = self._session.on_refresh(self.refresh)
        self.changed()  # an answer of before that went on meanwhile

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """What the front end may ask for; each takes ``progress`` beside its own arguments."""
        talk = self.conversation
        return {
            "chat.send": lambda text, progress, at=None, parameters=None: talk.send(  # noqa: ARG005
                text, at=at, parameters=parameters
            ),
            "chat.stop": lambda progress: talk.stop(),  # noqa: ARG005
            "chat.clear": lambda progress: talk.clear(),  # noqa: ARG005
            "chat.about": lambda progress: talk.about(),  # noqa: ARG005
            "chat.turn": lambda turn, progress: talk.turn(turn),  # noqa: ARG005
            "chat.cells": lambda progress: self._cells(),  # noqa: ARG005
        }

    def changed(self) -> None:
        """Of the conversation, on any thread: both follow."""
        self._synchronise()
        if not self.conversation.running:
            self._keep()

    def piece(self, message: dict[str, Any]) -> None:
        """Text came."""
        if self._widget is not None and self._widget.comm is not None:
            self._widget.send(message)

    def refresh(self) -> None:
        """At the end of a cell: another server may run by now."""
        self._synchronise()
        self._keep()

    def leave(self) -> None:
        """End the live part and leave the conversation, which another panel goes on with."""
        self._left = True
        self._forget()
        if self.conversation.listener is self:
            self.conversation.listener = None
        if self._widget is not None:
            self._widget.close()

    def close(self) -> None:
        """End the answer of now and the live part; the transcript stays on the page."""
        if not self._left:
            self.conversation.close()
            self.leave()

    def _synchronise(self) -> None:
        # One thread at a time, and only Python sets them: traits are not made for threads.
        with self._lock:
            if self._widget is None or self._widget.comm is None:
                return
            with self._widget.hold_sync():
                self._widget.turns = self.conversation.shown()
                self._widget.about = self.conversation.about()

    def _keep(self) -> None:
        """Bring the static twin up to date; after a page was loaded again its host drops this until the cell runs."""
        from IPython.display import update_display

        bundle = self._bundle()
        if bundle != self._kept:
            self._kept = bundle
            update_display(bundle, raw=True, display_id=self._id)

    def _bundle(self) -> dict[str, str]:
        turns = self.conversation.shown()
        html = f'<div data-llamatelemetry-static="{self._id}">{transcript.static_html(turns)}</div>'
        return {"text/html": html, "text/plain": transcript.static_text(turns)}

    def _cells(self) -> dict[str, Any]:
        made = transcript.cells(self.conversation.shown(), self.conversation.parameters)
        return {"cells": made, "text": transcript.percent(made)}

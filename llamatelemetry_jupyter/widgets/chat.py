"""The chat's widget: what is synchronised with its front end, and nothing else."""

from __future__ import annotations

import traitlets

from .base import STATIC, Widget


class ChatWidget(Widget):
    """Shows the turns of a :class:`..conversation.Conversation`; ``js/src/chat.js`` is its source.

    ``turns`` holds them as they were when one was last added or had ended; pieces of text come as messages.
    """

    _esm = STATIC / "chat.js"
    _css = STATIC / "chat.css"

    turns: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    #: Who answers, and with which parameters (``Conversation.about``).
    about = traitlets.Dict().tag(sync=True)
    #: Id of the static transcript that the front end hides while the widget lives.
    static_id = traitlets.Unicode("").tag(sync=True)
    #: Id of the notebook's cell that shows it, where the host told: exported cells go below it.
    cell_id = traitlets.Unicode("").tag(sync=True)

    def __repr__(self) -> str:
        return "llamatelemetry chat (live; a page without widgets shows the transcript beside it)"

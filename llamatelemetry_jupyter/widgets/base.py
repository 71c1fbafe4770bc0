"""What all widgets of this package are: anywidgets whose messages arrive, and whose end leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import anywidget

#: Where the built bundles lie.
STATIC = Path(__file__).with_name("static")


class Widget(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is skipped by mypy
    """A widget whose messages go to the subshell that their page named, and that closes its layout with itself.

    ipykernel 7.4 sends a comm's messages to the subshell that it last answered; when that one is gone, because its page
    was reloaded or closed, it drops them, whoever sent them. JupyterLab gives each page a subshell of its own.
    ipywidgets leaves the layout's comm open, one more each time a cell is run again.
    """

    def open(self) -> None:
        """Open the comm, and let its messages keep the subshell of their header."""
        super().open()
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = _as_sent

    def close(self) -> None:
        """End both comms; a second time it does nothing."""
        layout = self.layout
        super().close()
        layout.close()


def _as_sent(_data: object, subshell_id: str | None) -> str | None:
    return subshell_id

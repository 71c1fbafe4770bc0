"""What all widgets of this package are: anywidgets whose end leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import anywidget

#: Where the built bundles lie.
STATIC = Path(__file__).with_name("static")


class Widget(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is skipped by mypy
    """Closes its layout with itself: ipywidgets leaves that one's comm open, one more each time a cell is run again."""

    def close(self) -> None:
        """End both comms; a second time it does nothing."""
        layout = self.layout
        super().close()
        layout.close()

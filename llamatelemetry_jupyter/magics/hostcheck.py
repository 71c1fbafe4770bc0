"""``%llama doctor --host``: what this notebook's page can do, found out by doing it, as one block of text to copy.

A kernel cannot see its page. So a small widget tells what it is and answers what it is sent, and what never answers is
reported as that: the block is right also where no widget is shown at all.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import environment, escape

if TYPE_CHECKING:
    from ..session import Session
    from ..widgets.hostcheck import HostCheckWidget

#: Every value of a byte, the same in js/src/hostcheck.js.
_BYTES = bytes(range(256))
_PACKAGES = ("llamatelemetry-jupyter", "ipython", "ipykernel", "ipywidgets", "anywidget", "traitlets")
_MARK = "data-llamatelemetry-static"
_NO_ANSWER = "no answer"
_LONGEST = 200


def show(session: Session) -> None:
    """Show the report; its lines follow as the page answers, on old kernels after the cell has ended."""
    if not environment.detect().kernel:
        print(HostCheck(session).report())
        return
    check = HostCheck(session)
    session.hold(f"host check {session.cell_id}", check)
    check.show()


class HostCheck:
    """One report, its widget and its static twin."""

    def __init__(self, session: Session) -> None:
        self._id = uuid.uuid4().hex
        self._widget: HostCheckWidget | None = None
        self._page: Mapping[str, Any] = {}
        self._answers: dict[str, bool] = {}
        self._saved = _saved(session)

    def show(self) -> None:
        """Display both."""
        from IPython.display import display

        from ..widgets.hostcheck import HostCheckWidget

        self._widget = HostCheckWidget(report=self.report(), static_id=self._id)
        self._widget.on_msg(self.on_message)
        display(self._widget)
        display(self._bundle(updated=False), raw=True, display_id=self._id)

    def close(self) -> None:
        """End the live part; the report stays on the page."""
        if self._widget is not None:
            self._widget.close()

    def on_message(self, _widget: object, content: object, buffers: Sequence[Any] | None = None) -> None:
        """What the page tells: of itself, of the bytes that it was sent, and of the output beside the widget."""
        if self._widget is None or not isinstance(content, Mapping):
            return
        operation = content.get("op")
        if operation == "page":
            self._page = content
            self._answers["bytes, page to kernel"] = [bytes(one) for one in buffers or ()] == [_BYTES]
            self._widget.send({"type": "bytes"}, [_BYTES])
        elif operation == "heard":
            self._answers["bytes, kernel to page"] = content.get("equal") is True
        elif operation == "twin":
            for name in ("there", "hidden", "updated"):
                self._answers[f"twin {name}"] = content.get(name) is True
        else:
            return
        from IPython.display import update_display

        self._widget.report = self.report()
        update_display(self._bundle(updated=True), raw=True, display_id=self._id)

    def report(self) -> str:
        """The block: a line for each thing, what was found behind it."""
        page, answers = self._page, self._answers
        where = environment.detect()
        width = page.get("width_px")
        theme = f"{_text(page.get('theme'))}, by {_text(page.get('marks'))}" if page else _NO_ANSWER
        disagrees = ", but the page's own colour is another" if page and page.get("agrees") is not True else ""
        lines = (
            ("host", " ".join(filter(None, (where.host, _text(page.get("application")))))),
            ("kernel", f"Python {platform.python_version()}, " + ", ".join(_versions())),
            ("browser", _text(page.get("agent")) or _NO_ANSWER),
            ("widget is shown", f"yes, {width:.0f} px wide" if isinstance(width, (int, float)) else _NO_ANSWER),
            ("page to kernel", "yes" if page else _NO_ANSWER),
            ("kernel to page", "yes" if "bytes, kernel to page" in answers else _NO_ANSWER),
            *((name, self._word(name)) for name in ("bytes, page to kernel", "bytes, kernel to page")),
            ("theme", theme + disagrees),
            ("picture beside the widget", self._word("twin there")),
            ("hidden while it lives", self._word("twin hidden")),
            ("outputs change in place", self._word("twin updated")),
            ("saved with its outputs", self._saved),
        )
        return "\n".join(("llamatelemetry host check", *(f"{name + ':':27}{found}" for name, found in lines)))

    def _word(self, name: str) -> str:
        found = self._answers.get(name)
        return _NO_ANSWER if found is None else "yes" if found else "no"

    def _bundle(self, *, updated: bool) -> dict[str, str]:
        report = self.report()
        mark = " data-updated" if updated else ""
        html = f'<div {_MARK}="{self._id}"><pre{mark}>{escape.html(report)}</pre></div>'
        return {"text/html": html, "text/plain": report}


def _text(value: object) -> str:
    return escape.plain(value).replace("\n", " ")[:_LONGEST] if isinstance(value, str) else ""


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


def _saved(session: Session) -> str:
    """Whether the notebook's file holds outputs of ours; a host may not tell where that file is."""
    names: Callable[[str], Any] = session.shell.user_ns.get if session.shell else lambda _: None
    told = os.environ.get("JPY_SESSION_NAME") or names("__vsc_ipynb_file__")
    path = Path(Path(told).name if told and not Path(told).exists() else told) if isinstance(told, str) else None
    if path is None or path.suffix != ".ipynb" or not path.exists():
        return "this host does not tell the notebook's file: save it, open it again and look"
    text = path.read_text(encoding="utf-8", errors="replace")
    if _MARK not in text:
        return "not yet: save the notebook, then run this cell again"
    return f"yes, {'with' if 'widget-state+json' in text else 'without'} the widgets' state"

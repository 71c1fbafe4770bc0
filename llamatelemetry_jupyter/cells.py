"""One trace per cell run: the span of a notebook's cell, made only when something happens in it.

Until the first model call of a kernel nothing is imported and a cell costs a clock reading. From then on each cell has
a span of its own that calls and other libraries' spans hang on; a cell in which nothing was recorded leaves none. A
cell that runs cells (``%run``, ``shell.run_cell``) is one run.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import now_ns

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from .telemetry.processor import CellTrace, RowProcessor
    from .telemetry.tracer import Telemetry


@dataclass(slots=True)
class _Opened:
    """The span of a cell; ``before`` is the context to return to, ``None`` when none was attached."""

    span: Span
    trace: CellTrace
    processor: RowProcessor
    context: Context
    before: Context | None


@dataclass(slots=True, eq=False)
class _Cell:
    """A run of a cell; ``opened`` is ``None`` until telemetry is there, and always for a cell run by a cell."""

    info: Any
    nested: bool
    start_ns: int = field(default_factory=now_ns)
    thread: int = field(default_factory=threading.get_ident)
    opened: _Opened | None = None


class CellHooks:
    """Listens to a shell's cells; :meth:`ensure` gives the running one a span."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._running: list[_Cell] = []
        self._telemetry: Telemetry | None = None

    def register(self) -> None:
        """Listen from now on."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def unregister(self) -> None:
        """Listen no more, and end the cell that does this; safe when the user has removed a callback already."""
        for event, callback in (("pre_run_cell", self._begin), ("post_run_cell", self._end)):
            if callback in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, callback)
        while self._running:
            self._close(self._running.pop())
        self._telemetry = None

    def ensure(self, telemetry: Telemetry) -> None:
        """Give the running cell a span that began with the cell; does nothing outside a cell."""
        self._telemetry = telemetry
        outermost = [cell for cell in self._running if not cell.nested]
        own = [cell for cell in outermost if cell.thread == threading.get_ident()]
        if not outermost or (cell := (own or outermost)[-1]).opened is not None:
            return
        from opentelemetry import trace

        # A span of the user's own is open around the call: the call is its child, and no cell can become its parent.
        if not trace.get_current_span().get_span_context().is_valid:
            self._open(cell, telemetry)

    def _begin(self, info: Any = None) -> None:
        me = threading.get_ident()
        nested = any(cell.thread == me for cell in self._running)
        cell = _Cell(info, nested)
        self._running.append(cell)
        if not nested and self._telemetry is not None and self._telemetry.attached:
            self._open(cell, self._telemetry)

    def _open(self, cell: _Cell, telemetry: Telemetry) -> None:
        from opentelemetry import context, trace

        from .telemetry import semconv

        processor = telemetry.processor
        if processor is None:
            return
        cell_id = getattr(cell.info, "cell_id", None)  # IPython >= 8 under ipykernel
        attributes: dict[str, Any] = {
            semconv.CELL_ID: cell_id,
            semconv.NOTEBOOK_PATH: os.environ.get("JPY_SESSION_NAME"),
        }
        before = context.get_current()
        span = telemetry.tracer.start_span(
            "notebook cell",
            context=before,
            start_time=cell.start_ns,
            attributes={name: value for name, value in attributes.items() if value is not None},
        )
        found, inside = span.get_span_context(), trace.set_span_in_context(span, before)
        followed = processor.watch(found.trace_id, found.span_id, cell_id)
        processor.cell_context = inside
        # Another thread's context is not the cell's: nothing attached there would ever be taken away.
        here = cell.thread == threading.get_ident()
        if here:
            context.attach(inside)
        cell.opened = _Opened(span, followed, processor, inside, before if here else None)

    def _end(self, result: Any = None) -> None:
        cell = self._ended(result)
        if cell is None:
            return
        # What it ran has ended with it, also where IPython did not say so.
        me, position = cell.thread, self._running.index(cell)
        self._running[position:] = [other for other in self._running[position:] if other.thread != me]
        self._close(cell, result)

    def _ended(self, result: Any) -> _Cell | None:
        """The cell whose end this is; ``None`` for one that began unseen: an empty cell, or the one that loaded us."""
        me = threading.get_ident()
        mine = [cell for cell in reversed(self._running) if cell.thread == me]
        info = getattr(result, "info", None)
        if info is None:
            return mine[0] if mine else None
        for cell in mine:
            if cell.info is info:
                return cell
        # A cell that an exception threw out of IPython's own machinery comes with an info of its own.
        text = getattr(info, "raw_cell", None)
        return next((cell for cell in mine if text and getattr(cell.info, "raw_cell", None) == text), None)

    def _close(self, cell: _Cell, result: Any = None) -> None:
        opened, cell.opened = cell.opened, None
        if opened is None:
            return
        from opentelemetry import context
        from opentelemetry.trace import Status, StatusCode

        from .telemetry import privacy, semconv

        if opened.before is not None:
            # Not detach: an async cell's token was made in another context, which OpenTelemetry logs as an error.
            context.attach(opened.before)
        if opened.processor.cell_context is opened.context:
            opened.processor.cell_context = None
        if not opened.trace.used:
            opened.trace.dropped = True
            return  # a span that is never ended is never recorded
        # Not the shell's counter: IPython >= 9 has moved it on before the cell begins, older ones after.
        if (count := getattr(result, "execution_count", None)) is not None:
            opened.span.set_attribute(semconv.EXECUTION_COUNT, count)
        error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
        if error is not None:
            opened.span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            opened.span.set_status(Status(StatusCode.ERROR, privacy.message(str(error))))
        opened.span.end(end_time=now_ns())

"""One trace per cell run: the span of a notebook's cell, made only when something happens in it.

Until the first model call of a kernel nothing is imported and a cell costs a clock reading. From then on each cell has
a span of its own that calls and other libraries' spans hang on; a cell in which nothing was recorded leaves none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import now_ns

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from .telemetry.tracer import Telemetry


@dataclass(slots=True)
class _Cell:
    """A run of a cell; ``span`` is ``None`` until telemetry is there."""

    cell_id: str | None
    execution_count: int | None
    start_ns: int = field(default_factory=now_ns)
    span: Span | None = None
    trace_id: str = ""
    before: Context | None = None


class CellHooks:
    """Listens to a shell's cells; :meth:`ensure` gives the running one a span."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._stack: list[_Cell] = []  # a cell may run cells (%run, shell.run_cell)
        self._telemetry: Telemetry | None = None

    def register(self) -> None:
        """Listen from now on."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def unregister(self) -> None:
        """Listen no more; safe when the user has removed a callback already."""
        for event, callback in (("pre_run_cell", self._begin), ("post_run_cell", self._end)):
            if callback in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, callback)
        self._stack.clear()
        self._telemetry = None

    def ensure(self, telemetry: Telemetry) -> None:
        """Give the running cell a span that began with the cell; does nothing outside a cell."""
        self._telemetry = telemetry
        if self._stack and self._stack[-1].span is None:
            self._open(self._stack[-1], telemetry)

    def _begin(self, info: Any = None) -> None:
        self._stack.append(_Cell(getattr(info, "cell_id", None), getattr(self._shell, "execution_count", None)))
        if self._telemetry is not None:
            self._open(self._stack[-1], self._telemetry)

    def _open(self, cell: _Cell, telemetry: Telemetry) -> None:
        from opentelemetry import context, trace

        from .telemetry import semconv
        from .telemetry.tracer import SCOPE

        attributes: dict[str, Any] = {
            semconv.CELL_ID: cell.cell_id,
            semconv.EXECUTION_COUNT: cell.execution_count,
            semconv.NOTEBOOK_PATH: os.environ.get("JPY_SESSION_NAME"),
        }
        cell.before = context.get_current()
        cell.span = trace.get_tracer(SCOPE).start_span(
            "notebook cell",
            start_time=cell.start_ns,
            attributes={name: value for name, value in attributes.items() if value is not None},
        )
        cell.trace_id = f"{cell.span.get_span_context().trace_id:032x}"
        if telemetry.processor is not None:
            telemetry.processor.cells[cell.trace_id] = cell.cell_id
        context.attach(trace.set_span_in_context(cell.span))

    def _end(self, result: Any = None) -> None:
        if not self._stack:
            return  # loaded by this very cell
        cell = self._stack.pop()
        if cell.span is None:
            return
        from opentelemetry import context

        # Not detach: an async cell's token was made in another context, which OpenTelemetry logs as an error.
        context.attach(context.get_current() if cell.before is None else cell.before)
        processor = self._telemetry.processor if self._telemetry else None
        if processor is None or cell.trace_id not in processor.used:
            if processor is not None:
                processor.cells.pop(cell.trace_id, None)
            return  # a span that is never ended is never recorded
        error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            from .telemetry import semconv

            cell.span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            cell.span.set_status(Status(StatusCode.ERROR, str(error)))
        cell.span.end(end_time=now_ns())
        processor.cells.pop(cell.trace_id, None)
        processor.used.discard(cell.trace_id)

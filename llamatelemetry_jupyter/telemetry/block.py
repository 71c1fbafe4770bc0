"""Spans of a user's own work: a ``with`` block or a function, with the calls inside as its children.

OpenTelemetry's own ``start_as_current_span`` takes an interrupted block for a successful one, and leaves its span
current while a generator is suspended, so that later calls become false children. Here an interrupt is an error, and
a generator's span is current only while the generator runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from ..clock import now_ns
from . import privacy, semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from .tracer import Telemetry

P = ParamSpec("P")
R = TypeVar("R")
_MAX_TEXT = 8192
_MAX_INT = 2**63  # OTLP's integers


class Block:
    """A span around a block: ``with`` or ``async with``; what is called inside becomes its children.

    An exception that leaves the block, an interrupt included, makes the span an error and goes on; ``GeneratorExit``
    (a loop that was left early) does not. ``telemetry`` is asked for when the block begins. Ending it twice does
    nothing; values that OpenTelemetry has no type for are written as text.
    """

    def __init__(
        self, telemetry: Callable[[], Telemetry], name: str, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self._telemetry = telemetry
        self._name = name
        self._attributes = dict(attributes or {})
        self._span: Any = None
        self._ended = False
        self._inside: Context | None = None
        self._before: Context | None = None

    @property
    def trace_id(self) -> str | None:
        """Hex id of the trace, ``None`` before the block begins and when nothing is recorded."""
        found = self._span.get_span_context() if self._span is not None else None
        return f"{found.trace_id:032x}" if found is not None and found.is_valid else None

    @property
    def span_id(self) -> str | None:
        """Hex id of the span, as :attr:`trace_id`."""
        found = self._span.get_span_context() if self._span is not None else None
        return f"{found.span_id:016x}" if found is not None and found.is_valid else None

    def set(self, attributes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Add attributes, now or before it begins; dots in a name: ``set({"retriever.k": 4})``."""
        added = {**(attributes or {}), **more}
        if self._span is None:
            self._attributes |= added
        else:
            self._span.set_attributes({str(name): plain(value) for name, value in added.items()})

    def error(self, kind: str, message: str = "") -> None:
        """Mark it as failed without an exception: ``kind`` is a short name that is the same for like failures."""
        from opentelemetry.trace import Status, StatusCode

        if self._span is not None:
            self._span.set_attribute(semconv.ERROR_TYPE, kind)
            self._span.set_status(Status(StatusCode.ERROR, privacy.message(message)))

    def begin(self) -> Block:
        """Start the span without making it current."""
        from opentelemetry import trace

        telemetry = self._telemetry()
        self._span = telemetry.tracer.start_span(
            self._name,
            context=telemetry.parent(),
            attributes={str(name): plain(value) for name, value in self._attributes.items()},
            start_time=now_ns(),
        )
        self._inside = trace.set_span_in_context(self._span)
        self._ended = False
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End the span; ``error`` is what ended the work."""
        if self._span is None or self._ended:
            return
        self._ended = True
        if isinstance(error, GeneratorExit):
            self._span.set_attribute(semconv.STREAM_ABANDONED, True)
        elif error is not None:
            self.error(str(getattr(error, "kind", None) or type(error).__name__), str(error))
        self._span.end(end_time=now_ns())

    @contextmanager
    def running(self) -> Iterator[None]:
        """A step of a generator: its span, and what it has made current itself, are so only inside."""
        from opentelemetry import context

        before = context.get_current()
        assert self._inside is not None
        context.attach(self._inside)
        try:
            yield
        finally:
            self._inside = context.get_current()
            context.attach(before)

    def _attach(self) -> None:
        from opentelemetry import context

        assert self._inside is not None
        self._before = context.get_current()
        context.attach(self._inside)

    def _detach(self) -> None:
        """Give the context back, where it is still ours: a block may end in another task or thread than it began."""
        from opentelemetry import context, trace

        before, self._before = self._before, None
        if before is not None and trace.get_current_span() is self._span:
            # Not detach: with a token of another context OpenTelemetry logs an error with a traceback.
            context.attach(before)

    def __enter__(self) -> Block:
        self.begin()
        self._attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detach()
        self.end(error)

    async def __aenter__(self) -> Block:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def wrapped(function: Callable[P, R], make: Callable[[], Block]) -> Callable[P, R]:
    """``function`` with a block of its own around each call: plain, ``async``, a generator or an async generator."""
    if inspect.isasyncgenfunction(function):
        traced: Any = _async_generator(function, make)
    elif inspect.isgeneratorfunction(function):
        traced = _generator(function, make)
    elif inspect.iscoroutinefunction(function):

        async def traced(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with make():
                return await cast("Any", function)(*args, **kwargs)
    else:

        def traced(*args: P.args, **kwargs: P.kwargs) -> R:
            with make():
                return function(*args, **kwargs)

    return cast("Callable[P, R]", functools.wraps(function)(traced))


def _generator(function: Callable[..., Any], make: Callable[[], Block]) -> Callable[..., Generator[Any, Any, Any]]:
    def traced(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block = make().begin()
        ended: BaseException | None = None
        try:
            inner = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, inner)
            while True:
                try:
                    with block.running():
                        item = step()
                except StopIteration as stop:
                    return stop.value
                try:
                    sent = yield item
                except GeneratorExit:
                    with block.running():
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 (thrown into the generator, which it is for)
                    step = functools.partial(inner.throw, error)
                else:
                    step = functools.partial(inner.send, sent)
        except BaseException as error:
            ended = error
            raise
        finally:
            block.end(ended)

    return traced


def _async_generator(
    function: Callable[..., Any], make: Callable[[], Block]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def traced(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block = make().begin()
        ended: BaseException | None = None
        try:
            inner = function(*args, **kwargs)
            step = inner.__anext__
            while True:
                try:
                    with block.running():
                        item = await step()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                except GeneratorExit:
                    with block.running():
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 (thrown into the generator, which it is for)
                    step = functools.partial(inner.athrow, error)
                else:
                    step = functools.partial(inner.asend, sent)
        except BaseException as error:
            ended = error
            raise
        finally:
            block.end(ended)

    return traced


def plain(value: Any) -> Any:
    """``value`` as OpenTelemetry takes it: text, a number, a truth value, or a list of one of these; else its text."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…truncated"
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of numpy's or pandas'
        value = value.item()
    if isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < _MAX_INT):
        return value
    if isinstance(value, (list, tuple)) and value and len({type(one) for one in value}) == 1:
        if isinstance(value[0], str):
            return [plain(one) for one in value]
        if isinstance(value[0], (bool, float)) or all(isinstance(v, int) and abs(v) < _MAX_INT for v in value):
            return list(value)
    try:
        return plain(str(value))
    except Exception as error:  # noqa: BLE001 (an object's own text may fail: a span must not)
        return f"<{type(value).__name__}: {type(error).__name__}>"

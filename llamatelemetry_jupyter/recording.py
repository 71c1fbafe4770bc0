"""What a notebook records of its own and reads back: ``lt.span``, ``lt.traced``, ``lt.spans``, ``lt.metrics``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .errors import CommandError
from .session import current_session

if TYPE_CHECKING:
    from .telemetry.block import Block
    from .views.spans import Spans
    from .views.text import Table

P = ParamSpec("P")
R = TypeVar("R")


def metrics() -> Table:
    """Counts and times of requests, servers and GPUs since the kernel started; ``%llama metrics`` is the same."""
    from .views.metrics import metrics_table

    return metrics_table(current_session().read_metrics())


def __getattr__(name: str) -> Any:
    if name != "spans":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _recorded()


@cache
def _recorded() -> Spans:
    """``lt.spans``: the spans of whatever session there is when they are looked at."""
    from .views.spans import Spans

    return Spans(lambda: current_session().spans)


def span(name: str, /, **attributes: Any) -> Block:
    """A span of your own around a block: ``with lt.span("retrieve", k=4):``, also ``async with``.

    Calls inside are its children, and it is a child of the running cell; ``as s`` gives ``s.set(found=3)``.
    """
    from .telemetry.block import Block

    return Block(lambda: current_session().tracing(), name, attributes)


@overload
def traced(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def traced(name: str | None = None, /, **attributes: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def traced(function: Any = None, /, **attributes: Any) -> Any:
    """A function with a span around each of its calls: ``@lt.traced`` or ``@lt.traced("rank", top=3)``.

    Plain and ``async`` functions, generators and async generators. Neither arguments nor results are recorded.
    """
    from .telemetry.block import wrapped

    if not callable(function):
        if function is not None and not isinstance(function, str):
            raise CommandError(f"@lt.traced takes a name, not {function!r}", hint='@lt.traced("rank")')
        return lambda found: wrapped(found, lambda: span(function or found.__qualname__, **attributes))
    return wrapped(function, lambda: span(function.__qualname__))

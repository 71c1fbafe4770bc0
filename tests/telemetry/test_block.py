"""Spans of a user's own: what is inside is their child, and nothing leaks out of them, however they end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading

import pytest
from opentelemetry import trace

from llamatelemetry_jupyter.telemetry.block import Block, wrapped
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.tracer import Telemetry

pytestmark = pytest.mark.floor


@pytest.fixture
def telemetry():
    made = Telemetry(SpanStore(None))
    made.attach()
    yield made
    outside()
    made.detach()
    made.store.close()


def outside():
    assert not trace.get_current_span().get_span_context().is_valid, "a span is still current"


def rows(telemetry):
    """``name → (parent's name, status, error type)``."""
    found = telemetry.store.rows()
    names = {row.span_id: row.name for row in found}
    return {row.name: (names.get(row.parent_id), row.status, row.error_type) for row in found}


@pytest.fixture
def span(telemetry):
    return lambda name, **attributes: Block(lambda: telemetry, name, attributes)


@pytest.fixture
def traced(span):
    return lambda function: wrapped(function, lambda: span(function.__name__))


def test_a_block_is_a_span_and_what_is_inside_is_its_child(telemetry, span):
    with span("outer", k=4) as outer:
        outer.set(found=3)
        outer.set({"retriever.name": "bm25"})
        with span("inner"):
            pass
    assert rows(telemetry) == {"outer": (None, "unset", None), "inner": ("outer", "unset", None)}
    (row,) = [row for row in telemetry.store.rows() if row.name == "outer"]
    assert row.attributes == {"k": 4, "found": 3, "retriever.name": "bm25"}
    assert (outer.trace_id, outer.span_id) == (row.trace_id, row.span_id)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_what_leaves_the_block_makes_it_an_error_and_goes_on(telemetry, span, error):
    with pytest.raises(type(error)), span("work"):
        raise error
    assert rows(telemetry) == {"work": (None, "error", type(error).__name__)}


def test_any_value_is_an_attribute(telemetry, span):
    import numpy as np

    class Odd:
        def __str__(self):
            raise RuntimeError("no text")

    given = {
        "text": "a" * 10_000, "number": 2**70, "numpy": np.int64(3), "list": [1, 2], "mixed": [1, "a"], "empty": [],
        "none": None, "dict": {"a": 1}, "odd": Odd(), "many": [2**70],
    }  # fmt: skip
    with span("work", **given):
        pass
    found = dict(telemetry.store.rows()[0].attributes)
    assert found.pop("text") == "a" * 8192 + "…truncated"
    assert found.pop("odd") == "<Odd: RuntimeError>"
    assert found == {
        "number": str(2**70), "numpy": 3, "list": [1, 2], "mixed": "[1, 'a']", "empty": "[]", "none": "None",
        "dict": "{'a': 1}", "many": f"[{2**70}]",
    }  # fmt: skip


def test_functions_keep_their_face_and_their_results(telemetry, traced):
    @traced
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(2) == 3
    assert add.__doc__ == "Adds."
    assert str(inspect.signature(add)) == "(a: int, b: int = 1) -> int" or "a" in str(inspect.signature(add))
    assert rows(telemetry) == {"add": (None, "unset", None)}


def test_a_coroutine_is_measured_while_it_runs_and_tasks_keep_their_own(telemetry, span, traced):
    @traced
    async def first():
        await asyncio.sleep(0.01)
        with span("in first"):
            await asyncio.sleep(0)

    @traced
    async def second():
        async with span("in second"):
            await asyncio.sleep(0.005)

    async def both():
        await asyncio.gather(first(), second())
        outside()

    asyncio.run(both())
    assert rows(telemetry) == {
        "first": (None, "unset", None),
        "second": (None, "unset", None),
        "in first": ("first", "unset", None),
        "in second": ("second", "unset", None),
    }


def test_a_cancelled_task_is_an_error(telemetry, traced):
    @traced
    async def slow():
        await asyncio.sleep(10)

    async def cancelled():
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert rows(telemetry) == {"slow": (None, "error", "CancelledError")}


def test_a_generator_is_current_only_while_it_runs(telemetry, span, traced):
    @traced
    def numbers():
        with span("in numbers"):
            got = yield 1
        try:
            yield got
        except KeyError:
            yield "caught"
        return "result"

    made = numbers()
    assert rows(telemetry) == {}  # not begun
    assert next(made) == 1
    with span("between"):
        pass
    assert made.send("sent") == "sent"
    assert made.throw(KeyError("x")) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(made)
    assert stop.value.value == "result"
    assert rows(telemetry)["between"] == (None, "unset", None)
    assert rows(telemetry)["numbers"] == (None, "unset", None)


def test_a_generator_that_is_dropped_or_left_ends_its_span_without_an_error(telemetry, traced):
    closed = []

    @traced
    def numbers():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    for one in numbers():
        if one == 2:
            break
    gc.collect()
    (row,) = telemetry.store.rows()
    assert (row.status, row.attributes["llama_cpp.stream.abandoned"], closed) == ("unset", True, [True])


def test_a_generator_that_fails_is_an_error(telemetry, traced):
    @traced
    def numbers():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(numbers())
    assert rows(telemetry) == {"numbers": (None, "error", "OSError")}


def test_an_async_generator_ends_its_span_at_its_end_and_when_it_is_left(telemetry, span, traced):
    @traced
    async def numbers():
        for one in range(3):
            await asyncio.sleep(0)
            yield one

    async def run():
        assert [one async for one in numbers()] == [0, 1, 2]
        async for _one in numbers():
            with span("between"):
                pass
            break
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    found = telemetry.store.rows()
    assert [row.name for row in found].count("numbers") == 2
    assert {row.status for row in found} == {"unset"}
    assert rows(telemetry)["between"][0] is None


def test_a_block_that_ends_in_another_context_leaks_nothing(telemetry, span):
    block = span("work")
    contextvars.copy_context().run(block.__enter__)
    outside()
    block.__exit__(None, None, None)
    assert rows(telemetry) == {"work": (None, "unset", None)}


def test_threads_start_traces_of_their_own_unless_the_context_goes_with_them(telemetry, span):
    def work(name):
        with span(name):
            pass

    with span("outer"):
        plain = threading.Thread(target=work, args=("plain",))
        carried = threading.Thread(target=contextvars.copy_context().run, args=(work, "carried"))
        for thread in (plain, carried):
            thread.start()
            thread.join()
    assert rows(telemetry) == {
        "outer": (None, "unset", None), "plain": (None, "unset", None), "carried": ("outer", "unset", None),
    }  # fmt: skip

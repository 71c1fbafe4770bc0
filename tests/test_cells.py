"""One trace per cell run, in a real IPython shell with the real SDK."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.floor

SETUP = """
import json, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it
from IPython.core.interactiveshell import InteractiveShell
from llamatelemetry_jupyter.cells import CellHooks

shell = InteractiveShell.instance()
before = {event: list(found) for event, found in shell.events.callbacks.items()}
hooks = CellHooks(shell)
hooks.register()
made = []

def telemetry():
    from llamatelemetry_jupyter.telemetry.store import SpanStore
    from llamatelemetry_jupyter.telemetry.tracer import Telemetry
    if not made:
        made.append(Telemetry(SpanStore(None)))
        made[0].attach()
    return made[0]

def chat(name="m"):
    hooks.ensure(telemetry())
    started = telemetry().observer.start("chat", name, "127.0.0.1", 1, {})
    from llamatelemetry_jupyter.clock import now_ns
    from llamatelemetry_jupyter.values import Outcome, Timings
    now = now_ns()
    started.end(Outcome(now, None, now, "stop", None, None, 1, 1, Timings(prefill_s=0.0, decode_s=0.0)))

shell.push({"chat": chat, "telemetry": telemetry, "hooks": hooks, "shell": shell, "threading": threading})

def cell(text, **options):
    return shell.run_cell(text, **{"store_history": True, **options})

def outside():
    from opentelemetry import trace
    assert not trace.get_current_span().get_span_context().is_valid, "a cell's context leaked"
"""

REPORT = """
outside()
rows = [r for r in telemetry().store.rows() if r.name not in ("queue", "prefill", "decode")]
names = {r.span_id: r.name for r in rows}
print("ROWS" + json.dumps([[r.name, names.get(r.parent_id, r.parent_id), r.status, r.error_type, r.trace_id, r.cell_id,
    r.attributes.get("jupyter.execution_count"), r.attributes.get("jupyter.notebook.path")] for r in rows]))
"""


def spans(script, **env):
    """``(name, parent's name, status, error type)`` of each span that the cells of ``script`` left, and all fields."""
    import os

    done = subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(script) + REPORT],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed to detach context" not in done.stderr
    assert "Error in callback" not in done.stdout
    rows = json.loads(done.stdout.rpartition("ROWS")[2])
    return [tuple(row[:4]) for row in rows], rows


CELL, CHAT = ("notebook cell", None, "unset", None), ("chat m", "notebook cell", "unset", None)


def test_a_cell_run_is_one_trace_its_calls_are_children_and_a_cell_without_a_call_leaves_nothing():
    found, rows = spans("""
        cell("1 + 1")
        cell("chat()")
        cell("2 + 2")
        cell("chat(); chat()")
        cell("x = 3")
    """)
    assert found == [CHAT, CELL, CHAT, CHAT, CELL]
    assert len({row[4] for row in rows}) == 2
    assert [row[6] for row in rows if row[0] == "notebook cell"] == [2, 4]


def test_outside_a_cell_the_call_is_the_root():
    found, _ = spans("""
        chat()
        cell("chat()")
        chat()
    """)
    assert found == [("chat m", None, "unset", None), CHAT, CELL, ("chat m", None, "unset", None)]


def test_an_exception_and_an_interrupt_mark_the_cell():
    found, _ = spans("""
        cell("chat(); 1 / 0")
        cell("chat(); raise KeyboardInterrupt")
        cell("import _thread, time; chat(); _thread.interrupt_main(); time.sleep(5)")
        cell("this is no Python")
        cell("chat()")
    """)
    errors = [
        ("notebook cell", None, "error", kind)
        for kind in ("ZeroDivisionError", "KeyboardInterrupt", "KeyboardInterrupt")
    ]
    assert found == [CHAT, errors[0], CHAT, errors[1], CHAT, errors[2], CHAT, CELL]


def test_async_cells_have_their_own_trace_and_leak_no_context():
    found, rows = spans("""
        cell("import asyncio\\nawait asyncio.sleep(0)\\nchat()")
        cell("async def later():\\n    await asyncio.sleep(0)\\n    chat()")
        cell("await asyncio.gather(asyncio.create_task(later()), later())")
        cell("await asyncio.sleep(0)")
        cell("chat()")
    """)
    assert found == [CHAT, CELL, CHAT, CHAT, CELL, CHAT, CELL]
    assert len({row[4] for row in rows}) == 3


def test_threads_of_a_cell_belong_to_it():
    run = "t = threading.Thread(target=chat); t.start(); t.join()"
    found, rows = spans(f"""
        cell({run!r})
        cell({run!r} + "; chat()")
    """)
    assert found == [CHAT, CELL, CHAT, CHAT, CELL]
    assert len({row[4] for row in rows}) == 2


def test_a_cell_that_runs_cells_is_one_run():
    found, rows = spans("""
        cell("shell.run_cell('1'); shell.run_cell(''); shell.run_cell('chat()'); shell.run_cell('2'); chat()")
        cell("shell.run_cell('1 / 0'); 1")
        cell("")
        cell("chat()")
    """)
    assert found == [CHAT, CHAT, CELL, CHAT, CELL]
    assert len({row[4] for row in rows}) == 2


def test_other_libraries_spans_hang_on_the_cell_and_a_users_own_span_keeps_its_calls():
    found, _ = spans("""
        cell("from opentelemetry import trace; tracer = trace.get_tracer('user')")
        cell("telemetry()\\nwith tracer.start_as_current_span('mine'): chat()")
        cell("with tracer.start_as_current_span('mine'): chat()")
        cell("tracer.start_span('theirs').end()")
    """)
    first = [("chat m", "mine", "unset", None), ("mine", None, "unset", None)]
    assert found == [
        *first,
        first[0],
        ("mine", "notebook cell", "unset", None),
        CELL,
        ("theirs", "notebook cell", "unset", None),
        CELL,
    ]


def test_a_call_that_ends_after_its_cell_was_dropped_is_a_root():
    found, _ = spans("""
        telemetry()
        cell("chat()")
        cell("from opentelemetry import context, trace; kept = context.get_current(); tracer = trace.get_tracer('late')")
        shell.user_ns["tracer"].start_span("late", context=shell.user_ns["kept"]).end()
    """)
    assert found == [CHAT, CELL, ("late", None, "unset", None)]


def test_silent_cells_and_the_cell_that_loads_us_are_not_seen():
    found, _ = spans("""
        hooks.unregister()
        cell("hooks.register(); chat()")
        cell("chat()", silent=True)
        cell("chat()")
    """)
    assert found == [("chat m", None, "unset", None), ("chat m", None, "unset", None), CHAT, CELL]


def test_unloading_in_a_cell_restores_events_and_context():
    found, _ = spans("""
        cell("chat(); hooks.unregister(); telemetry().detach()")
        outside()
        assert {event: list(f) for event, f in shell.events.callbacks.items()} == before
        cell("1")
        hooks.unregister()
    """)
    assert found == [CHAT, CELL]


def test_a_new_session_in_the_same_process_is_followed():
    found, _ = spans("""
        cell("chat()")
        made.pop().detach()
        cell("1")
        cell("chat()")
    """)
    assert found == [CHAT, CELL]


def test_a_cell_says_where_it_is():
    identified = """
        import inspect
        options = {"cell_id": "c-1"} if "cell_id" in inspect.signature(shell.run_cell).parameters else {}
        cell("chat()", **options)
        print("HAS", bool(options))
    """
    _, rows = spans(identified, JPY_SESSION_NAME="work/a.ipynb")
    expected = rows[1][5]
    assert expected in (None, "c-1")  # IPython 7 does not tell
    assert [row[5] for row in rows] == [expected, expected]
    assert rows[1][7] == "work/a.ipynb"


def test_until_telemetry_is_used_a_cell_imports_nothing():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SETUP + "cell('1')\ncell('2')\nprint([m for m in sys.modules if m.startswith('opentelemetry')])",
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr

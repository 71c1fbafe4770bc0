"""%llama in a real IPython, with the real engine."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.floor

LOAD = "%load_ext llamatelemetry"
STATE = """
def state():
    shell = get_ipython()
    return (
        {k: sorted(v) for k, v in shell.magics_manager.magics.items()},
        sorted(shell.magics_manager.registry),
        [type(c).__name__ for c in shell.configurables],
        {k: list(v) for k, v in shell.events.callbacks.items()},
        sorted(map(str, shell.strdispatchers["complete_command"].strs)),
        [t.__name__ for t in shell.input_transformer_manager.token_transformers],
        sorted(map(str, shell.display_formatter.ipython_display_formatter.deferred_printers)),
        sorted(map(str, shell.display_formatter.ipython_display_formatter.type_printers)),
    )
import threading, multiprocessing, IPython.core.magics.extension
"""


def test_loading_prints_nothing_and_imports_nothing_heavy(ipython):
    heavy = "numpy pandas pyarrow plotly graphistry requests httpx anywidget opentelemetry.sdk pynvml".split()
    printed = ipython(
        f"import sys\nbefore = set(sys.modules)\n{LOAD}",
        f"print([m for m in {heavy} if m in set(sys.modules) - before])",
    )
    assert printed == "[]\n"


def test_unload_restores_the_shell_and_reload_works_ten_times(ipython):
    printed = ipython(
        STATE,
        "before = state()\nget_ipython().extension_manager.load_extension('llamatelemetry')",
        "for _ in range(10): get_ipython().extension_manager.reload_extension('llamatelemetry')",
        "%llama --help",
        "get_ipython().extension_manager.unload_extension('llamatelemetry')\nprint('same', state() == before)",
        "%llama --help",
    )
    assert "same True" in printed
    assert printed.count("Run a GGUF model here") == 1


def test_a_prompt_may_end_in_a_question_mark(ipython):
    # IPython's own rule for lines that end so would show help on the last word.
    printed = ipython(
        LOAD,
        "%llama chat What's it, don't you know?",
        "answer = %llama chat Is it blue?",
        "if True:\n    %llama chat Why is the sky blue?\n    print('not reached')",
        "text = '''\n%llama chat Why?\n'''\nprint(len(text))",
        "%llama chat?",
    )
    assert printed.count("ServerError: no server is running") == 3
    assert printed.count("STOPPED") == 3
    assert "not reached" not in printed
    assert "18" in printed
    assert "Object `chat` not found" in printed


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama stat", ["unknown command 'stat'; did you mean 'status'?", "try: %llama status"]),
        ("%llama chta hi", ["unknown command 'chta'; did you mean 'chat'?", "try: %llama chat"]),
        ("%llama chat --temprature 1 hi", ["unknown option --temprature", "did you mean --temperature?"]),
        ("%llama start --ctx many", ["argument --ctx: invalid int value: 'many'", "try: %llama start --help"]),
        ("%llama start 'half", ["a quote is not closed"]),
        ("%llama start smolm2-135m", ["unknown model 'smolm2-135m'", "try: %llama start smollm2-135m"]),
        ("%llama start /no/such.gguf", ["/no/such.gguf", "try: "]),
        ("%llama chat --continue", ["the prompt is empty", "try: %llama chat Why"]),
        ("%%llama\n   \n", ["the prompt is empty"]),
        ("%%llama hello\nthere", ["text after %%llama is not read"]),
        ("%llama chat hi", ["no server is running", "try: %llama start"]),
        ("%llama graph", ["there is no trace yet"]),
        ("%llama graph --overview", ["there is no trace yet"]),
        ("%llama graph --all --overview", ["exclude each other", "try: %llama graph --all"]),
        ("%llama logs", ["no server was started", "try: %llama start"]),
        ("%llama chat --out 1x hi", ["--out needs a variable name"]),
        ("%llama start --engine /no/engine", ["/no/engine", "try: "]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


def test_in_a_terminal_a_chat_is_a_hint_of_two_lines(ipython):
    printed = ipython(LOAD, "%llama chat")
    assert printed.splitlines() == [
        "%llama chat TEXT asks the model and shows its answer here",
        "  try: %llama chat Why is the sky blue?",
    ]


@pytest.mark.engine
def test_a_notebook_from_start_to_stop(ipython):
    printed = ipython(
        LOAD,
        "%llama start --ctx 2048",
        "%llama start --ctx 2048",
        """%llama chat -t 0 -n 6 don't say "no" {"a": {1}} $x 😀""",
        "topic = 'the sky'",
        "%%llama -t 0 -n 6 --out answer\nSay a word about {{topic}}, <script>alert(1)</script> and \\\\frac{1}{2}",
        "print(type(answer).__name__, answer.output_tokens, answer.finish_reason, answer is _llama)",
        "%llama chat -n 3 {{topik}}",
        "x = 1",
        "import llamatelemetry_jupyter as lt\ns = lt.current_session()\nrows = s.spans.rows()\ncalls = {r.trace_id for r in rows if r.name.startswith('chat')}\nprint(sorted(r.name for r in rows if r.trace_id in calls))\nprint([r.name for r in rows if r.trace_id == rows[0].trace_id][-2:])\nprint(len(calls), s.spans.totals()['calls'], s.spans.totals()['errors'])",
        "print([r.model for r in s.spans.rows() if r.parent_id and r.name.startswith('chat')])",
        "%llama chat -m other hi",
        "%llama stop",
        "%llama stop",
        "%unload_ext llamatelemetry",
    )
    assert printed.count("1 slot with 2,048 tokens each") == 2
    assert "already running: smollm2-135m" in printed
    assert "Answer 6 length True" in printed
    assert "no variable of that name; did you mean {{topic}}?" in printed
    phases = ["decode", "prefill", "queue"]
    assert f"{sorted(['chat smollm2-135m', 'notebook cell', *phases] * 2)}" in printed
    assert "['server start smollm2-135m', 'notebook cell']" in printed
    assert "2 2 0" in printed
    assert "model 'other' is not running" in printed
    assert "stopped smollm2-135m" in printed
    assert "no server was running" in printed

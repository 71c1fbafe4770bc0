"""%llama export, import, receive and config, typed rightly and wrongly."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from otlpworld import collector

LOAD = "%load_ext llamatelemetry"
#: A session with spans of its own, without an engine.
SPANS = """
import llamatelemetry as lt
with lt.span("outer", n=1):
    with lt.span("inner", text="x"):
        pass
"""


@pytest.mark.floor
@pytest.mark.parametrize("name", ["spans.jsonl", "spans.parquet"])
def test_a_session_comes_back_in_another_kernel(ipython, tmp_path, name):
    ipython(LOAD, SPANS, f"%llama export {name}")
    show = "print([(r.name, r.attributes.get('n'), r.attributes['otel.resource']['service.name']) for r in lt.current_session().spans.rows()])"
    printed = ipython(LOAD, "import llamatelemetry as lt", f"%llama import {name}", f"%llama import {name}", show)
    assert "2 spans added" in printed
    assert "0 spans added · 2 were there already" in printed
    assert "('outer', 1, 'notebook')" in printed


@pytest.mark.floor
def test_a_picture_for_perfetto_is_written_and_not_read(ipython, tmp_path):
    printed = ipython(LOAD, SPANS, "%llama export trace.json", "%llama import trace.json")
    assert "written: trace.json · 2 spans" in printed
    assert "it is a picture for Perfetto" in printed
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["name"] for e in events if e["ph"] == "X"] == ["outer", "inner"]


@pytest.mark.floor
def test_one_trace_and_everything(ipython, tmp_path):
    cell = "trace = lt.current_session().spans.rows()[0].trace_id\nget_ipython().run_line_magic('llama', f'export one.jsonl --full --trace {trace[:12]}')"
    printed = ipython(LOAD, SPANS, "with lt.span('second'): pass", cell)
    assert "written: one.jsonl · 2 spans" in printed
    assert "as they are" in printed
    assert '"second"' not in (tmp_path / "one.jsonl").read_text()


@pytest.mark.floor
def test_a_session_of_before_is_exported_with_its_own_resource(ipython, tmp_path, monkeypatch):
    name = "from llamatelemetry_jupyter.environment import kernel_key; print(f'<{kernel_key()}>')"
    key = re.search("<(.+)>", ipython(LOAD, SPANS, name, "%unload_ext llamatelemetry"))[1]
    (before,) = (tmp_path / "data" / "spans").glob("*.sqlite")
    cell = f"%llama export old.jsonl --session {before.stem}"
    printed = ipython(LOAD, "%llama spans", cell, f"%llama trace --session {before.stem}")
    assert "written: old.jsonl · 2 spans" in printed
    assert "└─" in printed
    told = json.loads((tmp_path / "old.jsonl").read_text())["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.instance.id", "value": {"stringValue": key}} in told


@pytest.mark.engine
def test_metrics_go_with_the_spans_when_they_are_asked_for(ipython):
    with collector() as world:
        cell = f"%llama export otlp --metrics --endpoint {world.url}"
        call = ("%llama start --ctx 512", "%llama chat --max-tokens 4 Hello")
        printed = ipython(LOAD, *call, cell, "%llama export otlp", "%llama export otlp --stop", "%llama stop")
        names = {metric.name for metric in world.points()}
        spans = world.spans()
    assert "and every one to come, metrics every 60 s, without prompts" in printed
    assert re.search(r"\d spans sent · metrics sent \d times?, [1-9]\d+ values · ended", printed), printed
    assert "chat smollm2-135m" in [span.name for span in spans]
    assert names >= {"gen_ai.client.token.usage", "llama_cpp.memory.usage", "llama_cpp.server.slots.limit"}


def test_spans_go_from_one_kernel_to_another_and_nothing_is_sent_twice(tmp_path, ipython):
    cells = """
    import subprocess, sys, os, time
    r = %llama receive
    code = '''
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    for cell in ("%load_ext llamatelemetry", "import llamatelemetry as lt\\\\nwith lt.span('their work'): pass", "%llama export otlp", "%llama export otlp", "%unload_ext llamatelemetry"):
        assert shell.run_cell(cell).success
    '''
    import textwrap
    env = os.environ | r.environment | {"LLAMATELEMETRY_DATA": os.getcwd() + "/theirs"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=100)
    print(done.stdout + done.stderr)
    """
    show = "print('GOT', [r.name for r in lt.current_session().spans.rows()])"
    printed = ipython(
        LOAD, "import llamatelemetry as lt", textwrap.dedent(cells), "%llama receive", show, "%llama receive --stop"
    )
    assert "GOT ['their work']" in printed
    assert printed.count("sending to 127.0.0.1:") == 1
    assert "ended: 1 span received" in printed


@pytest.mark.floor
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama export", ["arguments are required: FILE|otlp"]),
        ("%llama export spans.jsonl", ["there are no spans yet", "%llama chat"]),
        ("%llama export otlp", ["no endpoint is named", "--endpoint http://localhost:4318"]),
        ("%llama export otlp --stop", ["nothing is being sent"]),
        ("%llama export otlp --endpoint nowhere", ["'nowhere' is not the address", "http://localhost:4318"]),
        ("%llama export otlp --trace 12", ["--trace is for a file"]),
        ("%llama export otlp --session 12", ["--session is for a file", "export spans.jsonl --session ID"]),
        ("%llama export spans.jsonl --session 12", ["there is no session '12'", "%llama sessions"]),
        ("%llama export spans.jsonl --metrics", ["are for a receiver"]),
        ("%llama export spans.jsonl --endpoint http://x", ["are for a receiver"]),
        ("%llama export spans.jsonl --ful", ["unknown option --ful", "--full"]),
        ("%llama import nothing.jsonl", ["nothing.jsonl cannot be read: No such file"]),
        ("%llama import nothing.parquet", ["nothing.parquet cannot be read"]),
        ("%llama import spans.csv", ["spans.csv is no file of spans"]),
        ("%llama import .", ["is no file of spans"]),
        ("%llama receive --stop", ["nothing is being received"]),
        ("%llama receive --port 99999", ["no port 99999"]),
        ("%llama receive --port http", ["invalid int value"]),
        ("%llama config colour blue", ["there is no setting 'colour'"]),
        ("%llama config capture", ["capture is on, off, environment, not nothing"]),
        ("%llama config capture maybe", ["not 'maybe'", "%llama config capture off"]),
    ],
)
def test_what_is_typed_wrongly_is_two_lines(refused, cell, says):
    refused(cell, says)


@pytest.mark.floor
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "no spans are in a.jsonl"),
        ("a.jsonl", b"garbage\n{}\n", "no spans are in a.jsonl"),
        ("a.json", b"garbage", "a.json cannot be read"),
        ("a.parquet", b"garbage", "a.parquet cannot be read"),
        ("a.jsonl", b"\xff\xfe\x00", "no spans are in a.jsonl"),
    ],
)
def test_a_file_that_is_none_is_two_lines(refused, tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    refused(f"%llama import {name}", [says])


@pytest.mark.floor
def test_of_a_file_that_was_cut_the_whole_lines_come_back(ipython, tmp_path):
    ipython(LOAD, SPANS, "%llama export spans.jsonl")
    with (tmp_path / "spans.jsonl").open("r+") as file:
        file.write(file.read() * 2)
    text = (tmp_path / "spans.jsonl").read_text()
    (tmp_path / "spans.jsonl").write_text(text[: int(len(text) * 0.75)])
    printed = ipython(LOAD, "%llama import spans.jsonl")
    assert "2 spans added · 2 were there already · not spans: 1 part of the file" in printed


def test_nothing_is_sent_to_another_machine_without_a_yes(ipython):
    cell = "%llama export otlp --endpoint http://collector.invalid:4318"
    printed = ipython(LOAD, SPANS, cell)
    assert (
        "to collector.invalid:4318: 2 spans and every one to come, without prompts, answers, paths and host names"
        in printed
    )
    assert "nobody is there to confirm it" in printed
    assert "sending to" not in printed


@pytest.mark.floor
def test_config_shows_what_is_recorded(ipython):
    cells = ["%llama config", "%llama config capture on", "%unload_ext llamatelemetry", LOAD, "%llama config"]
    printed = ipython(LOAD, *cells)
    assert printed.count("off: no prompt or answer is recorded") == 2
    assert printed.count("on: prompts and answers are recorded") == 1


@pytest.mark.parametrize(
    ("line", "symbol", "found"),
    [
        ("%llama export ", "", ["otlp"]),
        ("%llama export otlp --en", "--en", ["--endpoint"]),
        ("%llama config ", "", ["capture"]),
        ("%llama config capture o", "o", ["on", "off"]),
        ("%llama imp", "imp", ["import"]),
        ("%llama models ", "", ["list", "info", "pull", "rm"]),
    ],
)
def test_tab_knows_the_words(line, symbol, found):
    from llamatelemetry_jupyter.magics.complete import complete

    assert complete(None, line, symbol) == found

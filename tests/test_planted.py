"""Secrets planted everywhere in a real session are in no export and in no log, and content only where it was captured."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from otlpworld import collector

pytestmark = pytest.mark.engine

PROMPT, CAPTURED = "Tell me of the purple xylophone", "Tell me of the crimson bassoon"
ENVIRONMENT = "planted-environment-value"
TOKEN, NAMED = "hf_" + "Zq7" * 12, "wordless-but-secret-value"
FOLDER = "planted-folder"
OTHERS = "another library asks of the golden tuba"

_NOTEBOOK = """
import json, os, sys, time
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()

def cell(text, fails=False):
    result = shell.run_cell(text)
    assert result.success is not fails, text

cell("%load_ext llamatelemetry_jupyter")
cell("import llamatelemetry_jupyter as lt\\n%llama start --ctx 512")
cell(f"get_ipython().run_line_magic('llama', 'export otlp --metrics --endpoint {sys.argv[1]}')")
cell("%%llama --max-tokens 12 --temperature 0 --out quiet\\nPROMPT. My token is TOKEN")
cell("%%llama --max-tokens 12 --temperature 0 --out told --capture\\nCAPTURED. My token is TOKEN and my key NAMED")
cell('''
import os
from opentelemetry import trace
tracer = trace.get_tracer("openinference.instrumentation.x")
with tracer.start_as_current_span("ChatX", attributes={"input.value": "OTHERS", "llm.headers": "Bearer TOKEN"}):
    pass
with lt.span("work on " + os.getcwd(), token="TOKEN", file=os.path.join(os.getcwd(), "data.csv"), host=__import__("socket").gethostname()):
    pass
''')
cell("s = lt.current_session()\\nKEY = s.handle.api_key")
cell("lt.current_session().engine().chat('and a stop', stop=[KEY], max_tokens=4)")
cell("with lt.span('key', value=KEY): pass")
cell("%llama spans\\n%llama trace\\n%llama status\\n%llama config")
print("END OF WHAT IS OURS")
cell("raise ValueError('PROMPT with TOKEN in ' + os.getcwd())", fails=True)
for name in ("out.jsonl", "out.json", "out.parquet"):
    cell(f"%llama export {name}")
cell("%llama export full.jsonl --full")
Path("answers.txt").write_text(json.dumps([shell.user_ns["KEY"], shell.user_ns["quiet"].text, shell.user_ns["told"].text]))
cell("%unload_ext llamatelemetry_jupyter")
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What a session with planted secrets left: its folders, what it printed, what a receiver got."""
    root = tmp_path_factory.mktemp("planted")
    work, run, data = root / FOLDER / "work", root / "run", root / "data"
    work.mkdir(parents=True)
    script = _NOTEBOOK
    for word, value in {
        "PROMPT": PROMPT,
        "CAPTURED": CAPTURED,
        "TOKEN": TOKEN,
        "NAMED": NAMED,
        "OTHERS": OTHERS,
    }.items():
        script = script.replace(word, value)
    environment = {
        **os.environ,
        "LLAMATELEMETRY_RUNTIME_DIR": str(run),
        "LLAMATELEMETRY_DATA": str(data),
        "JPY_SESSION_NAME": str(work / "my-notebook.ipynb"),
        "MY_SETTING": ENVIRONMENT,
        "SOME_SERVICE_KEY": NAMED,
        "HF_TOKEN": TOKEN,
    }
    with collector() as world:
        done = subprocess.run(
            [sys.executable, "-c", script, world.url],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        bodies = b"\n".join(world.bodies)
        assert len(world.spans()) >= 15
        assert any(m.name == "gen_ai.client.token.usage" for m in world.points())
    return {"work": work, "run": run, "data": data, "printed": done.stdout + done.stderr, "bodies": bodies}


def answers(session):
    import json

    return json.loads((session["work"] / "answers.txt").read_text())


def plain(path: Path) -> bytes:
    """A file's bytes; Parquet is compressed, so its values."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    import pyarrow.parquet as pq

    return repr(pq.read_table(path).to_pylist()).encode()


def exports(session):
    work = session["work"]
    found = {name: plain(work / name) for name in ("out.jsonl", "out.json", "out.parquet")} | {
        "OTLP": session["bodies"]
    }
    assert all(len(content) > 1000 for content in found.values())
    return found


def logs(session):
    """Everything that was written beside the exports: the store's files, the engine's and the sampler's logs, the ring."""
    files = [p for folder in (session["data"], session["run"]) for p in folder.rglob("*") if p.is_file()]
    assert any(p.suffix == ".sqlite" for p in files)
    return {p.name: p.read_bytes() for p in files}


def holding(where, secret):
    return [name for name, content in where.items() if secret.encode() in content]


def test_no_prompt_and_no_answer_leaves_unless_everything_is_asked_for(session):
    _, quiet, told = answers(session)
    assert min(len(quiet), len(told)) > 15
    for text in (PROMPT, CAPTURED, OTHERS, quiet, told):
        assert holding(exports(session), text) == []
    everything = {"full": (session["work"] / "full.jsonl").read_bytes()}
    assert holding(everything, CAPTURED) == ["full"]
    for text in (PROMPT, OTHERS):
        assert holding(everything, text) == []


def test_content_is_recorded_only_of_the_cell_that_captured_it(session):
    recorded = logs(session)
    assert holding(recorded, PROMPT) == []
    assert holding(recorded, OTHERS) == []
    assert [Path(name).suffix for name in holding(recorded, CAPTURED)] == [".sqlite"]


@pytest.mark.parametrize("what", ["token", "named variable", "environment", "engine's key"])
def test_no_key_and_no_environment_is_anywhere(session, what):
    key = answers(session)[0]
    secret = {"token": TOKEN, "named variable": NAMED, "environment": ENVIRONMENT, "engine's key": key}[what]
    assert len(secret) >= 20
    everything = {"full": (session["work"] / "full.jsonl").read_bytes(), "printed": session["printed"].encode()}
    if what == "token":  # the notebook's own traceback shows the line that the user wrote
        everything["printed"] = everything["printed"].partition(b"END OF WHAT IS OURS")[0]
    assert holding(exports(session) | logs(session) | everything, secret) == []


def test_no_path_and_no_host_leaves(session):
    assert FOLDER.encode() in (session["work"] / "full.jsonl").read_bytes()
    for place in (FOLDER, str(Path.home()), str(session["work"])):
        assert holding(exports(session), place) == []
    host = socket.gethostname()
    assert len(host) < 4 or holding(exports(session), host) == []

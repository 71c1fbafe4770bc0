"""One trace for everything that a cell does: our calls, the user's spans, and another library's instrumentation."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

_NOTEBOOK = """
import json, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()

def cell(text):
    assert shell.run_cell(text).success, text

cell("%load_ext llamatelemetry_jupyter")
cell("import llamatelemetry_jupyter as lt\\n%llama start --ctx 512")
cell('''
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
OpenAIInstrumentor().instrument()
import openai
s = lt.current_session()
h = s.handle
client = openai.OpenAI(base_url=h.url + "/v1", api_key=h.api_key)
asked = dict(model=h.model.id, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
''')
cell('''
@lt.traced
def rag():
    client.chat.completions.create(**asked)
    for chunk in client.chat.completions.create(**asked, stream=True):
        pass
    with lt.span("answer", step=2):
        s.engine().chat("hello", max_tokens=4)

rag()
''')
cell('''
import requests
requests.post(h.url + "/v1/chat/completions", json=asked, headers={"Authorization": "Bearer " + h.api_key}, timeout=60)
''')
deadline = time.monotonic() + 20
store = shell.user_ns["s"].spans
while not any(r.name.startswith("request") for r in store.rows()) and time.monotonic() < deadline:
    time.sleep(0.05)
rows = store.rows()
names = {r.span_id: r.name for r in rows}
cell("%unload_ext llamatelemetry_jupyter")
print("ROWS" + json.dumps([[r.name, names.get(r.parent_id), r.scope, r.trace_id] for r in rows]))
"""


def test_openai_calls_and_user_spans_are_in_the_cells_trace_and_nothing_is_there_twice():
    done = subprocess.run([sys.executable, "-c", _NOTEBOOK], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = json.loads(done.stdout.rpartition("ROWS")[2])
    (trace_id,) = {trace_id for name, _, _, trace_id in rows if name == "rag"}
    mine = [(name, parent) for name, parent, _, trace in rows if trace == trace_id]
    openai = "opentelemetry.instrumentation.genai.openai"
    assert [parent for name, parent, scope, _ in rows if scope == openai] == ["rag", "rag"]
    assert mine.count(("chat smollm2-135m", "rag")) == 2
    assert ("chat smollm2-135m", "answer") in mine
    assert ("answer", "rag") in mine
    assert ("rag", "notebook cell") in mine
    # Of four requests in the server's log only the last has no span here but its own.
    strangers = [(name, parent, trace) for name, parent, _, trace in rows if name.startswith("request")]
    assert [(name, parent) for name, parent, _ in strangers] == [("request smollm2-135m", None)]
    assert strangers[0][2] != trace_id

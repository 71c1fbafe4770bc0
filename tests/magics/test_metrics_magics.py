"""%llama metrics, and what a session describes, in a real IPython with the real engine."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.floor
LOAD = "%load_ext llamatelemetry"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            "%llama metrics --prometheus /no/such/folder/x.prom",
            ["/no/such/folder/x.prom cannot be written", "try: %llama metrics --prometheus"],
        ),
        ("%llama metrics --frame --prometheus", ["not allowed with argument", "try: %llama metrics --help"]),
        ("%llama metrics --prometeus", ["unknown option --prometeus", "did you mean --prometheus?"]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


def test_without_a_request_it_says_what_to_type(ipython):
    assert "no metrics yet; try: %llama chat Hello" in ipython(LOAD, "%llama metrics")


@pytest.mark.engine
def test_a_notebooks_metrics_from_start_to_reload(ipython, tmp_path):
    printed = ipython(
        LOAD,
        "import llamatelemetry as lt\n%llama start --ctx 512 --ubatch 256",
        "%llama chat -t 0 -n 5 Hello",
        "s = lt.current_session()\ns.settle()",
        # The server's log is read twice a second.
        "import time\nend = time.monotonic() + 20\nwhile not any(p.name.startswith('gen_ai.server') for p in s.read_metrics()) and time.monotonic() < end: time.sleep(.05)",
        "print(lt.metrics())",
        "frame = %llama metrics --frame\nprint('FRAME', frame[frame.name == 'gen_ai.client.token.usage']['value'].astype(int).tolist(), _llama.input_tokens)",
        "%llama metrics --prometheus mine.prom",
        "kinds = {d.kind: d for d in s.spans.descriptions()}\nprint('KINDS', sorted(kinds))",
        "told = kinds['server'].told\nargv = told['llama_cpp.argv']\nprint('ARGV', argv[:3], argv[argv.index('--ubatch-size') + 1], len(told['llama_cpp.model.sha256']))",
        "(start,) = [r for r in s.spans.rows() if r.name.startswith('server start')]\nprint('SPAN', all(start.attributes.get(k) == v for k, v in told.items()))",
        "%llama stop",
        "%reload_ext llamatelemetry",
        "print('AGAIN', [p.count for p in lt.current_session().read_metrics() if p.name == 'gen_ai.client.operation.duration'])",
        "%unload_ext llamatelemetry",
    )
    assert "STOPPED" not in printed
    lines = {line.split("  ")[0]: line for line in printed.splitlines() if line.startswith(("gen_ai", "llama_cpp"))}
    assert " chat, smollm2-135m " in lines["gen_ai.client.operation.duration"]
    assert lines["gen_ai.server.request.duration"].split()[2] == "1"
    assert lines["llama_cpp.server.output_tokens"].split()[-1] == "5"
    assert re.search(r"FRAME \[(\d+), 5\] \1$", printed, re.MULTILINE)
    assert "KINDS ['kernel', 'server']" in printed
    assert "ARGV ['xllamacpp', '--model', 'SmolLM2-135M-Instruct.Q4_1.gguf'] 256 64" in printed
    assert "SPAN True" in printed
    assert "AGAIN [1]" in printed
    written = (tmp_path / "mine.prom").read_text()
    assert "\ngen_ai_client_operation_duration_seconds_count{" in written
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".prom", ".new")] == ["mine.prom"]


@pytest.mark.engine
@pytest.mark.skipif(
    find_spec("opentelemetry.instrumentation") is None or find_spec("openai") is None,
    reason="the environment with Kaggle's versions has no OpenAI package",
)
def test_another_librarys_requests_are_counted_by_it_and_by_the_servers_log_once_each(ipython):
    printed = ipython(
        LOAD,
        "import llamatelemetry as lt, openai, time\n%llama start --ctx 512",
        "from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor\nOpenAIInstrumentor().instrument()",
        "s = lt.current_session()\nh = s.handle\nclient = openai.OpenAI(base_url=h.url + '/v1', api_key=h.api_key)",
        "asked = dict(model=h.model.id, messages=[{'role': 'user', 'content': 'hi'}], max_tokens=3)",
        "client.chat.completions.create(**asked)\ns.engine().chat('hello', max_tokens=3)\nclient.chat.completions.create(**asked)\nNone",
        "def counts(name): return {p.attributes['gen_ai.provider.name']: p.count for p in s.read_metrics() if p.name == name}",
        "end = time.monotonic() + 20\nwhile counts('gen_ai.server.request.duration') != {'llama.cpp': 3} and time.monotonic() < end: time.sleep(.05)",
        "print('SERVER', counts('gen_ai.server.request.duration'))\nprint('CLIENTS', counts('gen_ai.client.operation.duration'))",
        "%llama metrics --prometheus",
        "%unload_ext llamatelemetry",
    )
    assert "SERVER {'llama.cpp': 3}" in printed
    assert "CLIENTS {'llama.cpp': 1, 'openai': 2}" in printed
    line = r'^gen_ai_client_operation_duration_seconds_count{.*otel_scope_name="(\S+?)".*} (\d)'
    assert dict(re.findall(line, printed, re.MULTILINE)) == {
        "llamatelemetry_jupyter": "1",
        "opentelemetry.instrumentation.genai.openai": "2",
    }

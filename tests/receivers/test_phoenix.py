"""A real Phoenix gets a real session over OTLP and shows it unchanged: ``make test-receivers`` (outside CI: Phoenix is large)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import requests

from llamatelemetry_jupyter.telemetry import otlp_json

pytestmark = pytest.mark.receivers

_SESSION = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
cells = [
    "%load_ext llamatelemetry",
    "import llamatelemetry as lt\\n%llama start --ctx 512",
    "%%llama --max-tokens 8 --capture\\nName a colour.",
    "with lt.span('retrieve', k=4, names=['a', 'b'], share=0.5, deep=True):\\n    lt.current_session().engine().chat('hi', max_tokens=4)",
    "try:\\n    with lt.span('fails'):\\n        1 / 0\\nexcept ZeroDivisionError:\\n    pass",
    f"%llama export otlp --endpoint {sys.argv[1]} --full",
    "%llama export otlp --stop",
    "%llama export spans.jsonl --full",
    "%unload_ext llamatelemetry",
]
for cell in cells:
    assert shell.run_cell(cell).success, cell
"""


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Phoenix; ``PHOENIX`` names its command."""
    with socket.socket() as web, socket.socket() as grpc:
        web.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        ports = web.getsockname()[1], grpc.getsockname()[1]
    environment = os.environ | {
        "PHOENIX_WORKING_DIR": str(tmp_path_factory.mktemp("phoenix")),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(ports[0]),
        "PHOENIX_GRPC_PORT": str(ports[1]),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    process = subprocess.Popen([os.environ["PHOENIX"], "serve"], env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, "Phoenix has ended"
            assert time.monotonic() < deadline, "Phoenix does not answer"
            try:
                if requests.get(f"{url}/healthz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def ns(moment: str) -> int:
    """A moment as Phoenix tells it, to a microsecond."""
    found = datetime.fromisoformat(moment)
    return int(found.timestamp()) * 10**9 + found.microsecond * 1000


def shown(phoenix: str, count: int) -> dict[str, dict]:
    deadline = time.monotonic() + 30
    while True:
        data = requests.get(f"{phoenix}/v1/projects/default/spans", params={"limit": 1000}, timeout=20).json()["data"]
        if len(data) >= count:
            return {one["context"]["span_id"]: one for one in data}
        assert time.monotonic() < deadline, f"{len(data)} of {count} spans"
        time.sleep(0.3)


def test_a_session_is_shown_unchanged(phoenix: str, tmp_path: Path) -> None:
    environment = os.environ | {"LLAMATELEMETRY_DATA": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", _SESSION, phoenix],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ours = [s for line in (tmp_path / "spans.jsonl").read_text().splitlines() for s in otlp_json.loads(line)]
    assert len(ours) >= 12
    theirs = shown(phoenix, len(ours))
    for span in ours:
        there = theirs[span.span_id]
        assert there["context"]["trace_id"] == span.trace_id
        assert there["parent_id"] == span.parent_id
        assert there["name"] == span.name
        assert there["status_code"] == span.status.upper()
        assert abs(ns(there["start_time"]) - span.start_ns) < 1000
        assert abs(ns(there["end_time"]) - span.end_ns) < 1000
        for name, value in span.attributes.items():
            if value is not None and not name.startswith("gen_ai.input.") and not name.startswith("gen_ai.output."):
                assert there["attributes"][name] == value, (span.name, name)
    chat = next(
        theirs[s.span_id] for s in ours if s.name == "chat smollm2-135m" and "gen_ai.input.messages" in s.attributes
    )
    assert chat["span_kind"] == "LLM"
    assert chat["attributes"]["llm.token_count.completion"] == 8
    assert chat["attributes"]["llm.input_messages.0.message.content"] == "Name a colour."

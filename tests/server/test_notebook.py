"""notebooks/02-server.ipynb, run as it stands."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from rig import execute

from llamatelemetry_jupyter.server.state import abandoned

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "02-server.ipynb"


@pytest.mark.engine
def test_the_tour_of_the_server_runs_and_says_what_it_promises(tmp_path):
    execute(NOTEBOOK, tmp_path / "02-server.ipynb")
    cells = nbformat.read(tmp_path / "02-server.ipynb", as_version=4).cells
    said = {c.source.splitlines()[0]: shown(c) for c in cells if c.cell_type == "code"}
    assert "already running" not in said["%llama restart --slots 2 --cache-type-k q8_0 --no-warmup"]
    assert "restarted: smollm2-135m" in said["%llama restart --slots 2 --cache-type-k q8_0 --no-warmup"]
    assert "ctx=2048, slots=2" in said["import llamatelemetry_jupyter as lt"]
    assert "('request'," in said["import time"]
    assert "['default', 'second']" in said["[handle.name for handle in session.handles()]"]
    assert "q8_0 KV cache needs flash attention" in said["try:"] or any(
        "needs flash attention" in s for s in said.values()
    )
    assert "the port is taken" in said["import socket"]
    assert "'memory by owner'" in said["from llamatelemetry_jupyter.server.attach import not_provided"]
    assert "'ready'" in said["stranger.state()"]  # an attached server is let go, not stopped
    assert "it goes on when this kernel ends" in said["%llama start smollm2-135m --ctx 1024 --keep"]
    assert abandoned() == []


def shown(cell):
    texts = []
    for output in cell.outputs:
        texts.append("".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", "")))
    return "\n".join(texts)

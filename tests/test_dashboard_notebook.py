"""notebooks/06-dashboard.ipynb runs from top to bottom; its pictures are in the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DASHBOARD = Path(__file__).resolve().parents[1] / "notebooks" / "06-dashboard.ipynb"


@pytest.mark.engine
def test_the_notebook_runs(tmp_path: Path) -> None:
    from rig import execute  # needs a browser's driver to be importable

    book = execute(DASHBOARD, tmp_path / "dashboard.ipynb")
    outputs = {cell.source: cell.outputs for cell in book.cells if cell.cell_type == "code"}

    def data(part: str) -> dict[str, str]:
        found = next(outs for source, outs in outputs.items() if part in source)
        return {kind: text for one in found for kind, text in one.get("data", {}).items()}

    # In a run without a reader the picture stands for the widget, and follows what the later cells did.
    dashboard = data("%llama dashboard")
    assert "application/vnd.jupyter.widget-view+json" not in dashboard
    assert "data:image/svg+xml;base64," in dashboard["text/html"]
    assert re.search(r"calls +4 \(", dashboard["text/plain"])
    tree = data("%llama trace")["text/plain"]
    assert tree.count("chat smollm2-135m") == 3
    assert re.search(r"└─ three questions", tree)
    assert "svg" in data("%llama graph")["text/html"]
    for name in ("waterfall", "memory", "latency", "throughput"):
        assert data(f"figures.{name}")["application/vnd.plotly.v1+json"]["data"], name
    assert re.search(r"written: run.html · \d+ [KM]iB", data("%llama report")["text/plain"])
    assert "three questions" in (tmp_path / "run.html").read_text()

"""notebooks/05-tracing.ipynb runs from top to bottom, and shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TRACING = Path(__file__).resolve().parents[1] / "notebooks" / "05-tracing.ipynb"


@pytest.mark.engine
def test_the_notebook_runs(tmp_path: Path) -> None:
    from rig import execute  # needs a browser's driver to be importable

    book = execute(TRACING, tmp_path / "tracing.ipynb")
    shown = []
    for cell in book.cells:
        if cell.cell_type == "code":
            texts = [str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in cell.outputs]
            shown.append((cell.source, "\n".join(texts)))

    def output(part: str, which: int = 0) -> str:
        return [text for source, text in shown if part in source][which]

    assert re.search(r"notebook cell.*\n└─ chat smollm2-135m", output("%llama trace"))
    tree = output("%llama trace", 1)
    assert re.search(r"└─ answer", tree)
    assert tree.count("chat smollm2-135m") == 2
    assert "retrieve" in tree
    assert re.search(r"smollm2-135m +3 ", output('by("model")'))
    assert "'llama_cpp.slots': 2" in output("server start*")
    assert "chat smollm2-135m" in output("%llama spans --by name")
    assert "gen_ai" in output("%llama metrics")
    assert "SpanName" in output("read_parquet")
    assert "('letter to [name]', '[name]')" in output("lt.redact")

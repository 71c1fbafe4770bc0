"""notebooks/03-api-tour.ipynb runs from top to bottom, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

TOUR = Path(__file__).resolve().parents[1] / "notebooks" / "03-api-tour.ipynb"


@pytest.mark.engine
def test_the_tour_runs(tmp_path: Path) -> None:
    from rig import execute  # needs a browser's driver to be importable

    book = execute(TOUR, tmp_path / "tour.ipynb")
    shown = {}
    for cell in book.cells:
        if cell.cell_type == "code":
            texts = [str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in cell.outputs]
            shown[cell.source] = "\n".join(texts)

    def output(part: str) -> str:
        (found,) = [text for source, text in shown.items() if part in source]
        return found

    assert "finish" in output("event.progress")
    assert "'interrupted'" in output("event.index == 3")
    assert "llama" in output("answer.parsed") or "alpaca" in output("answer.parsed")
    errors = output("client.slot_erase(7)")
    assert "%llama start --embeddings --restart" in errors
    assert "no slot 7" in errors
    assert "chat" in output("%llama spans")

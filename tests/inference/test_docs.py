"""The blocks of docs/inference.md, run in order as one notebook would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llamatelemetry_jupyter as lt

pytest.importorskip("pydantic")
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


@pytest.mark.engine
def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "docs"}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        calls = [row for row in lt.current_session().spans.rows() if row.name.startswith(("chat", "text_completion"))]
    finally:
        lt.current_session().close()
    assert len(blocks) == 8
    assert "has no place for tools" in capsys.readouterr().out
    assert len(calls) >= 9


def test_the_options_that_the_page_names_are_those_that_there_are() -> None:
    from llamatelemetry_jupyter.inference.options import ChatOptions

    said = PAGE.read_text(encoding="utf-8")
    unsaid = {"model", "fields", "tools", "tool_choice", "ignore_eos", "cache_prompt"}
    assert {name for name in ChatOptions.__optional_keys__ if f"`{name}`" not in said} == unsaid

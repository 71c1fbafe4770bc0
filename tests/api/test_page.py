"""The examples of docs/api.md, run in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from realengine import Engine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


@pytest.mark.engine
def test_the_examples_run(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"url": engine.url, "api_key": engine.key}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
        assert capsys.readouterr().out.strip()

"""What the documentation shows is what the code does: its code runs, its tables are the code's own."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from rig import execute

REPO = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```ipython\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def cells(page: Path) -> list[str]:
    """The blocks of a page that are marked as IPython, as cells; a ``%%`` line begins a cell of its own."""
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [cell.strip() for block in blocks for cell in re.split(r"\n\n(?=%%)", block)]


PAGES = [page for page in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))) if cells(page)]


@pytest.mark.engine
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    execute(cells(page), tmp_path / "page.ipynb")


def test_the_pages_that_people_start_from_have_code_that_runs() -> None:
    assert {"README", "magics"} <= {page.stem for page in PAGES}


def test_generated_tables_are_up_to_date() -> None:
    path = REPO / "tools" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    found = list(tables.pages())
    assert found
    for page, wanted in found:
        assert page.read_text(encoding="utf-8") == wanted, f"{page.name}: run python tools/tables.py"


def test_no_page_links_to_a_file_that_is_not_there() -> None:
    for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_what_is_called_verified_names_a_test_that_is_there() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPO / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (REPO / "docs" / "hosts.md").read_text(encoding="utf-8")))
    assert named
    assert {name for name in named if f"def {name}(" not in tests} == set()

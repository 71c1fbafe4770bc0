"""Writes the table of routes into docs/api.md; ``--check`` tells whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "api.md"
START, END = "<!-- routes: written by tools/endpoints.py -->\n", "<!-- end of routes -->\n"


def table() -> str:
    """One row per route."""
    from llamatelemetry_jupyter.api.routes import ROUTES

    lines = ["| Route | What | Method of the client | Known to work by |", "| --- | --- | --- | --- |"]
    for route in ROUTES:
        paths = "<br>".join(f"`{route.verb} {path}`" for path in route.paths)
        methods = ", ".join(f"`{name}`" for name in route.methods)
        lines.append(f"| {paths} | {route.what} | {methods} | {route.proof} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with a fresh table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + "\n" + table() + "\n" + END + rest.split(END)[1]


def main() -> int:
    """0 when the page is as it should be, or was written."""
    fresh = page()
    if "--check" in sys.argv:
        return int(fresh != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the benches: ``python -m bench`` or ``ONLY=id,id python -m bench``; a table, and build/bench/results.json.

A bench is a module of this folder with ``ID`` (or ``IDS``) and ``run() -> list[row]``; a row is ``{id, what, unit, ours,
peers: {name: value}, floor, ratio, goal, holds, method}``. Rows of benches that did not run stay in the file.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench" / "results.json"
KEYS = ("id", "what", "unit", "ours", "peers", "floor", "ratio", "goal", "holds", "method")


def ids(module: ModuleType) -> tuple[str, ...]:
    """The rows that a bench makes."""
    return tuple(getattr(module, "IDS", ())) or (module.ID,)


def discover() -> list[ModuleType]:
    """The modules of this folder that are benches, by name."""
    names = sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = [importlib.import_module(f"bench.{name}") for name in names if not name.startswith("_")]
    return [module for module in modules if hasattr(module, "ID") or hasattr(module, "IDS")]


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row in the order of its keys; raises ``ValueError`` for one that is not in the agreed form."""
    if set(row) != set(KEYS):
        raise ValueError(f"a row has the keys {sorted(row)}, not {sorted(KEYS)}")
    return {key: row[key] for key in KEYS}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    peers = ", ".join(f"{name} {value:g}" for name, value in row["peers"].items())
    floor = "" if row["floor"] is None else f"   floor {row['floor']:g}"
    ratio = "" if row["ratio"] is None else f"   ratio {row['ratio']:g}"
    return (
        f"{'ok  ' if row['holds'] else 'MISS'} {row['id']:16} {row['ours']:g} {row['unit']}   {peers}{floor}{ratio}\n"
        f"     {row['what']}; goal: {row['goal']}"
    )


def main() -> int:
    """0 when every bench ran and every goal was held."""
    wanted = {name for name in os.environ.get("ONLY", "").split(",") if name}
    modules = discover()
    if unknown := wanted - {one for module in modules for one in ids(module)}:
        known = ", ".join(one for module in modules for one in ids(module))
        sys.exit(f"no bench {', '.join(sorted(unknown))}; there are {known}")
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    held = True
    for module in modules:
        if wanted and not wanted & set(ids(module)):
            continue
        begun = time.monotonic()
        try:
            rows = [checked(row) for row in module.run()]
        except Exception:
            traceback.print_exc()
            print(f"FAIL {module.__name__}", flush=True)
            held = False
            continue
        for row in rows:
            print(line(row), flush=True)
        print(f"     {time.monotonic() - begun:.0f} s", flush=True)
        held = held and all(row["holds"] for row in rows)
        made = {row["id"] for row in rows}
        kept = [row for row in kept if row["id"] not in made] + rows
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

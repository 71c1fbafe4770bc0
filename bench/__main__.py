"""``python -m bench``: runs every module of this folder that has ``run()``; prints a table, writes build/bench/results.json.

Each ``run()`` returns rows of the form of DESIGN §7; ``ONLY=id,id`` runs a part.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "bench" / "results.json"


def main() -> int:
    """0 when every goal holds."""
    wanted = set(filter(None, os.environ.get("ONLY", "").split(",")))
    sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
    rows = []
    for path in sorted(HERE.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        module = importlib.import_module(path.stem)
        if not hasattr(module, "run") or (wanted and module.ID not in wanted):
            continue
        print(f"== {module.ID}", flush=True)
        found = module.run()
        rows += found if isinstance(found, list) else [found]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        peers = ", ".join(f"{name} {value:.4g}" for name, value in row["peers"].items())
        said = "holds" if row["holds"] else "does NOT hold"
        print(
            f"{row['id']:14} {row['ours']:.4g} {row['unit']} ({peers or 'no peer'}); goal {row['goal']} {said}: {row['what']}"
        )
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Writes docs/performance.md and docs/reliability.md from the last runs of ``make bench`` and ``make faults``.

The files of the runs are in build/; without them the pages stay as they are, so that a clean clone builds the
documentation from the pages that are committed.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_VERSIONS = (
    "llamatelemetry-jupyter",
    "xllamacpp",
    "ipython",
    "ipykernel",
    "jupyterlab",
    "anywidget",
    "opentelemetry-sdk",
)


def machine(results: Path) -> str:
    """Date of the run, kind of machine (never its name), versions."""
    day = datetime.fromtimestamp(results.stat().st_mtime, timezone.utc).date().isoformat()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = "with an NVIDIA GPU" if Path("/dev/nvidia0").exists() else "no GPU"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _VERSIONS if _installed(name))
    return (
        f"Run of {day} on {os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB of memory, {gpu}, "
        f"{platform.system()}, Python {platform.python_version()}; {versions}."
    )


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.4g}"


def performance(rows: list[dict[str, Any]]) -> str:
    """The table of benches, and how each row was measured."""
    lines = [
        "| | what | ours | peers | floor | ratio | goal | |",
        "|---|---|---:|---|---:|---:|---|---|",
    ]
    for row in rows:
        peers = "<br>".join(f"{_cell(name)} {_number(value)}" for name, value in row["peers"].items())
        lines.append(
            f"| `{row['id']}` | {_cell(row['what'])} | {_number(row['ours'])} {_cell(row['unit'])} | {peers} "
            f"| {_number(row['floor'])} | {_number(row['ratio'])} | {_cell(row['goal'])} "
            f"| {'held' if row['holds'] else '**missed**'} |"
        )
    lines += ["", "## How each was measured", ""]
    lines += [f"- `{row['id']}`: {row['method']}" for row in rows]
    return "\n".join(lines)


def reliability(rows: list[dict[str, Any]]) -> str:
    """The table of fault campaigns."""
    lines = ["| | what was done | tried | survived | lost | seconds |", "|---|---|---:|---:|---:|---:|"]
    lines += [
        f"| `{row['id']}` | {_cell(row['what'])} | {row['tried']} | {row['survived']} | {row['lost']} | {row['seconds']} |"
        for row in rows
    ]
    return "\n".join(lines)


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")


_PAGES: tuple[tuple[str, str, str, str, Callable[[list[dict[str, Any]]], str]], ...] = (
    ("performance.md", "Performance", "bench", "Measured side by side in one run, against what people use instead.", performance),
    ("reliability.md", "Reliability", "faults", "What was broken on purpose, how often, and what was lost.", reliability),
)  # fmt: skip


def main() -> None:
    """Writes the pages whose run is there."""
    for name, title, target, lead, table in _PAGES:
        results = ROOT / "build" / target / "results.json"
        if not results.exists():
            continue
        rows = json.loads(results.read_text())
        page = ROOT / "docs" / name
        page.write_text(
            f"# {title}\n\n<!-- made by tools/report.py from the last `make {target}` -->\n\n{lead} `make {target}` repeats it.\n"
            f"{machine(results)}\n\n{table(rows)}\n",
            encoding="utf-8",
        )
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()

"""``make demo``: runs the quickstart headless on a real model and shows what came out.

Writes build/demo/quickstart.ipynb, quickstart.html (opens offline) and summary.json. The figures are asked of the
notebook's own kernel after its last cell (:func:`print_facts` runs there), through the package's public names.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"
BUILD = ROOT / "build" / "demo"
_FACTS = "demo-facts: "
_STATIC = "data-llamatelemetry-static"  # the mark of the picture that a saved notebook keeps


# ------------------------------------------------------------------------------------------------- inside the kernel


def print_facts() -> None:
    """Print what this kernel's session holds, as one line of JSON behind a mark."""
    import llamatelemetry_jupyter as lt
    from llamatelemetry_jupyter.graphistry.builders import trace_tree

    session = lt.current_session()
    handle = session.handle
    session.spans.flush()
    rows = list(session.spans.rows())
    calls = [row for row in rows if row.output_tokens is not None and row.decode_tokens_per_s is not None]
    decoded = sum((row.output_tokens or 1) - 1 for row in calls)
    decode_s = sum(((row.output_tokens or 1) - 1) / (row.decode_tokens_per_s or 1) for row in calls)
    firsts = sorted(row.ttft_s for row in calls if row.ttft_s is not None)
    peaks: dict[str, dict[str, int]] = {}
    for series in session.samples.window(0, time.time_ns()).devices:
        device = peaks.setdefault(series.device, {})
        for owners in series.owners:
            together: dict[str, int] = {}
            for one in owners:
                together[one.owner] = together.get(one.owner, 0) + one.bytes
            for owner, count in together.items():
                device[owner] = max(device.get(owner, 0), count)
    frames = trace_tree(rows)
    facts = {
        "model": handle.model.id if handle and handle.model else None,
        "engine": handle.engine if handle else None,
        "output_tokens": sum(row.output_tokens or 0 for row in calls),
        "decode_tokens_per_s": round(decoded / decode_s, 2) if decode_s else None,
        "time_to_first_token_s": round(firsts[len(firsts) // 2], 4) if firsts else None,
        "span_names": sorted({row.name for row in rows}),
        "spans": len(rows),
        "graph_nodes": len(frames.nodes),
        "graph_edges": len(frames.edges),
        "peak_bytes": peaks,
    }
    print(_FACTS + json.dumps(facts))


# ------------------------------------------------------------------------------------------------ outside the kernel


def _isolate() -> str:
    """Private folders and a kernel of this environment; the kernel's name. The model cache stays the user's own."""
    state = BUILD / "state"
    spec = state / "jupyter" / "kernels" / "llamatelemetry-demo"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": spec.name, "language": "python"}))
    os.environ |= {
        "JUPYTER_PATH": str(state / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_RUNTIME_DIR": str(state / "run"),
        "IPYTHONDIR": str(state / "ipython"),
        "LLAMATELEMETRY_DATA": str(state / "data"),
        "LLAMATELEMETRY_BATCH": "1",
    }
    return spec.name


def _run(kernel: str) -> dict[str, Any]:
    """The executed notebook is written; what its kernel said comes back. Exits with the cell's error when one fails."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    book = nbformat.read(NOTEBOOK, as_version=4)
    ask = nbformat.v4.new_code_cell(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import demo; demo.print_facts()"
    )
    client = NotebookClient(book, timeout=600, kernel_name=kernel, resources={"metadata": {"path": str(BUILD)}})
    try:
        with client.setup_kernel():
            for index, cell in enumerate(book.cells):
                if cell.cell_type == "code":
                    print(f"  {cell.source.splitlines()[0][:96]}", flush=True)
                client.execute_cell(cell, index)
            book.cells.append(ask)  # nbclient looks a cell up by its index
            client.execute_cell(ask, len(book.cells) - 1, store_history=False)
            book.cells.pop()
    except CellExecutionError as error:
        nbformat.write(book, BUILD / "quickstart.ipynb")
        sys.exit(f"a cell failed; the notebook so far: {_shown(BUILD / 'quickstart.ipynb')}\n{error}")
    nbformat.write(book, BUILD / "quickstart.ipynb")
    printed = "".join(output.get("text", "") for output in ask.outputs)
    facts: dict[str, Any] = json.loads(printed.split(_FACTS, 1)[1].splitlines()[0])
    return facts | {"static_view_bytes": _static_bytes(book)}


def _static_bytes(book: Any) -> int:
    """Size of the picture that the saved notebook keeps; exits when there is none."""
    for cell in reversed(book.cells):
        for output in cell.get("outputs", ()):
            html = output.get("data", {}).get("text/html", "")
            if _STATIC in html:
                return len(html.encode())
    sys.exit("the executed notebook holds no static dashboard")


def _write_html() -> Path:
    """nbconvert's page, asking no other host for anything."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", embed_images=True)
    html, _ = exporter.from_filename(str(BUILD / "quickstart.ipynb"))
    path = BUILD / "quickstart.html"
    path.write_text(html, encoding="utf-8")
    return path


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def main() -> None:
    """Run, write, print."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    print(f"== {_shown(NOTEBOOK)}", flush=True)
    facts = _run(_isolate())
    page = _write_html()
    peaks = facts.pop("peak_bytes")
    (BUILD / "summary.json").write_text(json.dumps(facts | {"peak_bytes": peaks}, indent=1) + "\n")
    rows = [
        ("model", facts["model"]),
        ("engine", facts["engine"]),
        ("output tokens", facts["output_tokens"]),
        ("decode", _unit(facts["decode_tokens_per_s"], "tokens/s")),
        ("time to first token", _unit(facts["time_to_first_token_s"], "s")),
        ("spans", f"{facts['spans']} ({', '.join(facts['span_names'])})"),
        *(
            (
                f"peak memory, {device}",
                ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in owners.items() if v and k != "free"),
            )
            for device, owners in peaks.items()
        ),
        ("graph", f"{facts['graph_nodes']} nodes, {facts['graph_edges']} edges"),
        ("static dashboard", f"{facts['static_view_bytes'] / 1000:.1f} kB"),
        ("page", _shown(page)),
    ]
    print()
    for name, value in rows:
        print(f"{name:22} {'n/a' if value is None else value}")


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value} {unit}"


if __name__ == "__main__":
    main()

"""``make demo``: runs the quickstart without a browser and says what came of it.

Writes build/demo/quickstart.ipynb, quickstart.html (opens without a network) and summary.json. The figures come from
the kernel that ran the notebook, asked through the public Python API.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "demo"
SUMMARY = """
import json as _json, llamatelemetry_jupyter as _lt
from llamatelemetry_jupyter.graphistry.builders import trace_tree as _tree
_s = _lt.current_session()
_s.spans.flush()
_rows = _s.spans.rows()
_calls = [r for r in _rows if r.name.startswith("chat")]
_graph = _tree(_rows)
_rates = [r.decode_tokens_per_s for r in _calls if r.decode_tokens_per_s]
_host = _s.snapshot()["devices"]
print(_json.dumps({
    "model": _s.handle.model.id, "engine": _s.handle.engine,
    "output_tokens": sum(r.output_tokens or 0 for r in _calls),
    "decode_tokens_per_s": sorted(_rates)[len(_rates) // 2] if _rates else None,
    "time_to_first_token_s": min((r.ttft_s for r in _calls if r.ttft_s), default=None),
    "span_names": sorted({r.name for r in _rows}), "spans": len(_rows),
    "graph_nodes": len(_graph.nodes), "graph_edges": len(_graph.edges),
    "memory": [[d["name"], o["label"], o["bytes"]] for d in _host for o in d["owners"] if o["owner"] != "free" and o["bytes"]],
}))
"""


def main() -> int:
    """0 when the notebook ran to its end."""
    OUT.mkdir(parents=True, exist_ok=True)
    os.environ["LLAMATELEMETRY_BATCH"] = "1"
    # A kernel spec of our own: the user's "python3" may be another Python.
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / "python3"
        spec.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
        os.environ["JUPYTER_PATH"] = folder
        print("== running notebooks/01-quickstart.ipynb (the first run fetches a model of 98 MB)", flush=True)
        book, summary = execute(nbformat.read(ROOT / "notebooks" / "01-quickstart.ipynb", 4))
    nbformat.write(book, OUT / "quickstart.ipynb")
    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="")
    html, _ = exporter.from_notebook_node(book)
    (OUT / "quickstart.html").write_text(html, encoding="utf-8")
    memory = summary.pop("memory")
    summary["static_view_bytes"] = max(static_views(book), default=None)
    (OUT / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    show(summary, memory)
    return 0


def execute(book: Any) -> tuple[Any, dict[str, Any]]:
    """The executed notebook, and what its kernel says afterwards."""
    client = NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(OUT)}})
    with client.setup_kernel():
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index)
        asked = nbformat.v4.new_code_cell(SUMMARY)
        book.cells.append(asked)
        client.execute_cell(asked, len(book.cells) - 1)
        book.cells.pop()
    printed = "".join(o["text"] for o in asked.outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    return book, json.loads(printed)


def static_views(book: Any) -> list[int]:
    """Sizes of the dashboards' static pictures in the notebook."""
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    pages = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    return [len(page.encode()) for page in pages if re.search("data-llamatelemetry-static", page)]


def show(summary: dict[str, Any], memory: list[list[Any]]) -> None:
    """The short table."""
    rows = [
        ("model", f"{summary['model']} on {summary['engine']}"),
        ("tokens", str(summary["output_tokens"])),
        ("tokens/s", f"{summary['decode_tokens_per_s']:.1f}"),
        ("time to first token", f"{summary['time_to_first_token_s'] * 1e3:.0f} ms"),
        ("spans", f"{summary['spans']}: {', '.join(summary['span_names'])}"),
        *((f"{device}, {owner}", f"{size / 2**20:.1f} MiB") for device, owner, size in memory),
        ("graph", f"{summary['graph_nodes']} nodes, {summary['graph_edges']} edges"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    print(f"{OUT / 'quickstart.html'}")


if __name__ == "__main__":
    sys.exit(main())

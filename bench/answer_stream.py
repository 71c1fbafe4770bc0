"""What a streamed answer costs in a real JupyterLab, beside rendering its Markdown again at each token."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from .dashboard_browser import task_ms

IDS = ("answer_bytes", "answer_browser", "answer_late")
_ROOT = Path(__file__).resolve().parents[1]
_TOKENS, _PER_S = 2000, 100
_PIECES = f"""
import json, time
text = open({str(_ROOT / "tests" / "widgets" / "answer.md")!r}, encoding="utf-8").read()
text = (text * 20)[:{_TOKENS} * 5]
pieces = [text[i * 5:i * 5 + 5] for i in range({_TOKENS})]
def paced(show):
    begun = time.monotonic()
    for number, piece in enumerate(pieces, 1):
        show(piece)
        time.sleep(max(0, begun + number / {_PER_S} - time.monotonic()))
"""
_OURS = """
from llamatelemetry_jupyter.magics.commands.chat import _View
from llamatelemetry_jupyter.values import TokenEvent
view, came, shown = _View(get_ipython()), [], []
update = view.live.update
def noted(data, metadata=None):
    update(data, metadata); shown.append((time.monotonic(), len(view.parts)))
view.live.update = noted
def show(piece):
    came.append(time.monotonic())
    view.event(TokenEvent(time.time_ns(), "text", piece))
paced(show)
time.sleep(0.3)
"""
_THEIRS = """
from IPython.display import Markdown, display, update_display
display(Markdown(""), display_id="answer")
whole = ""
def show(piece):
    global whole
    whole += piece
    update_display(Markdown(whole), display_id="answer")
paced(show)
"""
_LATE = """
ages, first = [], 0
for at, many in shown:
    ages += [at - came[i] for i in range(first, many)]
    first = max(first, many)
print(json.dumps([sorted(ages)[len(ages) * 95 // 100] * 1e3, max(ages) * 1e3, len(shown), len(ages)]))
"""


def run() -> list[dict[str, object]]:
    """Bytes on the kernel's websocket, CPU of the page's main thread, and how late text is shown."""
    sys.path.insert(0, str(_ROOT / "tests"))
    from rig import Browser, Lab

    with (
        tempfile.TemporaryDirectory() as folder,
        Browser() as browser,
        Lab(Path(folder) / "home", {"python3": Path(sys.executable)}) as lab,
    ):
        (ours_bytes, ours_ms), late = _measured(lab, browser, _OURS)
        (their_bytes, their_ms), _ = _measured(lab, browser, _THEIRS)
    p95, most, updates, tokens = late
    how = (
        f"real JupyterLab in real Chromium; {_TOKENS:,} pieces of five characters of real Markdown at {_PER_S}/s, shown by what "
        f"shows an answer in %%llama ({updates:.0f} updates), and by update_display(Markdown(whole)) at each piece"
    )
    ratio, cpu = ours_bytes / their_bytes, ours_ms / their_ms
    return [
        {
            "id": "answer_bytes", "what": "a streamed answer of 2,000 tokens, bytes to the browser", "unit": "B", "ours": ours_bytes,
            "peers": {"Markdown at each token": their_bytes}, "floor": None, "ratio": round(ratio, 4), "goal": "≤ 1/10",
            "holds": ratio <= 0.1, "method": how,
        },
        {
            "id": "answer_browser", "what": "the same, CPU of the page", "unit": "ms", "ours": round(ours_ms),
            "peers": {"Markdown at each token": round(their_ms)}, "floor": None, "ratio": round(cpu, 4), "goal": "≤ 1/4",
            "holds": cpu <= 0.25, "method": how + "; time of the main thread's tasks (CDP Performance.getMetrics)",
        },
        {
            "id": "answer_late", "what": "the same, from a piece's arrival to the message that shows it, the latest", "unit": "ms",
            "ours": round(most, 1), "peers": {}, "floor": None, "ratio": None, "goal": "≤ 150 ms", "holds": most <= 150 and tokens == _TOKENS,
            "method": f"{how}; in the kernel; 95 of 100 within {p95:.0f} ms",
        },
    ]  # fmt: skip


def _measured(lab: Any, browser: Any, code: str) -> tuple[tuple[int, float], list[float]]:
    from rig import Notebook

    book = Notebook.open(lab, browser, [_PIECES, code])
    try:
        devtools = book.page.context.new_cdp_session(book.page)
        devtools.send("Performance.enable")
        before = book.received_bytes, task_ms(devtools)
        book.run_all(timeout=240)
        book.page.wait_for_timeout(500)
        spent = book.received_bytes - before[0], task_ms(devtools) - before[1]
        assert book.failures() == []
        late = json.loads(book.kernel(_LATE)) if "shown" in code else []
    finally:
        book.close()
    return spent, late

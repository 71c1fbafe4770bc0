"""Records docs/pictures/dashboard-live.png, an animated PNG of a real dashboard: ``python tools/animation.py``.

A real JupyterLab on the real engine; each picture holds only the part that has changed since the one before it, because
a whole one has 100 kB.
"""

from __future__ import annotations

import base64
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures" / "dashboard-live.png"
if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_HEIGHT = 700
_CELLS = ["%load_ext llamatelemetry", "%llama start smollm2-135m --ctx 2048 --slots 2", "%llama dashboard"]
_CALL = "get_ipython().run_cell_magic('llama', '-n 70 -t 0', {!r})"
_ASK = """code => { jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code, store_history: false}); }"""
# The first frame whole; of the next ones the rectangle in which a pixel is another, as PNG.
_CHANGED = """async shots => { let before = null; const out = [];
    for (const shot of shots) {
        const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + shot)).blob());
        const canvas = new OffscreenCanvas(image.width, image.height), c = canvas.getContext('2d');
        c.drawImage(image, 0, 0);
        const now = new Uint32Array(c.getImageData(0, 0, image.width, image.height).data.buffer);
        let [left, top, right, bottom] = before ? [image.width, image.height, -1, -1] : [0, 0, image.width - 1, image.height - 1];
        if (before) now.forEach((pixel, i) => { if (pixel === before[i]) return;
            const x = i % image.width, y = (i - x) / image.width;
            left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y); });
        before = now;
        if (right < left) { out.push(null); continue; }
        const [w, h] = [right - left + 1, bottom - top + 1], part = new OffscreenCanvas(w, h);
        part.getContext('2d').drawImage(image, left, top, w, h, 0, 0, w, h);
        const bytes = new Uint8Array(await (await part.convertToBlob()).arrayBuffer());
        out.push([left, top, w, h, btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''))]); }
    return out; }"""


def main() -> None:
    """Record it; says how large it is."""
    sys.path.insert(0, str(ROOT / "tests"))
    from rig import Browser, Lab, Notebook

    with (
        tempfile.TemporaryDirectory() as folder,
        Browser() as browser,
        Lab(Path(folder) / "home", {"python3": Path(sys.executable)}) as lab,
    ):
        book = Notebook.open(lab, browser, _CELLS)
        book.page.set_viewport_size({"width": 1260, "height": 1300})
        book.run_all(timeout=240)
        book.output(2)
        dashboard = book.page.locator(".llamatelemetry")
        dashboard.wait_for()
        frames = _recorded(book.page, dashboard)
        parts = book.page.evaluate(_CHANGED, [base64.b64encode(shot).decode() for _, shot in frames])
        book.close()
    TARGET.write_bytes(animated([hold for hold, _ in frames], parts))
    print(f"{TARGET.relative_to(ROOT)} {TARGET.stat().st_size / 1000:.0f} kB, {len(frames)} frames")


def _recorded(page: Page, dashboard: Locator) -> list[tuple[float, bytes]]:
    """Seconds that each picture stays, and the picture: calls come in, a figure is explained, a trace is looked at."""
    frames: list[tuple[float, bytes]] = []

    def shoot(hold_s: float) -> None:
        dashboard.evaluate("e => e.scrollIntoView({block: 'start'})")
        box = dashboard.bounding_box()
        assert box is not None
        clip: Any = {"x": box["x"], "y": box["y"], "width": int(box["width"]), "height": _HEIGHT}
        frames.append((hold_s, page.screenshot(clip=clip, animations="disabled")))

    shoot(1.0)
    for question in ("Why is the sky blue?", "Name three colours of a sunset.", "What is a rainbow?"):
        page.evaluate(_ASK, _CALL.format(question))
        end = time.monotonic() + 2.2
        while time.monotonic() < end:
            time.sleep(0.35)
            shoot(0.35)
    page.wait_for_timeout(1500)
    shoot(1.2)
    dashboard.locator('[data-tab="traces"]').click()
    dashboard.locator(".ll-tracelist .ll-rows .ll-line").first.click()
    page.wait_for_timeout(1200)
    shoot(1.8)
    dashboard.locator(".ll-tree .ll-rows").focus()
    for _ in range(3):
        page.keyboard.press("+")
        page.wait_for_timeout(150)
        shoot(0.5)
    dashboard.locator('[data-tab="graph"]').click()
    page.wait_for_timeout(1200)
    shoot(2.2)
    return frames


def animated(holds_s: list[float], parts: list[list[Any] | None]) -> bytes:
    """An animated PNG (APNG 1.0) of ``parts``: left, top, width, height and a PNG in base64; ``None`` is no change."""
    shown: list[tuple[float, list[Any]]] = []
    for hold_s, part in zip(holds_s, parts, strict=True):
        if part is None:
            shown[-1] = (shown[-1][0] + hold_s, shown[-1][1])
        else:
            shown.append((hold_s, part))
    out, number = bytearray(b"\x89PNG\r\n\x1a\n"), 0
    for index, (hold_s, (left, top, width, height, encoded)) in enumerate(shown):
        chunks = list(_chunks(base64.b64decode(encoded)))
        if index == 0:
            out += _chunk(b"IHDR", next(data for kind, data in chunks if kind == b"IHDR"))
            out += _chunk(b"acTL", struct.pack(">II", len(shown), 0))
        control = struct.pack(">IIIIIHHBB", number, width, height, left, top, round(hold_s * 1000), 1000, 0, 0)
        out += _chunk(b"fcTL", control)
        number += 1
        for kind, data in chunks:
            if kind != b"IDAT":
                continue
            if index == 0:
                out += _chunk(b"IDAT", data)
            else:
                out += _chunk(b"fdAT", struct.pack(">I", number) + data)
                number += 1
    return bytes(out + _chunk(b"IEND", b""))


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    main()

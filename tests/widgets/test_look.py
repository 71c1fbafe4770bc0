"""The dashboard looks as it did when a person last looked: every tab, light and dark, at three widths.

The pictures are in tests/widgets/look, made by ``LOOK=renew pytest tests/widgets/test_look.py`` and looked at before they
are committed. Other fonts or another Chromium draw other letters: there is nothing to compare with then.
"""

from __future__ import annotations

import base64
import json
import os

import pytest
from dashboardpage import REPO, settle
from tracesworld import Session, asked_of, called
from viewworld import trace

pytestmark = pytest.mark.browser

LOOK = REPO / "tests" / "widgets" / "look"
RENEW = os.environ.get("LOOK") == "renew"
WIDTHS = (320, 800, 1600)
TABS = ("now", "traces", "graph")
#: Blocks of 8 × 8 px whose mean colour is farther off than this (of 255) have changed, and so many of 1,000 may.
FAR, MAY_CHANGE = 12, 4
#: How this machine draws letters.
_LETTERS = """() => { const c = document.createElement('canvas').getContext('2d'), out = [];
    for (const font of ['11px sans-serif', '600 17px system-ui', '12px monospace']) { c.font = font;
        out.push(Math.round(c.measureText('The quick brown fox ● ▶ ≈ ━ 0123456789').width * 100)); }
    return [...out, navigator.userAgent.match(/Chrome\\/(\\d+)/)?.[1]].join(' '); }"""
_SMALLER = """async shot => { const one = await createImageBitmap(await (await fetch('data:image/png;base64,' + shot)).blob());
    const canvas = document.createElement('canvas'); canvas.width = one.width / 2; canvas.height = one.height / 2;
    const c = canvas.getContext('2d'); c.imageSmoothingQuality = 'high'; c.drawImage(one, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL('image/webp', 0.9).split(',')[1]; }"""
_CHANGED = """async ([a, b, far]) => { const read = async webp => {
        const one = await createImageBitmap(await (await fetch('data:image/webp;base64,' + webp)).blob());
        const canvas = document.createElement('canvas'); canvas.width = one.width / 4 | 0; canvas.height = one.height / 4 | 0;
        const c = canvas.getContext('2d'); c.imageSmoothingQuality = 'high'; c.drawImage(one, 0, 0, canvas.width, canvas.height);
        return [one.width, one.height, c.getImageData(0, 0, canvas.width, canvas.height).data]; };
    const [w, h, p] = await read(a), [v, k, q] = await read(b);
    if (w !== v || Math.abs(h - k) > 2) return [[w, h], [v, k], 1000];
    let changed = 0; const n = Math.min(p.length, q.length);
    for (let i = 0; i < n; i += 4) changed += Math.max(...[0, 1, 2].map(k => Math.abs(p[i + k] - q[i + k]))) > far;
    return [[w, h], [v, k], changed / (n / 4) * 1000]; }"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_looks_as_it_did(dashboard, dark, width, tmp_path):
    session = Session(
        called([*trace(1, 8), *trace(2, 14, calls=2, decode_s=1.0), *trace(3, 22, decode_s=3.0)], long=10)
    )
    page = dashboard(session.snapshot(), dark=dark, width=width + 24)
    letters = page.evaluate(_LETTERS)
    told = LOOK / "letters.json"
    if not RENEW and json.loads(told.read_text()) != letters:
        pytest.skip("this machine has other fonts or another Chromium than the pictures were made with")
    page.context.new_cdp_session(page).send("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
    other = {}
    for tab in TABS:
        page.locator(f'[data-tab="{tab}"]').click()
        for _ in range(3):
            asked_of(session, page)
        if tab == "traces":
            page.locator(".ll-tracelist .ll-rows .ll-line").first.click()
            settle(page)
            page.wait_for_timeout(250)
            for _ in range(3):
                asked_of(session, page)
        page.mouse.move(1, 1)
        page.wait_for_timeout(250)
        shot = page.locator(".llamatelemetry").screenshot(animations="disabled")
        now = page.evaluate(_SMALLER, base64.b64encode(shot).decode())
        name = f"{tab}-{'dark' if dark else 'light'}-{width}.webp"
        if RENEW:
            LOOK.mkdir(exist_ok=True)
            told.write_text(json.dumps(letters))
            (LOOK / name).write_bytes(base64.b64decode(now))
        before = base64.b64encode((LOOK / name).read_bytes()).decode()
        was, here, changed = page.evaluate(_CHANGED, [before, now, FAR])
        if changed > MAY_CHANGE:
            (tmp_path / name).write_bytes(base64.b64decode(now))
            other[name] = f"{changed:.1f} of 1,000 blocks, {was} → {here}: {tmp_path / name}"
    assert other == {}

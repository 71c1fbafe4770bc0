"""The built dashboard in Chromium on a model of its own: the page, and what the tests of it look for."""

from __future__ import annotations

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PICTURES = os.environ.get("PICTURES")
ATTACK = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
#: What hangs out of the dashboard or lies over its neighbour; text that ends in an ellipsis is meant to.
MISPLACED = """() => { const root = document.querySelector('.llamatelemetry'), frame = root.getBoundingClientRect(), out = [];
    const shown = e => e.getClientRects().length && !e.closest('[hidden]');
    for (const e of root.querySelectorAll('*')) { const r = e.getBoundingClientRect();
        if (shown(e) && r.width && (r.right > frame.right + 1 || r.left < frame.left - 1)
            && !e.closest('.ll-plot, .ll-track, .ll-lines')) out.push(['outside', e.className, r.right - frame.right]); }
    for (const list of ['.ll-figure', '.ll-owner > *', '.ll-controls > *', '.ll-title > *', '.ll-panel > *']) {
        const boxes = [...root.querySelectorAll(list)].filter(shown).map(e => [e, e.getBoundingClientRect()]);
        boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
            if (p.width && q.width && p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
                out.push(['overlap', a.className, b.className]); })); }
    for (const e of root.querySelectorAll('.ll-number, .ll-value, .ll-span-time, .ll-button, .ll-state, .ll-label'))
        if (shown(e) && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
            out.push(['cut', e.className, e.textContent]);
    return out; }"""


def text(page, field):
    return page.locator(f'[data-field="{field}"]').inner_text()


def settle(page):
    """Two frames: what was asked for has been drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def shoot(page, name):
    if PICTURES:
        page.locator(".llamatelemetry").screenshot(path=str(Path(PICTURES) / f"page-{name}.png"))

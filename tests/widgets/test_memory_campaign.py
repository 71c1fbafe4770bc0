"""A page that a dashboard lives on for half an hour holds no more at the end than it did before."""

from __future__ import annotations

import time

import pytest
import viewworld as world

from llamatelemetry_jupyter.views.model import snapshot

pytestmark = [pytest.mark.faults, pytest.mark.browser]

_EVERY_S, _ROWS = 0.5, 5
#: Half a second of samples and a changed span, as the feed sends them; ``count`` of them, each drawn.
_LIVE = """async ([series, count, seq, at, span]) => {
    const frame = () => new Promise(done => requestAnimationFrame(done));
    for (let n = 0; n < count; n++) {
        const rows = Array.from({length: 5}, (_, i) =>
            [at + n * 500 + i * 100, ...Array.from({length: series}, (_, k) => 2 ** 30 + (n * 7919 * (k + 1)) % 2 ** 28)]);
        harness.frame(++seq, rows);
        const start = at + n * 500, id = (n + seq).toString(16).padStart(16, '0');
        harness.message({type: 'spans', seq: ++seq, spans: [{...span, span_id: id, trace_id: id + id,
            parent_id: null, start_ms: start, end_ms: start + 400}]});
        await frame();
    }
    return seq; }"""
_FILL = """([series, rows, seq, at]) => { for (let n = 0; n < rows; n += 100)
        harness.frame(++seq, Array.from({length: 100}, (_, i) => [at + (n + i) * 100,
            ...Array.from({length: series}, (_, k) => 2 ** 30 + ((n + i) * 7919 * (k + 1)) % 2 ** 28)]));
    return seq; }"""


def test_half_an_hour_of_updates_leaves_the_pages_memory_as_it_was(dashboard, scale, fault_report):
    made, begun = snapshot(**world.session()), time.monotonic()
    page = dashboard(made)
    series, at = len(made["series"]), made["now_ms"] + 1000
    # An hour is kept; what comes after it takes the place of what was before.
    seq = page.evaluate(_FILL, [series, 38_000, 1, at])
    at += 38_000 * 100
    devtools = page.context.new_cdp_session(page)

    def used():
        sizes = []
        for _ in range(4):  # what was just dropped is not always found at once
            devtools.send("HeapProfiler.collectGarbage")
            page.wait_for_timeout(100)
            sizes.append(devtools.send("Runtime.getHeapUsage")["usedSize"])
        return min(sizes)

    updates, measured = max(60, int(1800 / _EVERY_S * scale)), []
    seq = page.evaluate(_LIVE, [series, 450, seq, at, made["spans"][0]])  # fills what is bounded by count
    at += 450 * 500
    measured.append(used())
    for _ in range(6):
        seq = page.evaluate(_LIVE, [series, updates // 6, seq, at, made["spans"][0]])
        at += updates // 6 * 500
        measured.append(used())
    grown = max(measured) / measured[0] - 1
    nodes = page.evaluate("() => document.querySelectorAll('*').length")
    fault_report(
        id="page_memory",
        what=f"{updates * _EVERY_S / 60:.0f} minutes of live updates after a full hour of history: the page's heap stays within 5 %",
        tried=updates,
        survived=updates if abs(grown) <= 0.05 else 0,
        lost=f"{grown:+.1%} at most",
        seconds=time.monotonic() - begun,
    )
    assert abs(grown) <= 0.05, measured
    assert nodes < 3000

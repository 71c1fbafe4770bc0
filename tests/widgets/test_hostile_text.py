"""Hostile text in every place of every face: nothing of it runs, asks a host, or becomes an element of its own."""

from __future__ import annotations

import re

import pytest
import viewworld as world
from hostile import LIVE, SAFE
from rig import Watched

from llamatelemetry_jupyter.views import model

pytestmark = pytest.mark.browser

#: Answers whatever a dashboard asks with the corpus in every text; edges and times are such that all of it is drawn.
ANSWER = """words => { const T0 = 1790000000000, at = i => words[i % words.length];
    const spans = words.map((w, i) => ({span_id: i ? 's' + i : w, parent_id: i % 7 ? 's' + (i - i % 7) : null, name: w, kind: w,
        status: i % 2 ? 'error' : w, error_type: w, scope: w, model: w, server: w, cell_id: w, output_tokens: 3, ttft_s: 0.01,
        start_ns: String((T0 + i) * 1e6), end_ns: String((T0 + i + 900) * 1e6), gaps_s: [0.1], attributes:
            i ? {[w]: w} : Object.fromEntries(words.flatMap((w, j) => [[w, w], ['k' + j, [w, {[w]: w}]]]))}));
    spans[0].attributes['otel.events'] = words.map(w => ({t_ns: 1, name: w, [w]: w}));
    spans[0].attributes['otel.links'] = words.map(w => ({[w]: w}));
    const column = f => words.map(f), known = {
        traces: {trace_id: column((w, i) => i ? w + i : 't'), span_id: column((w, i) => i ? w + i : words[0]), start_ms: column((_, i) => T0 + 90000 - i),
            end_ms: column((_, i) => T0 + 90000 + i), complete: column(() => true), failed: column((_, i) => i % 2 > 0),
            name: column((_, i) => i), model: column((_, i) => i), cell: column((_, i) => i), error_type: column((_, i) => i), texts: words},
        trace: {spans, series: words.slice(0, 8).map((w, i) => ({id: 'memory/' + w, group: i % 2 ? 'util' : 'memory', device: w, owner: w, label: w})),
            points: {t_ms: [T0, T0 + 500], values: words.slice(0, 8).map(() => [1, 2])}},
        graph: {kind: 'session', trace_id: words[0], spans: 5, width: 900, height: words.length * 50, left_out: words,
            nodes: words.map((w, i) => ({id: 'n' + i, kind: w, label: w, trace_id: w, span_id: w, x: 0, y: i * 50, width: 300, height: 40,
                start_ms: T0, end_ms: T0 + 5, spans: 1, p50_s: 1, p95_s: 1, tokens: 1, errors: i % 2})),
            edges: words.map((w, i) => [i, (i + 1) % words.length, w, 1, 1, 1])},
        'graph.prepare': {token: words[0], host: at(1), rows: Object.fromEntries(words.map(w => [w, 1])),
            columns: Object.fromEntries(words.map(w => [w, words.slice(0, 40)])), left_out: words},
        'graph.upload': {url: window.link ?? 'javascript:window.pwned=1'}};
    harness.sent.push = m => { queueMicrotask(() => harness.message({type: 'progress', id: m.id, stage: at(3), fraction: 0.5}));
        setTimeout(() => harness.message({type: 'reply', id: m.id, ...(m.op in known ? {ok: true, data: structuredClone(known[m.op])}
            : {ok: false, error: {what: at(0), hint: at(5)}})})); }; }"""
#: The snapshot with other words in every text, a frame each; what is live is told at once.
EACH = """async ([made, words, live]) => { const out = [], frame = () => new Promise(requestAnimationFrame), look = eval(live);
    for (let n = 0; n < words.length; n += 3) { const at = i => words[(n + i) % words.length], s = structuredClone(made);
        Object.assign(s.server, {name: at(0), state: n % 3 ? 'ready' : at(1), model: at(2), engine: at(3), url: at(4),
            stage: n % 4 ? null : at(5), reason: n % 5 ? null : at(6), remedy: at(7)});
        s.titles = {tokens_per_s: at(8), ttft: at(9)};
        s.devices.forEach((d, i) => { d.name = at(10 + i); d.owners.forEach((o, j) => { o.process = at(11 + j); o.pid = 7; }); });
        s.series.forEach((one, i) => { one.label = at(12 + i); if (one.group === 'tokens' && n % 48 === 0) { one.id = 'tokens/' + at(13 + i); one.server = at(14 + i); } });
        s.spans.forEach((one, i) => Object.assign(one, {name: (i % 2 ? 'chat ' : '') + at(i), model: at(i + 1), error_type: at(i + 2), span_id: n % 48 ? 's' + i : at(i) + i,
            trace_id: at(i + 3), cell_id: at(i), server: at(i), status: 'error'}));
        harness.setTraits({snapshot: s, seq: 10 + n});
        await frame();
        document.querySelectorAll('.ll-span')[n % 3]?.click();
        document.querySelectorAll('.ll-figure')[n % 6].click();
        if (n % 24 === 0) { await frame(); out.push(...look('#view')); } }
    await frame(); return [...out, ...look('#view')]; }"""


def frames(page):
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


class Canary:
    """What a page must not do: beside running something, open a dialog or a page, or go elsewhere."""

    def __init__(self, page) -> None:
        self.page, self.seen = page, []
        page.on("dialog", lambda one: (self.seen.append(f"dialog {one.message}"), one.dismiss()))
        page.on("popup", lambda one: self.seen.append(f"popup {one.url}"))
        page.on("download", lambda one: self.seen.append(f"download {one.url}"))
        self.url = page.url
        page.on("framenavigated", lambda frame: frame.url != self.url and self.seen.append(f"went to {frame.url}"))

    def check(self, selector: str) -> None:
        assert self.page.evaluate(LIVE, selector)[:5] == []
        assert self.seen == []


def test_the_canary_sings_where_nothing_is_escaped(browser):
    """Pictures that run something, put into a page as they are: what the other tests look for is there to be seen."""
    page = browser.context.new_page()
    page.set_content("<div id=a></div>")
    words = [word for word in SAFE if re.search(r"<img src=x onerror|<svg onload|<details open", word)]
    told = page.evaluate(
        """async ([words, live]) => { const look = eval(live), a = document.getElementById('a'); let lives = 0, ran = 0;
        for (const word of words) { delete window.pwned; a.innerHTML = word; lives += look('#a').length > 0;
            await new Promise(done => setTimeout(done, 4)); ran += window.pwned === 1; }
        return [lives, ran]; }""",
        [words, LIVE],
    )
    page.close()
    assert told[0] > 80, (told, len(words))
    assert told[1] > 60, (told, len(words))


def test_the_dashboard(dashboard):
    page = dashboard(model.snapshot(**world.session()))
    canary = Canary(page)
    page.evaluate(ANSWER, list(SAFE))
    assert page.evaluate(EACH, [model.snapshot(**world.session()), list(SAFE), LIVE])[:5] == []
    canary.check("#view")
    page.evaluate("s => harness.setTraits({snapshot: s, seq: 5000})", model.snapshot(**world.session()))
    page.locator('[data-tab="traces"]').click()
    page.wait_for_function("n => document.querySelector('.ll-grid').ariaRowCount > n", arg=len(SAFE))
    for at in range(0, len(SAFE) * 22, 400):
        page.evaluate("at => { document.querySelector('.ll-tracelist .ll-rows').scrollTop = at; }", at)
    canary.check("#view")
    page.evaluate("() => { document.querySelector('.ll-tracelist .ll-rows').scrollTop = 0; }")
    page.locator(".ll-tracelist .ll-rows .ll-line[aria-rowindex='2']").click()
    page.wait_for_selector(".ll-attributes dt")
    page.locator(".ll-attributes >> text=Show all >> nth=-1").click()
    assert page.locator(".ll-attributes dt").count() > len(SAFE)
    for at in range(0, len(SAFE) * 40, 400):
        page.evaluate("at => { document.querySelector('.ll-tree .ll-rows').scrollTop = at; }", at)
    canary.check("#view")
    page.locator('[data-tab="graph"]').click()
    page.wait_for_function("n => document.querySelectorAll('.ll-node').length === n", arg=len(SAFE))
    page.locator('[data-action="export"]').click()
    page.locator('[data-action="confirm"]').click()
    page.locator(".ll-export", has_text="its link leads nowhere").wait_for()
    page.locator('[data-action="table"]').click()
    frames(page)
    canary.check("#view")
    page.locator('[data-action="start"], [data-action="stop"]').last.click()
    page.locator('[data-action="yes"]').click()
    page.locator('.ll-top .ll-strip[role="alert"]').wait_for()
    canary.check("#view")


@pytest.fixture
def chat(origin, browser):
    """The built chat on a page of its own."""
    from urllib.parse import urlsplit

    watched = Watched(browser.context.new_page(), urlsplit(origin).netloc)
    watched.page.goto(f"{origin}/js/test/harness.html?widget=chat")
    watched.page.wait_for_function("() => window.harness")
    yield watched.page
    assert (watched.errors, watched.foreign) == ([], [])
    watched.close()


def test_the_chat(chat):
    canary = Canary(chat)
    turns = [
        {
            "id": 2 * n + k, "role": role, "text": word, "model": word, "state": "failed" if k else "done", "seq": 0, "reasoning": word, "finish_reason": word,
            "trace_id": word, "error": {"what": word, "hint": word}, "tokens": 3, "seconds": 1,
        }
        for n, word in enumerate(SAFE) for k, role in enumerate(("user", "assistant"))
    ]  # fmt: skip
    chat.evaluate("async turns => { harness.setTraits({turns, about: {}}); await harness.start({}); }", turns)
    chat.wait_for_function("n => document.querySelectorAll('.ll-turn').length === n", arg=len(turns))
    canary.check("#view")
    links = chat.evaluate(
        "() => [...document.querySelectorAll('.ll-said a[href]')].map(a => [a.protocol, a.rel, a.target])"
    )
    assert links
    assert {tuple(one) for one in links} <= {
        ("https:", "noopener noreferrer nofollow", "_blank"),
        ("http:", "noopener noreferrer nofollow", "_blank"),
    }
    # Written a few characters at a time, each on a turn of its own; and what surrounds the turns.
    told = chat.evaluate(
        """async ([words, live]) => { const out = [], look = eval(live);
        for (const [n, w] of words.entries()) { const turn = 10000 + n; let seq = 0;
            const about = {model: w, server: w, hint: n % 2 ? {what: w, hint: w} : null, parameters: {system: w, [w]: w}};
            harness.setTraits({turns: [{id: turn, role: 'assistant', text: '', state: 'running', seq}], about});
            for (let at = 0; at < Math.min(400, w.length); at += 40) {
                harness.message({type: 'piece', turn, seq: ++seq, text: w.slice(at, at + 40), reasoning: w.slice(0, 20), tokens: 1, progress: null});
                if (at % 400 === 0) await new Promise(requestAnimationFrame); }
            out.push(...look('#view')); }
        return out; }""",
        [list(SAFE), LIVE],
    )
    assert told[:5] == []
    canary.check("#view")

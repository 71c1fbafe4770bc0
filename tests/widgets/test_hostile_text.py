"""Hostile text in every place of every face: nothing of it runs, asks a host, or becomes an element of its own."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import viewworld as world
from hostile import CORPUS, LIVE, SAFE
from rig import Watched, execute, to_html

from llamatelemetry_jupyter import escape
from llamatelemetry_jupyter.views import model, plots

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
        self.page, self.seen, self.popups = page, [], []
        page.on("dialog", lambda one: (self.seen.append(f"dialog {one.message}"), one.dismiss()))
        page.on("popup", lambda one: (self.popups.append(one), self.seen.append(f"popup {one.url}")))
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


#: Everything that shows itself without a widget, with the corpus in it, as the cells of a notebook would show it.
FACES = f"""
import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
import hostile, viewworld as world
from IPython.display import HTML, Markdown, display
from dataclasses import replace
from llamatelemetry_jupyter import escape
from llamatelemetry_jupyter.graphistry.builders import session_graph, trace_tree
from llamatelemetry_jupyter.inference.tokens import Token
from llamatelemetry_jupyter.telemetry import semconv
from llamatelemetry_jupyter.values import Answer
from llamatelemetry_jupyter.views import graph, model, static, text, tokens, transcript
def show(html): display(HTML(html))
words = [w if len(w) < 2000 else w[:2000] for w in hostile.CORPUS]
rows = [replace(row, name=w, model=w, server=w, error_type=w, cell_id=w, status="error", attributes={{w: w, semconv.OPERATION_NAME: "chat"}})
    for n, w in enumerate(words[::2]) for row in world.trace(n + 1, n)[:2]]
"""
SHOWN = (
    "for n in range(0, len(rows), 40): show(static.static_html(model.snapshot(**world.session() | {'spans': world.Spans(rows[n:n + 40]), 'handle': world.handle(words[n // 2])})))",
    "for n in range(0, len(rows), 80): show(graph.graph_html(session_graph(rows[n:n + 80]))); show(graph.graph_html(trace_tree(rows[n:n + 80]), words[n // 2]))",
    "show(text.trace_html(rows[:400])); display(text.spans_table(rows))",
    ("for n in range(0, len(words), 200): show(transcript.static_html([{'role': 'assistant', 'text': w, 'model': w, 'error': {'what': w, 'hint': w}, "
    "'tokens': 1, 'seconds': 1, 'tokens_per_s': 1, 'state': w, 'finish_reason': w} for w in words[n:n + 100]]))"),
    "display(tokens.Tokens(tuple(Token(1, w.encode('utf-8', 'replace'), w, n % 2 == 0) for n, w in enumerate(words))))",
    "for w in words: display(Answer(w, 'stop', reasoning=w, model=w, server=w, error=w)); show(Answer(w, 'stop', model=w)._repr_html_())",
    "for w in words: display(Markdown(escape.markdown('before ' + w + ' after')))",
    "for w in words: print(escape.plain(w))",
)  # fmt: skip


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """That notebook after it ran."""
    folder = tmp_path_factory.mktemp("faces")
    execute([FACES, *SHOWN], folder / "faces.ipynb")
    return folder / "faces.ipynb"


def pictures(page, selector):
    """How many there are, and those that show nothing."""
    return page.evaluate(
        """async s => { const all = [...document.querySelectorAll(s + ' img')]; const bad = [];
        for (const i of all) { i.loading = 'eager'; await i.decode().catch(() => {}); if (!(i.naturalWidth > 0)) bad.push(i.src.slice(0, 80)); }
        return [all.length, bad]; }""",
        selector,
    )


def test_static_twins_and_answers_in_nbconverts_page(executed, browser):
    watched = browser.open_file(to_html(executed))
    canary = Canary(watched.page)
    count, broken = pictures(watched.page, ".jp-OutputArea-output")
    assert (count > 40, broken) == (True, [])
    # Every link of a model's that is there leads to the web, and every heading can be clicked.
    canary.check(".jp-OutputArea-output")
    assert [one for one in watched.foreign if "cdnjs" not in one and "jsdelivr" not in one and "unpkg" not in one] == []
    watched.close()


#: JupyterLab's own links in plain text, to any scheme with ``://`` in it: not ours, but nothing may come of a click.
HOSTS = ".jp-RenderedText a"


def test_the_same_in_an_untrusted_notebook(executed, notebook):
    book = notebook(executed, wait=False)
    canary = Canary(book.page)
    book.page.locator(".jp-OutputArea-output img").first.wait_for()
    for cell in range(1, len(SHOWN) + 1):
        book.output(cell)
        frames(book.page)
        canary.check(".jp-RenderedHTMLCommon")
    canary.check(".jp-OutputArea-output:not(.jp-RenderedText)")
    assert book.foreign == []
    # With rel=noopener they open an empty page of its own, which knows nothing of the notebook.
    clicked = book.page.evaluate(
        """links => { const bad = [...document.querySelectorAll(links)].filter(a => /^javascript:/i.test(a.href)).slice(0, 3);
        for (const a of bad) a.click(); return bad.map(a => a.rel); }""",
        HOSTS,
    )
    book.page.wait_for_timeout(300)
    assert set(clicked) <= {"noopener"}
    assert book.page.evaluate("() => window.pwned") is None
    for one in canary.popups:
        one.close()


def test_plotly_figures(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "_MOST_GROUPS", 2000)
    monkeypatch.setattr(plots, "_MOST_ROWS", 2000)
    words = list(SAFE[::5])
    made = model.snapshot(**world.session())
    series = next(i for i, one in enumerate(made["series"]) if one["group"] == "tokens")
    device = next(i for i, one in enumerate(made["series"]) if one["group"] == "memory")
    values = made["points"]["values"]
    rows = [
        world.replace(row, span_id=f"{n}-{row.span_id}", parent_id=None, name="chat " + word, model=word, error_type=word, status="error")
        for n, word in enumerate(words) for row in world.trace(1, 0)[1:2]
    ]  # fmt: skip
    many = {
        **made,
        "devices": [{**made["devices"][0], "name": word, "id": f"d{n}"} for n, word in enumerate(words[::20])],
        "series": [{**made["series"][series], "label": word, "server": word} for word in words]
        + [{**made["series"][device], "device": f"d{n}"} for n in range(len(words[::20]))],
        "points": {
            "t_ms": made["points"]["t_ms"],
            "values": [values[series]] * len(words) + [values[device]] * len(words[::20]),
        },
        "spans": [{**made["spans"][0], "name": "chat " + word, "decode_tokens_per_s": 5.0} for word in words],
    }
    runs = [
        SimpleNamespace(
            id=word, decode_tokens_per_s=1.0, ttft_s=1.0, duration_s=1.0, peak_bytes=1, energy_per_token_j=1.0
        )
        for word in words[::8]
    ]
    figures = [
        plots.memory(many),
        plots.throughput(many),
        plots.latency(rows),
        plots.waterfall(rows),
        plots.compare(runs),
    ]
    page = tmp_path / "figures.html"
    parts = [
        figure.to_html(include_plotlyjs=n == 0, full_html=False, div_id=f"f{n}") for n, figure in enumerate(figures)
    ]
    page.write_text("<!doctype html><meta charset=utf-8>" + "".join(parts))
    watched = browser.open_file(page)
    canary = Canary(watched.page)
    hovered = watched.page.evaluate(
        """async () => { let n = 0; for (const div of document.querySelectorAll('.js-plotly-plot'))
            for (let curve = 0; curve < Math.min(div.data.length, 12); curve += 1) for (let point = 0; point < 12; point += 1) {
                try { Plotly.Fx.hover(div, [{curveNumber: curve, pointNumber: point}]); n += 1; } catch { break; } }
        return n; }"""
    )
    assert hovered > 100
    assert watched.page.locator("svg text").count() > len(words)
    canary.check(".js-plotly-plot")
    assert watched.foreign == []
    watched.close()


@pytest.mark.parametrize("full", [False, True])
def test_the_report(browser, tmp_path, full):
    """Its data stands in a script element: nothing in it ends that element, and every tab draws."""
    from llamatelemetry_jupyter import reporting
    from llamatelemetry_jupyter.clock import now_ns
    from llamatelemetry_jupyter.session import Session

    session, shift = Session(), now_ns() - world.T0 - 110_000_000_000
    try:
        for n, word in enumerate(CORPUS[:: 1 if full else 5]):
            for row in world.trace(n + 1, n / 10)[:2]:
                fields = {
                    "start_ns": row.start_ns + shift,
                    "end_ns": row.end_ns + shift,
                    "name": word,
                    "model": word,
                    "server": word,
                }
                session.spans.append(
                    world.replace(row, **fields, error_type=word, cell_id=word, status="error", attributes={word: word})
                )
        path = tmp_path / "run.html"
        path.write_text(reporting.page_of(session, 120, full=full))
    finally:
        session.close()
    watched = browser.open_file(path)
    canary = Canary(watched.page)
    watched.page.wait_for_function("() => document.querySelector('.llamatelemetry')?.dataset.drawn")
    for tab, there in (("traces", ".ll-line:not(.ll-head)"), ("graph", ".ll-node"), ("now", ".ll-span")):
        watched.page.locator(f'[data-tab="{tab}"]').click()
        watched.page.locator(there).first.wait_for()
        watched.page.locator(there).nth(1).click(force=True)
        frames(watched.page)
        canary.check("#dashboard")
    assert (watched.errors, watched.foreign) == ([], [])
    watched.close()


@pytest.mark.parametrize("word", ["\x1b]52;c;cHduZWQ=\x07", "\x1b[2J", "\x9b2J", "\ud800", "\u202e"])
def test_an_error_moves_no_cursor(word):
    from llamatelemetry_jupyter.errors import CommandError

    lines = CommandError(f"the server said {word}", hint=f"%llama start {word}")._render_traceback_()
    assert len(lines) == 2
    assert word not in "".join(lines)
    "".join(lines).encode()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[x](https://a.example/b)", "[x](https://a.example/b)"),
        ("[r]: https://a.example", "[r]: https://a.example"),
        ("[x](javascript:a)", "[x] (javascript:a)"),
        ("[x](\n /logout)", "[x] (\n /logout)"),
        ("> [r]: &#106;avascript:a", "> [r] : &#106;avascript:a"),
        ("[a\nb]:\n/logout", "[a\nb] :\n/logout"),
        ("$\\left[a\\right](t)$", "$\\left[a\\right] (t)$"),
        ("of `f[0](x)` the f[0]: one", "of `f[0](x)` the f[0]: one"),
    ],
)
def test_links_in_markdown_lead_to_the_web_only(written, shown):
    assert escape.markdown(written) == shown

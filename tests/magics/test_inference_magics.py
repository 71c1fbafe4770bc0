"""%llama chat --continue, compare, tokens and embed in a real IPython with the real engine."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.floor

LOAD = "%load_ext llamatelemetry"
START = "%llama start --ctx 2048"


def tab(line: str) -> str:
    """Code that prints what Tab offers at the end of ``line``."""
    return f"print('TAB', sorted(set(get_ipython().complete(None, {line!r})[1])))"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama compare", ["the prompt is empty", "try: %llama compare -t 0,1"]),
        ("%llama compare -t hot hi", ["--temperature takes numbers with commas", "try: --temperature 0,1"]),
        ("%llama compare -t -1 hi", ["--temperature", "try: "]),
        ("%llama compare --seed 1.5 hi", ["--seed takes numbers", "try: --seed 0,1"]),
        ("%llama compare --seed 1,2,3,4,5,6 -t 0,1,2,3,4 hi", ["30 columns are too many", "at most 24"]),
        ("%llama compare -m smolm2-135m,x hi", ["unknown model 'smolm2-135m'", "try: %llama start smollm2-135m"]),
        ("%llama compare --out 1x hi", ["--out needs a variable name"]),
        ("%llama compare hi", ["no server is running", "try: %llama start"]),
        ("%llama tokens", ["there is no text", "try: %llama tokens"]),
        ("%llama tokens --file x.txt some text", ["a text and --file were given"]),
        ("%llama tokens --file /no/such", ["/no/such cannot be read", "try: %llama tokens --file"]),
        ("%llama tokens hi", ["no server is running"]),
        ("%llama tokens --fiel x", ["unknown option --fiel", "did you mean --file?"]),
        ("%llama embed", ["there is no text", "try: %llama embed"]),
        ("%llama embed --from nothing x", ["no variable 'nothing'"]),
        ("%llama embed --column a x", ["--column is of a DataFrame"]),
        ("%llama embed -k 0 --from In x", ["-k must be at least 1"]),
        ("%llama embed --from get_ipython x", ["not a DataFrame, Series or list"]),
        ("%llama chat --continue hi", ["no server is running"]),
        ("%%llama start\nx", ["start is a line of its own"]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


def test_tab_and_help(ipython):
    printed = ipython(
        LOAD,
        "import pandas as pd\nfrom collections import OrderedDict\ntable = pd.DataFrame({'text': ['a'], 'tag': ['b']})\ntexts = ['a']",
        tab("%llama com"),
        tab("%llama compare --te"),
        tab("%llama compare -m smollm2-135"),
        tab("%llama compare -m a,smollm2-135"),
        tab("%llama tokens --f"),
        tab("%llama embed --from t"),
        tab("%llama embed --from table --column t"),
        tab("%llama chat --con"),
        tab("%%llama compare --se"),
        "%llama compare --help",
        "%llama embed --help",
    )
    offered = [line.removeprefix("TAB ") for line in printed.splitlines() if line.startswith("TAB")]
    assert offered == [
        "['compare', 'compare-runs']",
        "['--temperature']",
        "['smollm2-135m']",
        "['smollm2-135m']",
        "['--file']",
        "['table', 'texts']",
        "['tag', 'text']",
        "['--continue']",
        "['--seed']",
    ]
    assert "temperatures (0,0.7,1 when nothing is varied)" in printed
    assert "a DataFrame, Series or list of this notebook" in printed
    assert "STOPPED" not in printed


@pytest.mark.engine
def test_a_conversation_goes_on_only_when_asked(ipython):
    printed = ipython(
        LOAD,
        START,
        "%llama chat --continue hi",
        "%llama chat -t 0 -n 4 -s 'Be brief.' Say a colour.",
        "%llama chat -c -t 0 -n 4 Another one.",
        "%%llama --continue -t 0 -n 4\nAnd one more.",
        "import llamatelemetry_jupyter as lt\nspans = [r for r in lt.current_session().spans.rows() if r.name.startswith('chat')]\nprint('IN', [r.input_tokens for r in spans], [r.cached_tokens > 0 for r in spans])",
        "%llama chat -t 0 -n 4 Say a colour.",
        "%llama chat -n 0 fails",
        "%llama chat -c -n 2 fails, too",
    )
    assert printed.count("there is no conversation to go on with") == 2, "before the first, and after one that failed"
    line = next(line for line in printed.splitlines() if line.startswith("IN"))
    tokens, cached = eval(line[3:].replace("] [", "], ["))
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 3
    assert cached == [False, True, True]


@pytest.mark.engine
def test_turns_that_no_longer_fit_are_said(ipython):
    printed = ipython(
        LOAD,
        "%llama start --ctx 512",
        "long = 'llama ' * 120",
        "%llama chat -n 4 {{long}}",
        "%llama chat -c -n 4 {{long}}",
        "%llama chat -c -n 4 {{long}}",
        "%llama chat -c -n 4 {{long}}",
    )
    assert "the oldest turn does not fit into the context any more and was left out" in printed
    assert "the 2 oldest turns do not fit into the context any more and were left out" in printed
    assert "STOPPED" not in printed


@pytest.mark.engine
def test_answers_side_by_side(ipython):
    printed = ipython(
        LOAD,
        START,
        "%llama compare -t 0,0,1.5 --seed 7 -n 5 --out both Say <b>hello</b>",
        "print('VALUE', type(both).__name__, len(both), both is _llama, [c.temperature for c in both])",
        "frame = both.frame()\nprint('FRAME', frame.shape, frame['output_tokens'].tolist(), frame['seed'].tolist(), frame['model'].unique().tolist())",
        "html = both._repr_html_()\nprint('HTML', '<script' in html, html.count('<th '), html.count('<td '))",
        "from dataclasses import replace\nevil = replace(both, columns=tuple(replace(c, answer=replace(c.answer, text='<script>x</script>\\x1b[31m')) for c in both))",
        "print('EVIL', '<script' in evil._repr_html_(), '\\x1b' in str(evil), '&lt;script' in evil._repr_html_())",
        "alone = %llama compare -m smollm2-135m -n 3 Hi",
        "print('ALONE', [c.label for c in alone])",
        "%%llama compare -t 0,1 -n 3\nfrom\na cell",
        "s = __import__('llamatelemetry_jupyter').current_session()\nrows = s.spans.rows()\nchats = [r for r in rows if r.name.startswith('chat')]\ncells = {r.span_id for r in rows if r.name == 'notebook cell'}\nprint('SPANS', len(chats), all(r.parent_id in cells for r in chats), [r.cached_tokens for r in chats])",
    )
    assert "temperature 0, seed 7" in printed
    assert "─" in printed
    assert "VALUE Comparison 2 True [0.0, 1.5]" in printed
    assert "FRAME (2, 13) [5, 5] [7, 7] ['smollm2-135m']" in printed
    assert "HTML False 8 10" in printed
    assert "EVIL False False True" in printed
    assert "ALONE ['temperature 0', 'temperature 0.7', 'temperature 1']" in printed
    assert "SPANS 7 True [0, 0, 0, 0, 0, 0, 0]" in printed
    assert "STOPPED" not in printed


INTERRUPT = """
import os, signal, llamatelemetry_jupyter as lt
engine = lt.current_session().engine()
ask, asked = engine.stream, []
def stream(*given, **options):
    asked.append(1)
    made = ask(*given, **options)
    if len(asked) == 3:
        next(iter(made))
        os.kill(os.getpid(), signal.SIGINT)
    return made
engine.stream = stream
"""


@pytest.mark.engine
def test_an_interrupt_keeps_the_answers_that_are_there(ipython):
    printed = ipython(
        LOAD,
        START,
        INTERRUPT,
        "%llama compare -t 0,0.5,1,1.5 -n 4 Say hello",
        "print('KEPT', [c.answer and c.answer.finish_reason for c in _llama][:2], _llama[3].answer)",
    )
    assert "Interrupted: 2 of 4 answers are complete and kept" in printed
    assert "try: _llama.frame()" in printed
    assert "KEPT ['length', 'length'] None" in printed


@pytest.mark.engine
def test_models_that_do_not_run_are_started_in_turn_and_stopped(ipython, model_path, tmp_path):
    other = tmp_path / "other.gguf"
    other.symlink_to(model_path)
    printed = ipython(
        LOAD,
        START,
        f"both = %llama compare -m smollm2-135m,{other} -t 0 -n 4 Say hello",
        "print('MODELS', both.frame()['model'].tolist(), both[0].text == both[1].text)",
        "s = __import__('llamatelemetry_jupyter').current_session()\nprint('LEFT', [h.name for h in s.handles()])",
    )
    assert "MODELS ['smollm2-135m', 'other'] True" in printed
    assert "LEFT ['default']" in printed


@pytest.mark.engine
def test_tokens_are_shown_with_ids_whitespace_and_stray_bytes(ipython, tmp_path):
    (tmp_path / "text.txt").write_text("one two\n" * 200)
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe")
    printed = ipython(
        LOAD,
        START,
        "%llama tokens Hi <|im_start|> é 😀",
        "t = %llama tokens <script>alert(1)</script> & a\tb",
        "html = t._repr_html_()\nprint('HTML', '<script' in html, '⇥' in html, html.count('<span'), len(t))",
        "e = __import__('llamatelemetry_jupyter').current_session().engine()",
        "t = %llama tokens --template Hello\nprint('TEMPLATE', len(t) == e.client.count_tokens([{'role': 'user', 'content': 'Hello'}]), t[0].special, t[0].text)",
        "print('JOIN', b''.join(x.bytes for x in t).decode() == e.client.apply_template([{'role': 'user', 'content': 'Hello'}]))",
        "t = %llama tokens --file text.txt\nprint('FILE', len(t), t.frame().shape, t.ids == e.client.tokenize('one two\\n' * 200))",
        "print(str(t)[-20:])",
        "%%llama tokens\ntwo\nlines",
        "%llama tokens --file bytes.bin",
    )
    assert "a control token" in printed or "control tokens" in printed
    assert "<|im_start|>  control" in printed
    assert "F0 9F 98" in printed
    assert "·é" in printed
    assert "HTML False True" in printed
    spans, count = next(line for line in printed.splitlines() if line.startswith("HTML")).split()[3:]
    assert spans == count
    assert "TEMPLATE True True <|im_start|>" in printed
    assert "JOIN True" in printed
    assert "FILE 600 (600, 4) True" in printed
    assert "… and 400 more" in printed
    assert "⏎" in printed
    assert "bytes.bin is not UTF-8" in printed
    assert printed.count("STOPPED") == 1


@pytest.mark.engine
def test_the_tokens_of_an_answer_come_with_what_else_could_have_stood_there(ipython):
    printed = ipython(
        LOAD,
        "%llama tokens --answer",
        START,
        "%llama chat -n 3 -t 0 Hello",
        "%llama tokens --answer",
        "%llama tokens --answer LOAD",
        "%llama tokens --answer _llama Hello",
        "%llama chat --logprobs -n 30 -t 0 --out reply Say hello.",
        "t = %llama tokens --answer",
        "print('SAME', ''.join(x.text for x in t) == _llama.text, len(t) == _llama.output_tokens - (_llama.finish_reason == 'stop'))",
        "s = __import__('llamatelemetry_jupyter').current_session()",
        "print('CALLS', len([r for r in s.spans.rows() if r.name.startswith('chat')]))",
        "print('KNOWN', {len(x.alternatives) for x in t}, all(x.logprob <= 0 and x.id is not None for x in t))",
        "print('GREEDY', all(x.logprob == max(o.logprob for o in x.alternatives) for x in t))",
        "wide = s.engine().chat('Say hello.', max_tokens=30, temperature=0, logprobs=True, top_logprobs=20)",
        "w = %llama tokens --answer wide",
        "ends = {o.text for x in w for o in x.alternatives if o.special}\nprint('ENDS', ends <= {'<|im_end|>', '<|endoftext|>'} and bool(ends))",
        "print(t)",
        "%llama stop",
        "again = %llama tokens --answer reply\nprint('LATER', again.ids == t.ids)",
    )
    assert printed.count("STOPPED") == 4
    assert "there is no answer yet\n  try: %llama chat --logprobs Why is the sky blue?" in printed
    assert "that answer came without logprobs\n  try: %llama chat --logprobs" in printed
    assert "LOAD is not an answer" in printed
    assert "a text and --answer were given" in printed
    for said in ("SAME True True", "CALLS 2", "KNOWN {5} True", "GREEDY True", "ENDS True", "LATER True"):
        assert said in printed, said
    assert "perplexity" in printed
    assert "logprob  probability  instead" in printed


def test_names_of_answers_are_completed(ipython):
    printed = ipython(
        LOAD,
        "from llamatelemetry_jupyter.values import Answer\nreply, other, number = Answer('a', 'stop'), Answer('b', 'stop'), 1",
        "from llamatelemetry_jupyter.magics.complete import complete\nask = lambda line, symbol: complete(get_ipython(), line, symbol)",
        "print('TAB', ask('%llama tokens --answer ', ''), ask('%llama tokens --answer re', 're'), ask('%llama tokens --an', '--an'))",
    )
    assert "TAB ['other', 'reply'] ['reply'] ['--answer']" in printed


@pytest.mark.engine
def test_texts_are_embedded_on_a_second_server_and_found(ipython):
    printed = ipython(
        LOAD,
        START,
        "import pandas as pd\ndf = pd.DataFrame({'text': ['the cat sleeps', 'markets fell', None], 'n': [1, 2, 3]}, index=list('abc'))\ntexts = ['x', 'y']",
        "%llama embed --out one the cat sleeps",
        "print('ONE', one.shape, list(one.index), round(float((one.iloc[0] ** 2).sum()), 3))",
        "%llama embed --from df -k 1 --out found the cat sleeps",
        "print('FOUND', list(found.index), found['n'].tolist(), found['similarity'].round(3).tolist())",
        "v = %llama embed --from df --column text",
        "w = %llama embed --from texts",
        "print('VECTORS', v.shape, list(v.index), w.shape)",
        "s = __import__('llamatelemetry_jupyter').current_session()\nprint('SERVERS', [(h.name, h.model.id) for h in s.handles()])",
        "rows = [r for r in s.spans.rows() if r.name.startswith('embeddings')]\nprint('SPANS', len(rows), all(r.parent_id for r in rows))",
        "df2 = pd.DataFrame({'a': ['x'], 'b': ['y']})",
        "%llama embed --from df2 hello",
    )
    assert printed.count("on a server named embed") == 1
    assert "ONE (1, 576) ['the cat sleeps'] 1.0" in printed
    assert "FOUND ['a'] [1] [1.0]" in printed
    assert "VECTORS (2, 576) ['a', 'b'] (2, 576)" in printed
    assert "SERVERS [('default', 'smollm2-135m'), ('embed', 'smollm2-135m')]" in printed
    assert "SPANS 3 True" in printed
    assert "which column of df2 holds the texts: a, b?" in printed
    assert printed.count("STOPPED") == 1


@pytest.mark.engine
def test_a_batch_in_a_cell_hangs_on_the_cells_span(ipython):
    printed = ipython(
        LOAD,
        "%llama start --ctx 512 --slots 2",
        "import llamatelemetry_jupyter as lt\ns = lt.current_session()\nr = s.engine().batch_infer(['a', 'b', 'c', 'd'], max_tokens=3)",
        "rows = s.spans.rows()\nchats = [x for x in rows if x.name.startswith('chat')]\ncells = [x for x in rows if x.name == 'notebook cell' and x.trace_id in {c.trace_id for c in chats}]\nprint('SPANS', len(cells), len(chats), {x.parent_id for x in chats} == {c.span_id for c in cells})",
        "r",
    )
    assert "SPANS 1 4 True" in printed
    assert "BatchResult(4 of 4 answers)" in printed


@pytest.mark.engine
def test_in_a_notebook_each_is_one_output_that_a_batch_run_keeps():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [
        LOAD,
        "%llama start --ctx 512 --slots 2",
        "%llama compare -t 0,1 -n 4 Say <script>hello</script>",
        "_llama",
        "%llama tokens a\tb",
        "import llamatelemetry_jupyter as lt; from llamatelemetry_jupyter import progressline",
        "progressline._FIRST_S = 0.0; r = lt.current_session().engine().batch_infer(['a', 'b'], max_tokens=2)",
        "%llama stop",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells]
    (compared,) = outputs[2]
    assert compared.output_type == "display_data"
    assert compared.data["text/html"].count("temperature") == 2
    assert "<script" not in compared.data["text/html"]
    assert "tokens/s" in compared.data["text/plain"]
    assert [one.output_type for one in outputs[3]] == ["execute_result"], "a later cell shows the value again"
    assert outputs[4][0].data["text/html"].count("<span") == 3
    (line,) = outputs[6]
    assert re.match(r"done in .*s: answering, 2 prompts", line.data["text/plain"])

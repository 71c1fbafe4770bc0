"""A chat for readers without a kernel, and as cells: complete, bounded, and with nothing of the model's that is live."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest
from hostile import WORDS

from llamatelemetry_jupyter.conversation import Said
from llamatelemetry_jupyter.views import transcript

pytestmark = pytest.mark.floor

FIGURES = {"tokens": 12, "seconds": 1.5, "tokens_per_s": 24.0, "finish_reason": "stop", "model": "smollm2-135m"}


def turns(*texts, **more):
    roles = ("user", "assistant")
    made = [Said(i + 1, roles[i % 2], text, **(FIGURES | more if i % 2 else {})) for i, text in enumerate(texts)]
    return [asdict(one) for one in made]


def test_without_a_turn_it_says_in_two_lines_how_to_ask():
    text = transcript.static_text(())
    assert len(text.splitlines()) == 2
    assert "try: %llama chat Why is the sky blue?" in text
    assert "%llama chat TEXT" in transcript.static_html(())


def test_turns_have_their_speaker_and_answers_their_figures():
    text = transcript.static_text(turns("Why?", "Because."))
    assert text == "You: Why?\n\nModel (smollm2-135m): Because.\n12 tokens · 1.50 s · 24.0 tokens/s"
    html = transcript.static_html(turns("Why?", "Because."))
    assert "<b>You</b>" in html
    assert "12 tokens · 1.50 s · 24.0 tokens/s" in html


@pytest.mark.parametrize(
    ("state", "says"), [("stopped", "stopped"), ("failed", "broke off"), ("running", "still being written")]
)
def test_how_an_answer_ended_is_said(state, says):
    assert says in transcript.static_text(turns("Why?", "Beca", state=state))


def test_an_error_is_told_with_what_to_type():
    error = {"what": "the server is gone", "hint": "%llama start"}
    text = transcript.static_text(turns("Why?", "", state="failed", error=error))
    assert "the server is gone; try: %llama start" in text


def test_figures_that_are_not_known_are_left_out():
    none = dict.fromkeys(("tokens", "seconds", "tokens_per_s", "model", "finish_reason"))
    assert transcript.static_text(turns("Why?", "Because.", **none)) == "You: Why?\n\nModel: Because."


@pytest.mark.parametrize("word", WORDS)
def test_what_others_wrote_is_text(word):
    made = turns(word, word, model=word, state="failed", error={"what": word, "hint": word})
    html = transcript.static_html(made)
    html.encode()
    assert set(re.findall(r"<\s*/?\s*(\w+)", html)) <= {"div", "p", "b", "small"}
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", html))
    text = transcript.static_text(made)
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_the_twin_is_bounded_and_keeps_the_newest():
    html = transcript.static_html(turns(*["<" * 30_000] * 20, "the last question", "the last answer"))
    assert len(html.encode()) < 150_000
    assert "the last answer" in html
    assert "earlier turns are left out" in html


def test_cells_can_be_run_again_and_answers_are_escaped():
    parameters = {"system": "Be\nbrief.", "temperature": 0, "max_tokens": 5, "seed": 1, "top_p": 0.5}
    made = transcript.cells(turns("Why {{x}}?", "<b>no</b> ![a](https://a.example/b.png)", "And?", ""), parameters)
    assert [one["kind"] for one in made] == ["code", "markdown", "code"]
    assert made[0]["source"] == '%%llama --raw -s "Be brief." -t 0 -n 5 --seed 1\nWhy {{x}}?'
    assert made[1]["source"] == "&lt;b>no&lt;/b> !\\[a](https://a.example/b.png)"
    assert made[2]["source"].splitlines()[0].startswith("%%llama --raw --continue ")


def test_the_options_of_a_cell_are_options_of_the_command():
    from llamatelemetry_jupyter.magics.parser import split_prompt
    from llamatelemetry_jupyter.magics.router import parser

    made = transcript.cells(turns("Why?"), {"system": 'say "a\'b" \\n', "temperature": 0.5, "max_tokens": 5, "seed": 1})
    line = made[0]["source"].splitlines()[0].removeprefix("%%llama ")
    words, prompt = split_prompt(parser("chat"), line)
    read = parser("chat").parse_args(words)
    assert read.system == 'say "a\'b" \\n'
    assert (read.temperature, read.max_tokens, read.seed, read.raw, prompt) == (0.5, 5, 1, True, "")


def test_text_of_a_cell_begins_no_other_cell():
    made = transcript.cells(turns("Why?\n# %% no cell", "%% no cell\nBecause."), {})
    text = transcript.percent(made)
    assert re.findall(r"(?m)^# %%.*$", text) == ["# %%", "# %% [markdown]"]
    assert "# Because." in text

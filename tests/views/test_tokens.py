"""Tokens as strip, table and data: what cannot be seen is shown, what is hostile is inert, what is long is bounded."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import pytest
from tokenworld import ATTACK, an_answer, token

from llamatelemetry_jupyter.inference.tokens import Token, written
from llamatelemetry_jupyter.values import Alternative, Answer, TokenEvent
from llamatelemetry_jupyter.views import pieces
from llamatelemetry_jupyter.views.tokens import _TINTS, MAX_BYTES, MAX_TOKENS, Tokens, instead


def answered(*events):
    return Answer(
        "", "stop", tokens=tuple(TokenEvent(0, "text", text, i, *more) for i, (text, *more) in enumerate(events))
    )


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("the", ["the"]),
        (" the", ["", "·", "the"]),
        ("a·b", ["a·b"]),  # one that is written is no mark
        ("\n\n\tx", ["", "⏎⏎⇥", "x"]),
        ("a\r", ["a", "␍"]),
        ("\x1b[31m", ["", "U+001B", "[31m"]),
        ("a\u202eb\u200b", ["a", "U+202E", "b", "U+200B"]),
        ("\ud800", ["", "U+D800"]),
        ("\xa0", ["", "U+00A0"]),
        ("x" * 200, ["x" * 96, "…"]),
        (" " * 200, ["", "·" * 96, "", "…"]),
    ],
)
def test_what_cannot_be_seen_is_a_mark(text, runs):
    found = pieces.runs(token(text))
    assert found == runs
    assert "".join(found) == pieces.shown(token(text))
    assert "".join(found).isprintable()


def test_stray_bytes_and_tokens_without_text():
    assert pieces.runs(Token(1, b"\xf0\x9f", None)) == ["", "F0 9F"]
    assert pieces.kind(Token(1, b"\xf0\x9f", None)) == "bytes"
    assert pieces.runs(Token(2, b"", "")) == ["", "no text"]
    assert pieces.kind(Token(2, b"", "")) == "control"
    assert pieces.kind(token("🦙", whole=False)) == "several"
    assert len(pieces.runs(Token(1, b"\xff" * 1000, None))[1]) < 100


@pytest.mark.parametrize(
    ("logprob", "said", "chance", "level"),
    [
        (0.0, "0.00", "100 %", 0),
        (-0.001, "0.00", "100 %", 0),
        (math.log(0.5), "−0.69", "50 %", 0),
        (math.log(0.49), "−0.71", "49 %", 1),
        (math.log(0.1), "−2.30", "10 %", 2),
        (math.log(0.04), "−3.22", "4.0 %", 3),
        (math.log(0.002), "−6.21", "0.2 %", 4),
        (-40, "−40.00", "< 0.1 %", 4),
        (-3.4e38, "−∞", "< 0.1 %", 4),
        (None, "n/a", "n/a", 0),
    ],
)
def test_a_logprob_is_a_number_and_a_tint(logprob, said, chance, level):
    assert (pieces.logprob(logprob), pieces.chance(logprob), pieces.level(logprob)) == (said, chance, level)


def test_an_answers_events_become_tokens():
    flower = (Alternative("�", -0.4, 126, b"\xb1"), Alternative("�", -2.2, 231, b"\x8d"), Alternative("", -5.0, 2, b""))
    plain = (Alternative(" a", -0.1, 7, b" a"), Alternative(" b", -3.0, 8))
    made = written(answered(("🌱", 126, -0.4, None, None, flower), (" a", 7, -0.1, None, None, plain), ("c",)))
    assert [one.text for one in made] == ["🌱", " a", "c"]
    assert [one.whole for one in made] == [False, True, True]
    assert [pieces.kind(one) for one in made[0].alternatives] == ["bytes", "bytes", "control"]
    assert (made[1].alternatives[1].bytes, made[2].id, made[2].logprob) == (b" b", None, None)
    assert instead(made[0]) == "8D 11 %, no text 0.7 %"
    shown = Tokens(made, "answer")
    assert shown.perplexity == pytest.approx(math.exp(0.25))
    assert (
        shown.summary()
        == "3 tokens, 7 bytes, 2.3 bytes a token, 1 of them a character of several tokens, perplexity 1.28"
    )
    assert shown.frame().columns.tolist() == ["id", "text", "bytes", "special", "logprob", "alternatives"]
    assert shown.frame()["alternatives"][1] == [(" a", -0.1), (" b", -3.0)]


def test_the_data_of_the_widget_are_json_and_name_each_piece_once():
    made = Tokens(
        (token("a"), token("b", 2), token("a"), Token(3, b"\xff", None, logprob=math.nan)), "answer"
    ).snapshot()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["pieces"] == [[1, ["a"], "text"], [2, ["b"], "text"], [3, ["", "FF"], "bytes"]]
    assert (made["tokens"], made["logprobs"], made["total"]) == ([0, 1, 0, 2], [None] * 4, 4)
    assert Tokens(()).snapshot()["tokens"] == []


def test_a_long_text_and_a_long_answer_are_bounded():
    prompt = Tokens(tuple(token(f" word{i % 3000}", i % 3000) for i in range(25_000))).snapshot()
    assert (len(prompt["tokens"]), prompt["total"]) == (MAX_TOKENS, 25_000)
    answer = an_answer(2000)
    assert len(answer.snapshot()["tokens"]) == 2000, "an answer of 2,000 tokens is whole"
    for one in (an_answer(9000), Tokens(tuple(token("\ud800" * 90 + str(i), i) for i in range(9000)))):
        made = one.snapshot()
        assert len(json.dumps(made)) < MAX_BYTES * 1.05
        assert 500 < len(made["tokens"]) < 9000


@pytest.mark.parametrize(
    "made", [an_answer(3000), Tokens(tuple(token(ATTACK, i) for i in range(3000)))], ids=["answer", "attack"]
)
def test_the_twin_is_small_inert_and_has_a_table(made):
    html = made._repr_html_()
    assert len(html.encode()) < 150_000
    tags = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)
            assert {name for name, _ in attrs} <= {"style", "title"}

    Tags().feed(html)
    assert tags <= {
        "div",
        "span",
        "i",
        "sub",
        "br",
        "em",
        "small",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert "and 2," in html
    assert "As a table, the first" in html
    assert f"{len(made):,} tokens" in str(made)
    assert "\x1b" not in str(Tokens((token("\x1b[31m"),)))


def test_a_tint_never_stands_alone():
    likely, unlikely = (Tokens((token("a", logprob=value),), "answer")._repr_html_() for value in (-0.1, -6.0))
    assert "background" not in likely.partition("<details>")[0]
    assert "background:rgba(224,110,20,0.55)" in unlikely
    assert "−6.00" in unlikely
    assert "−0.10" in likely


@pytest.mark.parametrize(("ground", "ink"), [((255, 255, 255), (0, 0, 0)), ((17, 17, 17), (238, 240, 242))])
def test_text_of_the_twin_is_readable_on_every_tint(ground, ink):
    def mixed(over, under, alpha):
        return [alpha * a + (1 - alpha) * b for a, b in zip(over, under, strict=True)]

    def light(colour):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    for tint in _TINTS[1:]:
        *colour, alpha = map(float, tint.partition("(")[2].strip(")").split(","))
        under = mixed(colour, ground, alpha)
        a, b = light(under), light(mixed(ink, under, 0.8))  # the numbers' opacity
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5, tint

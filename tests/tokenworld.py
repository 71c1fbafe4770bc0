"""Tokens for tests of their views: every kind, every tint, hostile text."""

from __future__ import annotations

from dataclasses import replace

from llamatelemetry_jupyter.inference.tokens import Token
from llamatelemetry_jupyter.views.tokens import Tokens

ATTACK = '</span><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'


def token(text, number=1, **more):
    """A whole token of that text."""
    return Token(number, text.encode("utf-8", "surrogatepass"), text, **more)


def an_answer(length):
    """An answer of that many tokens with five alternatives each, of a vocabulary of 3,000."""
    made = []
    for i in range(length):
        ids = [(i * 7 + n * 501) % 3000 for n in range(5)]
        others = tuple(token(f" word{one}", one, logprob=-0.4 - n) for n, one in enumerate(ids))
        made.append(replace(others[0], alternatives=others))
    return Tokens(tuple(made), "answer", "smol")


_KINDS = (
    token("The", 504),
    token(" sky", 6376),
    token(" is\n", 314),
    token("\t\u200b\u202e", 197),
    Token(15107, b" \xf0\x9f", None),
    token("<|im_end|>", 2, special=True),
    token(ATTACK, 66),
    token("日本", 40993),
)
PROMPT = Tokens(_KINDS, "prompt", f"smol {ATTACK}")
#: A token for each tint; the fifth was not among the likely ones, and the sixth is the last of several.
ANSWER = Tokens(
    tuple(
        replace(one, logprob=logprob, whole=one.id != 40993, alternatives=others)
        for one, logprob, others in zip(
            _KINDS,
            (-0.1, -1.0, -2.0, -4.0, -9.0, -0.2, -0.3, -0.4),
            [
                tuple(replace(o, logprob=-0.1 - n) for n, o in enumerate(dict.fromkeys((one, *_KINDS[1:4]))))
                for one in _KINDS[:4]
            ]
            + [tuple(replace(o, logprob=-0.5 - n) for n, o in enumerate(_KINDS[5:]))] * 4,
            strict=True,
        )
    ),
    "answer",
    "smollm2-135m",
)

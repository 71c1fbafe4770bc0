"""Cards by name."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter import cards
from llamatelemetry_jupyter.errors import CommandError


def test_cards_are_counted_listed_and_named_loosely():
    assert [c.name for c in cards.parse("2xT4")] == ["T4", "T4"]
    assert [c.name for c in cards.parse("t4, L4,2 x a100")] == ["T4", "L4", "A100-40GB", "A100-40GB"]
    assert [c.name for c in cards.parse("Tesla T4,RTX 4090,4090,NVIDIA GeForce RTX 3060")] == [
        "T4",
        "RTX-4090",
        "RTX-4090",
        "RTX-3060",
    ]
    (own,) = cards.parse("12GB")
    assert own.usable_bytes == 12 << 30


@pytest.mark.parametrize("text", ["", "0xT4", "99xT4", "2x", "T5", "2xT4,", "🦙", "x" * 1000])
def test_what_is_no_card_is_refused_with_something_to_type(text):
    with pytest.raises(CommandError) as problem:
        cards.parse(text)
    assert len(problem.value._render_traceback_()) == 2


def test_a_near_miss_is_guessed():
    with pytest.raises(CommandError, match="did you mean A100-80GB"):
        cards.parse("A100-80")


def test_every_card_has_a_source_and_gives_less_than_it_says():
    for card in cards.cards():
        assert "NVIDIA" in card.source
        assert 0.9 * card.memory_gib < card.usable_bytes / 2**30 < card.memory_gib
        assert card.bandwidth_gb_s > 0 < card.fp16_tflops
    assert cards.parse("T4")[0].usable_bytes / 2**30 == pytest.approx(14.741)

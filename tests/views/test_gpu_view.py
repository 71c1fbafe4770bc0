"""Cards, owners and limits as text and pages: n/a where a card is silent, harmless whatever it is called."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hostile import WORDS

from llamatelemetry_jupyter.gpu.card import CardState
from llamatelemetry_jupyter.gpu.nvml import Reading
from llamatelemetry_jupyter.gpu.roofline import Limits, Place
from llamatelemetry_jupyter.gpu.topology import Pair, Pcie
from llamatelemetry_jupyter.values import DeviceInfo, DeviceSample, OwnerBytes, Traffic
from llamatelemetry_jupyter.views.gpu import gpu_view
from llamatelemetry_jupyter.views.limits import limits_view

pytestmark = pytest.mark.floor
GIB = 1 << 30


def card(number, name="NVIDIA H100 80GB HBM3", **more):
    device = f"GPU-{number}"
    others = [f"GPU-{n}" for n in range(3) if n != number]
    pairs = tuple(Pair(device, other, 50, 18, True, True) for other in others)
    reading = Reading(10 * GIB, 80 * GIB, 70 * GIB, 0.25, 0.1, 310.0, None, 55.0)
    known = DeviceInfo(device, name, 80 * GIB, 70 * GIB)
    state = CardState(device, known, reading, 700.0, (1980, 1980), (2619, 2619), (), False, Pcie(5, 16, 5, 16), pairs)
    return replace(state, **more)


def sample(device, *owners, used=10 * GIB):
    return DeviceSample(0, device, used, 80 * GIB if used is not None else None, owners=owners)


def test_three_cards_with_nvlink_and_one_that_is_slowed():
    view = gpu_view([card(0), card(1, slowed=("power limit", "temperature (driver)")), card(2)], [], ["driver 580"])
    text = str(view)
    assert "NV18: over 18 NVLinks; peer access (0–1, 0–2, 1–2)" in text
    assert "power limit, temperature (driver)" in text
    assert "310 of 700 W" in text
    assert text.count("NV18") == 7
    assert "no sample yet" in text


def test_a_silent_card_is_na_and_its_neighbour_is_not():
    view = gpu_view([CardState("GPU-0"), card(1)], [sample("GPU-0", used=None), sample("GPU-1")], [])
    silent = str(view.cards).splitlines()[1]
    assert silent.split()[:2] == ["GPU", "0"]
    assert silent.count("n/a") == 9  # memory twice
    assert "it does not answer" in str(view.owners)


def test_owners_say_how_they_are_known():
    owners = (
        OwnerBytes("GPU-0", "kv", 3 * GIB, GIB, 7, "default", "engine"),
        OwnerBytes("GPU-0", "kernel", GIB, None, 1, "torch", "estimate"),
        OwnerBytes("GPU-0", "other", GIB, None, 9, "game"),
        OwnerBytes("GPU-0", "free", 75 * GIB),
    )
    rows = gpu_view([card(0)], [sample("GPU-0", *owners)], []).owners.rows
    assert [row[1:] for row in rows] == [
        ("KV cache", "3.0 GiB, 1.0 GiB filled", "3.8 %", "the engine says so"),
        ("this kernel: torch", "1.0 GiB", "1.2 %", "estimate"),
        ("other: game", "1.0 GiB", "1.2 %", "measured"),
        ("free", "75.0 GiB", "93.8 %", "measured"),
    ]


@pytest.mark.parametrize("word", WORDS)
def test_hostile_names_are_harmless(word):
    owners = (OwnerBytes("GPU-0", "other", GIB, None, 9, word),)
    view = gpu_view([card(0, word)], [sample("GPU-0", *owners), sample(word, *owners)], [word])
    limits = limits_view(word, {0: Limits(1.0, None)}, [(Place(word, 1, 1, word), Traffic(1, 1, 1, 1))], [word])
    for shown in (view, limits):
        html = shown._repr_html_()
        assert not re.search(r"<(script|svg)|<img src=x|<b>&amp;", html)
        assert not re.search("[\x00-\x08\x1b\u202e\ud800]", str(shown) + html)
        assert max(map(len, str(shown).splitlines())) < 400
        html.encode()


def test_a_page_has_a_picture_of_owners_and_the_tables():
    owners = (OwnerBytes("GPU-0", "weights", 9 * GIB), OwnerBytes("GPU-0", "free", 71 * GIB))
    html = gpu_view([card(0)], [sample("GPU-0", *owners)], ["a line"])._repr_html_()
    assert html.count("<img ") == 1
    assert html.count("<table>") == 2
    assert "a line" in html


def test_the_owners_names_take_as_many_lines_as_they_need():
    import re

    from llamatelemetry_jupyter.views import theme
    from llamatelemetry_jupyter.views.bars import WIDTH, Bar, lanes
    from llamatelemetry_jupyter.views.svg import text_px

    drawn = lanes("all of them", [Bar("GPU 0", dict.fromkeys(theme.OWNERS, 1))], [10], ["note"])
    names = {owner["label"] for owner in theme.OWNERS.values()}
    placed = [
        (float(x), name) for x, name in re.findall(r"<text x='([\d.]+)'[^>]*>([^<]*)</text>", drawn) if name in names
    ]
    assert {name for _, name in placed} == names
    assert all(x + text_px(name, 12) <= WIDTH for x, name in placed)

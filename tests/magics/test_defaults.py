"""%config LlamaMagics: what options are when they are not typed."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.floor

LOAD = "%load_ext llamatelemetry"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("max_tokens = 0", "LlamaMagics.max_tokens is the most tokens of an answer, 1 or more, not 0; None unsets it"),
        ("max_tokens = 'many'", "not 'many'"),
        ("temperature = -1", "not -1"),
        ("temperature = True", "not True"),
        ("window = 1e9", "up to a day, not 1000000000.0"),
        ("model = 7", "the model that %llama start serves: a name, an address or a file, not 7"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_as_ipython_does(ipython, value, says):
    name = value.partition(" ")[0]
    printed = ipython(
        LOAD,
        f"%config LlamaMagics.{value}",
        f"print('still', get_ipython().magics_manager.registry['LlamaMagics'].{name})",
    )
    assert says in printed
    assert "still None" in printed
    assert len(printed.splitlines()) == 2


def test_they_are_listed_with_what_they_are(ipython):
    printed = ipython(LOAD, "%config LlamaMagics.max_tokens = 9", "%config LlamaMagics")
    for said in ("LlamaMagics.ctx", "Current: 9", "the seconds that %llama dashboard shows"):
        assert said in printed


def test_a_config_file_sets_them_and_a_reload_keeps_them(ipython):
    printed = ipython(
        "get_ipython().config.LlamaMagics.window = 30",
        LOAD,
        "m = get_ipython().magics_manager.registry['LlamaMagics']\nprint('window', m.window, m.temperature)",
        "%config LlamaMagics.temperature = 0",
        "%reload_ext llamatelemetry",
        "m = get_ipython().magics_manager.registry['LlamaMagics']\nprint('again', m.window, m.temperature)",
    )
    assert "window 30.0 None" in printed
    assert "again 30.0 0.0" in printed


def test_a_default_window_is_checked_like_a_typed_one(ipython):
    printed = ipython(
        LOAD, "%config LlamaMagics.window = 45", "%llama dashboard --static", "%llama dashboard --window 0"
    )
    assert "--window is in seconds, up to a day, not 0" in printed


@pytest.mark.engine
def test_start_and_calls_use_them_and_what_is_typed_goes_before(ipython):
    printed = ipython(
        LOAD,
        "%config LlamaMagics.ctx = 512",
        "%config LlamaMagics.model = 'smollm2-135m'",
        "%config LlamaMagics.max_tokens = 5",
        "%config LlamaMagics.temperature = 0",
        "%llama start",
        "%%llama --out a\nCount to fifty.",
        "%%llama --out b -n 3\nCount to fifty.",
        "%%llama --out c\nCount to fifty.",
        "print('tokens', a.output_tokens, b.output_tokens, 'same', a.text == c.text)",
        "%llama start",
        "%llama stop",
    )
    assert "1 slot with 512 tokens each" in printed
    assert "tokens 5 3 same True" in printed
    assert "already running" in printed

"""Every colour can be told from the page that it is drawn on, and nothing needs colour to be read."""

import re
from pathlib import Path

from llamatelemetry_jupyter.values import OWNERS
from llamatelemetry_jupyter.views import theme


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_from_light_and_dark_pages():
    for style in [*theme.OWNERS.values(), *theme.SPANS.values(), *theme.NODES.values()]:
        assert all(contrast(style["light"], page) >= 3 for page in theme.LIGHT_BACKGROUNDS), style
        assert all(contrast(style["dark"], page) >= 3 for page in theme.DARK_BACKGROUNDS), style


def test_every_owner_has_a_style_and_a_pattern_of_its_own():
    assert tuple(theme.OWNERS) == OWNERS
    patterns = [style["pattern"] for style in theme.OWNERS.values()]
    assert len(set(patterns)) == len(patterns)
    assert set(patterns) == set(theme.PATTERNS)


def test_tables_are_plain_text_and_colours():
    for style in [*theme.OWNERS.values(), *theme.SPANS.values(), *theme.NODES.values()]:
        assert re.fullmatch("#[0-9a-f]{6}", style["light"])
        assert re.fullmatch("#[0-9a-f]{6}", style["dark"])


def test_every_kind_of_node_has_a_shape_of_its_own():
    looks = theme.NODES | {kind: look for kind, look in theme.SPANS.items() if kind != "other"}
    assert len({look["shape"] for look in looks.values()}) == len(looks)
    assert {look["shape"] for look in looks.values()} == set(theme.SHAPES)


def test_kind_follows_the_conventions_of_span_names():
    kinds = {
        "notebook cell": "cell",
        "chat smollm2": "chat",
        "embeddings": "chat",
        "queue": "queue",
        "decode": "decode",
    }
    assert {name: theme.span_kind(name) for name in kinds} == kinds
    assert theme.span_kind("chatter") == "other"
    assert theme.span_kind("") == "other"


def test_the_widgets_table_of_owners_is_the_same():
    source = (Path(__file__).parents[2] / "js" / "src" / "theme.js").read_text()
    row = r'(\w+): \{ label: "([^"]+)", light: "([^"]+)", dark: "([^"]+)", pattern: "(\w+)" \}'
    found = {
        m[1]: dict(zip(("label", "light", "dark", "pattern"), m.groups()[1:], strict=True))
        for m in re.finditer(row, source)
    }
    assert {owner: found.get(owner) for owner in theme.OWNERS} == theme.OWNERS

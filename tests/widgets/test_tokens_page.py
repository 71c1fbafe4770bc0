"""The built token widget in Chromium: keyboard and pointer, paging, hostile text, malformed data, every width."""

from __future__ import annotations

import pytest
from dashboardpage import MISPLACED, settle, shoot, text
from tokenworld import ANSWER, ATTACK, PROMPT, an_answer, token

from llamatelemetry_jupyter.views.tokens import MAX_TOKENS, Tokens

pytestmark = pytest.mark.browser
FOCUS = "() => Number(document.activeElement.dataset.token ?? -1)"
#: A line of tokens as it is on the page.
LINES = """() => { const lines = new Map();
    for (const e of document.querySelectorAll('.ll-token')) { const top = e.getBoundingClientRect().top;
        lines.set(top, [...(lines.get(top) ?? []), Number(e.dataset.token)]); }
    return [...lines.values()]; }"""


def facts(page):
    return page.locator(".ll-detail").inner_text()


def test_a_prompt_shows_what_cannot_be_seen(tokens):
    page = tokens(PROMPT.snapshot())
    chips = page.locator(".ll-token")
    assert chips.count() == len(PROMPT)
    assert chips.nth(1).inner_text().split("\n") == ["·sky", "6376"]
    assert [one.inner_text() for one in chips.nth(3).locator(".ll-mark").all()] == ["⇥U+200BU+202E"]
    assert chips.nth(4).locator(".ll-piece").inner_text() == "20 F0 9F"
    kinds = [one.get_attribute("data-kind") for one in chips.all()]
    assert kinds == ["text"] * 4 + ["bytes", "control", "text", "text"]
    lines = page.evaluate(LINES)
    assert 3 in lines[1], "a newline ends its line"
    assert page.locator(".ll-sure").count() == 0
    assert text(page, "summary").startswith("8 tokens, ")
    shoot(page, "tokens-prompt")


def test_a_tint_has_its_number_and_alternatives_come_by_pointer_and_by_focus(tokens):
    page = tokens(ANSWER.snapshot())
    chips = page.locator(".ll-token")
    levels = [one.get_attribute("data-level") for one in chips.all()]
    assert levels == [None, "1", "2", "3", "4", None, None, None]
    assert [one.inner_text() for one in page.locator(".ll-sure").all()][:5] == [
        "−0.10",
        "−1.00",
        "−2.00",
        "−4.00",
        "−9.00",
    ]
    backgrounds = {
        page.evaluate("i => getComputedStyle(document.querySelectorAll('.ll-token')[i]).backgroundColor", i)
        for i in range(5)
    }
    assert len(backgrounds) == 5
    assert "token 1 of 8" in facts(page)
    chips.nth(4).hover()
    assert "token 5 of 8" in facts(page)
    rows = page.locator(".ll-detail tbody tr")
    assert rows.count() == 4, "the one that was taken is added"
    assert page.locator(".ll-detail [data-chosen] td").all_inner_texts() == ["15107", "< 0.1 %", "−9.00"]
    page.mouse.move(2, 2)
    assert "token 1 of 8" in facts(page), "back to the one that the keyboard is at"
    height = page.locator(".ll-reading").bounding_box()["height"]
    chips.nth(2).focus()
    assert "token 3 of 8" in facts(page)
    assert page.locator(".ll-detail [data-chosen] .ll-piece").inner_text() == "·is⏎"
    assert page.locator(".ll-reading").bounding_box()["height"] == height, "nothing moves"
    assert (
        chips.nth(2)
        .get_attribute("aria-description")
        .startswith("space is newline, id 314, probability 14 %, logprob −2.00, instead ")
    )
    page.get_by_text("What the figures mean").click()
    assert "natural logarithm" in page.locator("dl").inner_text()
    shoot(page, "tokens-answer")


def test_every_token_is_reached_by_keys(tokens):
    page = tokens(an_answer(1200).snapshot())
    page.evaluate(
        "() => { window.keys = []; document.body.addEventListener('keydown', e => window.keys.push(e.key)); }"
    )
    page.locator('[data-token="0"]').focus()
    lines = page.evaluate(LINES)

    def press(key):
        page.keyboard.press(key)
        return page.evaluate(FOCUS)

    assert press("ArrowRight") == 1
    down = press("ArrowDown")
    assert down in lines[1]
    assert press("ArrowUp") in (0, 1, 2)
    assert press("End") == 499
    assert press("ArrowRight") == 500, "on to the next page"
    assert "tokens 501–1,000 of 1,200" in text(page, "range")
    assert press("ArrowLeft") == 499
    assert press("Home") == 0
    assert press("ArrowLeft") == 0
    assert press("PageDown") == 500
    assert press("PageDown") == 1000
    assert press("PageDown") == 1199, "there is nothing beyond"
    assert press("PageUp") == 500
    assert page.evaluate("() => window.keys") == [], "the notebook has commands on the same keys"
    assert page.locator('.ll-token[tabindex="0"]').count() == 1
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("() => document.activeElement.dataset.action") == "later"
    page.keyboard.press("Enter")
    assert text(page, "range") == "tokens 1,001–1,200 of 1,200"
    page.keyboard.press("Enter")
    assert text(page, "range") == "tokens 1,001–1,200 of 1,200"


def test_ten_thousand_tokens_are_drawn_page_by_page(tokens):
    made = Tokens(tuple(token(f" word{i % 3000}", i % 3000) for i in range(25_000)))
    page = tokens(made.snapshot())
    assert page.locator(".ll-token").count() == 500
    assert page.locator(".llamatelemetry").get_attribute("data-tokens") == str(MAX_TOKENS)
    assert "The first 10,000 of 25,000 tokens are here" in text(page, "missing")
    later = page.locator('[data-action="later"]')
    for _ in range(19):
        later.click()
    assert text(page, "range") == "tokens 9,501–10,000 of 10,000"
    assert page.locator(".ll-token").count() == 500
    assert later.get_attribute("aria-disabled") == "true"
    page.get_by_text("As a table").click()
    page.locator("tbody tr").first.wait_for()
    assert page.locator(".ll-table tbody tr").count() == 500
    assert page.locator(".ll-table tbody tr").last.inner_text().split("\t")[:3] == ["10,000", "·word999", "999"]
    page.locator('[data-action="earlier"]').click()
    assert page.locator(".ll-table tbody tr").first.inner_text().startswith("9,001")


def test_other_peoples_text_is_text(tokens):
    for made in (PROMPT, ANSWER):
        page = tokens(made.snapshot())
        for one in page.locator(".ll-token").all():
            one.hover()
        for opened in page.locator("summary").all():
            opened.click()
        settle(page)
        assert page.locator(".ll-token", has_text=ATTACK.replace(" ", "·")).count() == 1
        assert page.evaluate("() => window.pwned") is None
        assert page.locator(".llamatelemetry :is(script, img, style, iframe, a)").count() == 0


@pytest.mark.parametrize("bad", [{}, {"version": 2}, {"version": 1, "pieces": None}], ids=["empty", "newer", "broken"])
def test_data_of_another_form_are_refused_in_words(page_of, bad):
    page = page_of("tokens", "theme", bad)
    assert "these tokens are of another version" in page.locator('[role="alert"]').inner_text()


def test_no_tokens_are_a_calm_line(tokens):
    page = tokens(Tokens(()).snapshot())
    assert text(page, "summary") == "0 tokens, 0 bytes"
    assert page.locator(".ll-reading").count() == 0


@pytest.mark.parametrize("width", [320, 640, 900, 1600])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_hangs_out_at_any_width(tokens, dark, width):
    page = tokens(ANSWER.snapshot(), dark=dark, width=width)
    assert page.evaluate(MISPLACED) == []
    page.get_by_text("As a table").click()
    settle(page)
    scrolled = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert scrolled == 0
    shoot(page, f"tokens-{width}-{'dark' if dark else 'light'}")


def test_what_a_view_had_is_gone_with_it(tokens):
    page = tokens(ANSWER.snapshot())
    page.evaluate("() => harness.cleanup()")
    assert page.locator(".llamatelemetry").count() == 0
    assert page.evaluate("() => harness.listeners()") == 0


#: The least contrast of text on each tint, as painted: WCAG 2.2's formula.
CONTRAST = """() => { const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const pixel = (...layers) => { for (const [colour, alpha] of layers) {
        paint.globalAlpha = alpha; paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
        return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const light = rgb => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ground = getComputedStyle(document.querySelector('.llamatelemetry')).backgroundColor;
    return [...document.querySelectorAll('.ll-token')].map(chip => { const tint = getComputedStyle(chip).backgroundColor;
        return Math.min(...[...chip.querySelectorAll('.ll-piece, .ll-mark, .ll-sure, .ll-id')].map(e => {
            const {color, opacity} = getComputedStyle(e);
            const [a, b] = [light(pixel([ground, 1], [tint, 1])), light(pixel([ground, 1], [tint, 1], [color, Number(opacity)]))];
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); })); }); }"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_readable_on_every_tint(tokens, dark):
    page = tokens(ANSWER.snapshot(), dark=dark)
    page.wait_for_function(
        "dark => document.querySelector('.llamatelemetry').dataset.theme === dark", arg="dark" if dark else "light"
    )
    found = page.evaluate(CONTRAST)
    assert len(found) == len(ANSWER)
    assert min(found) >= 4.5, found


def test_a_page_of_five_hundred_is_drawn_once_and_hovering_draws_one_token(tokens):
    page = tokens(an_answer(2000).snapshot())
    page.evaluate("""() => { window.changed = 0;
        new MutationObserver(all => { window.changed += all.reduce((n, m) => n + m.addedNodes.length, 0); })
            .observe(document.querySelector('.ll-reading'), {subtree: true, childList: true}); }""")
    page.locator('[data-token="7"]').hover()
    settle(page)
    assert 0 < page.evaluate("() => window.changed") < 40

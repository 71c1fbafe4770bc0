"""Other people's text made harmless for the place where it is shown.

A model's answer may hold ``<script>``, an image that tells a stranger's server that you read it, or terminal control
codes. JupyterLab sanitises Markdown, nbconvert's HTML does not; so nothing dangerous may be left in the Markdown
itself. Text stays readable as it was written: HTML is shown as text, code keeps its characters.
"""

from __future__ import annotations

import html as _html
import re

# CommonMark starts raw HTML only with '<' before one of these; '<' elsewhere ("a < b") needs no care.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})([^`\n]*)$")
_CODE_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^\n]*?[^`\n])\1(?!`)")
# Links and definitions of links that lead elsewhere than to the web: nbconvert lets javascript: through, also as
# entities. A space takes the link away and changes neither the words nor a formula.
_LINK = re.compile(r"\](?=\((?!\s*https?://))", re.IGNORECASE)
_LABEL = r"\[(?:\\.|[^\[\]\\]){0,999}\]"
_DEFINITION = re.compile(rf"^([ \t>*+\-\d.)]*{_LABEL})(?=:(?!\s*https?://))", re.IGNORECASE | re.MULTILINE)
# Inside the <code> that we write ourselves every character that Markdown or MathJax could act on becomes an entity.
_ACTIVE = re.compile(r"[&<>\"'*_`\\$\[\]!~|#{}]")
# Control characters that move a cursor, set colours or hide text: C0 but tab and newline, DEL, C1, bidi overrides;
# and lone surrogates, which JSON can bring and UTF-8 cannot carry to the browser.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def html(text: object) -> str:
    """``text`` for an HTML element or a quoted attribute."""
    return _html.escape(plain(text), quote=True)


def plain(text: object) -> str:
    """``text`` for a terminal or a log line: control characters are shown as U+FFFD, tabs and newlines are kept."""
    return _CONTROL.sub("\ufffd", str(text).replace("\r\n", "\n"))


def markdown(text: object) -> str:
    """``text`` as Markdown in which no HTML is live, no image is fetched and links lead to the web only.

    Headings, lists, code and maths work.

    Code that holds something like a tag is written as an HTML code element with entities, so that it stays harmless
    even where a renderer disagrees about where code begins.
    """
    out: list[str] = []
    prose: list[str] = []
    lines = plain(text).split("\n")
    index = 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if fence is None:
            prose.append(lines[index])
            index += 1
            continue
        if prose:
            out.append(_prose("\n".join(prose)))
            prose.clear()
        end = index + 1
        closing = re.compile(rf"^ {{0,3}}{re.escape(fence[2][0])}{{{len(fence[2])},}}\s*$")
        while end < len(lines) and not closing.match(lines[end]):
            end += 1
        out.append(_block(lines[index : end + 1], fence, closed=end < len(lines)))
        index = end + 1
    if prose:
        out.append(_prose("\n".join(prose)))
    return "\n".join(out)


def _block(lines: list[str], fence: re.Match[str], *, closed: bool) -> str:
    body = "\n".join(lines[1:-1] if closed else lines[1:])
    if not _TAG.search(body) and not _TAG.search(fence[3]) and "![" not in body:
        return "\n".join(lines)
    return f"<pre><code>{_entities(body)}\n</code></pre>\n"


def _prose(text: str) -> str:
    parts: list[str] = []
    position = 0
    for span in _CODE_SPAN.finditer(text):
        parts.append(_outside_code(text[position : span.start()]))
        code = span[2]
        parts.append(_code(code) if _TAG.search(code) or "![" in code else span[0])
        position = span.end()
    parts.append(_outside_code(text[position:]))
    return "".join(parts)


def _outside_code(text: str) -> str:
    return _DEFINITION.sub(r"\1 ", _LINK.sub("] ", _TAG.sub("&lt;", text).replace("![", "!\\[")))


def _code(text: str) -> str:
    return f"<code>{_entities(text.strip(' '))}</code>"


def _entities(text: str) -> str:
    return _ACTIVE.sub(lambda m: f"&#{ord(m[0])};", text)

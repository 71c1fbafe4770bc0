"""The dashboard as one HTML file: the widget's own bundle with the data that it would ask a kernel for.

It asks no network and needs no notebook. Data stands in a script element as JSON in which no ``<`` is left, so that no
text of a model or a span can end it; a content security policy forbids everything that is not in the file.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LlamaError

_STATIC = Path(__file__).resolve().parents[1] / "widgets" / "static"
#: What esbuild ends a bundle with.
_EXPORT = re.compile(r"export\s*\{\s*([\w$]+) as default\s*\};?\s*$")
# The widget's model without a kernel: what was recorded answers, the rest is refused in the form of replies.py.
_MODEL = """
const told=JSON.parse(document.getElementById("recorded").textContent);
const heard=new Map();
const traits={snapshot:told.snapshot,seq:1,static_id:"",recorded:true};
const model={
get:(name)=>traits[name],
on:(name,fn)=>heard.set(name,(heard.get(name)??new Set()).add(fn)),
off:(name,fn)=>heard.get(name)?.delete(fn),
send({id,op,args}){
const known=told.answers[`${op} ${args?.kind??""} ${args?.trace_id??""}`];
const reply=known===undefined
?{ok:false,error:{what:"this page has no more of it",hint:"in the notebook: %llama dashboard"}}
:{ok:true,data:known};
queueMicrotask(()=>heard.get("msg:custom")?.forEach((fn)=>fn({type:"reply",id,...reply},[])));
}};
const widget=dashboard();
await widget.initialize?.({model});
const view=document.getElementById("dashboard");
await widget.render({model,el:view});
"""
_STYLE = """
:root{color-scheme:light dark}
body{margin:0 auto;max-width:1200px;padding:16px;font-family:system-ui,sans-serif;background:#fff;color:#1f2328}
@media (prefers-color-scheme:dark){body{background:#111;color:#eef0f2}}
footer{margin-top:12px;font-size:12px;opacity:.75}
"""


def key(operation: str, kind: str = "", trace_id: str = "") -> str:
    """What an answer is found by."""
    return f"{operation} {kind} {trace_id}"


def page(snapshot: Mapping[str, Any], answers: Mapping[str, Any], title: str, noscript: str) -> str:
    """A whole HTML document.

    ``answers``: by :func:`key`, what :mod:`..operations` says. ``noscript`` is HTML for readers without scripts.
    """
    bundle = (_STATIC / "dashboard.js").read_text("utf-8")
    code, found = _EXPORT.subn(lambda match: f"const dashboard={match[1]};", bundle)
    if found != 1:
        raise LlamaError("the widget's bundle is not as it was built", hint="reinstall llamatelemetry-jupyter")
    style = (_STATIC / "dashboard.css").read_text("utf-8")
    data = json.dumps({"snapshot": snapshot, "answers": answers}, ensure_ascii=True, allow_nan=False)
    data = data.replace("<", "\\u003c")
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<style>{_STYLE}{style}</style></head>\n"
        f'<body><main id="dashboard"></main><footer>{html.escape(title)}</footer>\n'
        f"<noscript>{noscript}</noscript>\n"
        f'<script id="recorded" type="application/json">{data}</script>\n'
        f'<script type="module">{code}{_MODEL}</script></body></html>\n'
    )

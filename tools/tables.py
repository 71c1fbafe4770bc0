"""Writes the tables of the documentation that the code itself knows: ``python tools/tables.py``.

A page holds ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between them is made here, and a test compares.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_REGION = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def magics() -> str:
    """Every command of ``%llama`` with its options, from its own parser."""
    from llamatelemetry_jupyter.magics.router import COMMANDS, module, parser

    lines: list[str] = []
    for name, what in COMMANDS.items():
        own = parser(name)
        prompt = " PROMPT" if getattr(module(name), "TAKES_PROMPT", False) else ""
        words = [w for a in own._actions if not a.option_strings if (w := _argument(a))]
        lines += [f"### `{' '.join([f'%llama {name}', *words])}{prompt}`", "", f"{_sentence(what)}", ""]
        rows = [a for a in own._actions if a.dest != "help"]
        if rows:
            lines += ["| | |", "|---|---|", *(f"| {_names(a)} | {_cell(a.help or '')} |" for a in rows), ""]
    return "\n".join(lines)


def _argument(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return f"[{name}]" if action.nargs in ("?", "*") else name


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_argument(action).strip('[]')}`"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


def settings() -> str:
    """Every setting of a server: default and its reason, what it does, llama-server's flag."""
    from llamatelemetry_jupyter.server.options import table
    from llamatelemetry_jupyter.server.settings import ServerSettings

    return table(ServerSettings)


def figures() -> str:
    """Which figure comes from where, for each kind of server."""
    from llamatelemetry_jupyter.server.attach import table

    return table()


def numbers() -> str:
    """Every figure that is shown: formula, unit, source, second source."""
    from llamatelemetry_jupyter.telemetry.figures import table

    return table()


def metrics() -> str:
    """Every metric, in both vocabularies."""
    from llamatelemetry_jupyter.telemetry.instruments import table

    return table()


def attributes() -> str:
    """Every attribute that a span of ours may have, with its meaning."""
    from llamatelemetry_jupyter.telemetry import semconv

    known = dict(semconv.MEANING)
    for option, name in semconv.REQUEST_OPTIONS.items():
        known.setdefault(name, f"the request's `{option}`")
    lines = ["| attribute | what it says |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| `{name}{'…' * name.endswith('.')}` | {_cell(known[name])} |" for name in sorted(known))]
    )


def cards() -> str:
    """Every named card, its figures and where they come from."""
    from llamatelemetry_jupyter.cards import cards as known

    lines = ["| card | memory | usable | bandwidth | FP16 | source |", "|---|---:|---:|---:|---:|---|"]
    for card in known():
        usable = f"{card.usable_bytes / 2**30:.1f} GiB{'' if card.usable_gib else ' (97 %)'}"
        lines.append(
            f"| {card.name} | {card.memory_gib:.0f} GiB | {usable} | {card.bandwidth_gb_s:,.0f} GB/s "
            f"| {card.fp16_tflops:g} TFLOPS | {_cell(card.source)} |"
        )
    return "\n".join(lines)


def plan_cases() -> str:
    """Predicted and actual MiB of the last run of the bench ``plan_error``."""
    found = json.loads((ROOT / "bench" / "plan_cases.json").read_text(encoding="utf-8"))
    parts = ("weights", "kv", "compute", "output")
    lines = [
        f"Engine: {found['engine']}, CPU. MiB, predicted / in the engine's log. Last column: error of the sum that",
        "llama-fit-params prints, where it can be asked the same: it has no flag for a unified cache or for embeddings,",
        "reserves logits for a whole batch, which a server does not, and leaves out weights that the CPU repacks.",
        "",
        "| model and settings | context × slots | weights | KV cache | compute | output | error of the sum | llama-fit-params |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["cases"]:
        ours, theirs = row["predicted"], row["actual"]
        cells = " | ".join(f"{ours[part]:.2f} / {theirs[part]:.2f}" for part in parts)
        error = 100 * (sum(ours.values()) / sum(theirs.values()) - 1)
        peer = row["fit_params"]
        other = (
            f"{100 * (sum(peer.values()) / (sum(theirs.values()) - theirs['output']) - 1):+.0f} %" if peer else "n/a"
        )
        lines.append(
            f"| {_cell(row['case'])} | {row['ctx']:,} × {row['slots']} | {cells} | {error + 0.0:+.2f} % | {other} |"
        )
    return re.sub(r"[-+](0(\.00)? %)", r"\1", "\n".join(lines))


def models() -> str:
    """Every named model, from the catalogue."""
    from llamatelemetry_jupyter.models.catalogue import entries

    lines = ["| name | what for | parameters | forms | licence | consent | from |", "|---|---|--:|---|---|---|---|"]
    for entry in entries():
        source = f"[{entry.repo}]({entry.page})" if entry.page else f"`pypi:{entry.repo}`"
        lines.append(
            f"| `{entry.id}` | {_cell(f'{entry.use}: {entry.about}')} | {entry.size_label} | {', '.join(entry.quants)} "
            f"| {entry.licence} | {entry.consent} | {source}, `{entry.file(entry.quants[0])}` |"
        )
    return "\n".join(lines)


def routes() -> str:
    """Every route of llama.cpp's server: the client's method, and what proves that it works."""
    from llamatelemetry_jupyter.api.routes import ROUTES

    lines = ["| route | what | method of the client | known to work by |", "|---|---|---|---|"]
    for route in ROUTES:
        paths = "<br>".join(f"`{route.verb} {path}`" for path in route.paths)
        methods = ", ".join(f"`{name}`" for name in route.methods)
        lines.append(f"| {paths} | {route.what} | {methods} | {route.proof} |")
    return "\n".join(lines)


def secrets() -> str:
    """Every kind of secret that is masked, and its form."""
    from llamatelemetry_jupyter.telemetry.masking import FORMS

    lines = ["| masked as | form |", "|---|---|"]
    return "\n".join(lines + [f"| {form.kind} | `{_cell(form.pattern.pattern)}` |" for form in FORMS])


def looks() -> str:
    """Colour, pattern and mark of everything that is drawn."""
    from llamatelemetry_jupyter.views import theme

    lines = ["| owner of memory | light | dark | pattern |", "|---|---|---|---|"]
    lines += [
        f"| {o['label']} | {_swatch(o['light'])} | {_swatch(o['dark'])} | {o['pattern']} |"
        for o in theme.OWNERS.values()
    ]
    lines += ["", "| span or node | light | dark | mark |", "|---|---|---|---|"]
    kinds = {**theme.SPANS, **theme.NODES}
    lines += [f"| {k['label']} | {_swatch(k['light'])} | {_swatch(k['dark'])} | {k['shape']} |" for k in kinds.values()]
    return "\n".join(lines)


def _swatch(colour: str) -> str:
    return f'<span style="color:{colour}" aria-hidden="true">■</span> `{colour}`'


def tokens() -> str:
    """The style sheet's own variables: their value on a light page, and on a dark one where it is another."""
    style = (ROOT / "js" / "src" / "base.css").read_text(encoding="utf-8")
    blocks = [
        style[: style.index("&[data-theme")],
        style[style.index("&[data-theme") : style.index("/* JupyterLab and")],
    ]
    light, dark = (dict(re.findall(r"(--ll-[\w-]+): ([^;]+);", block)) for block in blocks)
    lines = ["| token | light | dark |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| `{name}` | {_token(value)} | {_token(dark.get(name, ''))} |" for name, value in light.items()]
    )


def _token(value: str) -> str:
    return _swatch(value) if value.startswith("#") else value


TABLES: dict[str, Callable[[], str]] = {
    "magics": magics,
    "settings": settings,
    "figures": figures,
    "numbers": numbers,
    "metrics": metrics,
    "attributes": attributes,
    "cards": cards,
    "plan_cases": plan_cases,
    "models": models,
    "routes": routes,
    "secrets": secrets,
    "looks": looks,
    "tokens": tokens,
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with a table: its path, and its text as it should be."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _REGION.search(text):
            yield page, _REGION.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    """Bring every page up to date."""
    for page, wanted in pages():
        if page.read_text(encoding="utf-8") != wanted:
            page.write_text(wanted, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()

"""``%llama models``: what can be named, what is here, what a model is, fetching and deleting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ... import escape
from ...errors import CommandError, ModelError
from ...progressline import Line
from ..output import confirmed
from ..parser import Parser

if TYPE_CHECKING:
    from ...models.entries import Entry
    from ...models.fit import Beside, Free
    from ...models.store import Stored
    from ...session import Session
    from ...views.models import ModelView
    from ...views.text import Table

ACTIONS = ("list", "info", "pull", "rm")


def configure(parser: Parser) -> None:
    """What to do, and with which model."""
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, default="list", help="list (if none is given), info, pull or rm"
    )
    parser.add_argument("model", nargs="?", help="a name, hf:, kaggle:, https: or pypi: address")
    parser.add_argument(
        "--ctx", type=int, default=8192, metavar="N", help="info: context of the KV cache that is drawn (8192)"
    )
    parser.add_argument("--here", action="store_true", help="list: only what is on this machine")
    parser.add_argument("--yes", action="store_true", help="rm: delete from a shared cache without asking")


def run(session: Session, args: argparse.Namespace) -> Table | ModelView | None:
    """The table of models, or one model shown, fetched or deleted."""
    if args.action == "list":
        return _list(only_here=args.here)
    if args.model is None:
        raise CommandError(f"which model shall be {_DONE[args.action]}?", hint=f"%llama models {args.action} NAME")
    if args.action == "info":
        return _info(args.model, args.ctx)
    if args.action == "pull":
        _pull(args.model)
    else:
        _remove(session, args.model, yes=args.yes)
    return None


_DONE = {"info": "shown", "pull": "fetched", "rm": "deleted"}


# --------------------------------------------------------------------------------------------------------------- list


def _list(*, only_here: bool) -> Table:
    from ...models import catalogue, store
    from ...server.available import free
    from ...views.format import size
    from ...views.text import Table

    there, memory = store.stored(), free()
    rows = []
    for entry in catalogue.entries():
        own = [one for one in there if one.name and one.name.partition(":")[0] == entry.id]
        if own or not only_here:
            here = ", ".join(f"{_form(one)} {size(one.bytes)}" for one in own)
            known = (entry.id, entry.size_label, entry.licence, entry.consent)
            rows.append((*known, here, _fits(entry, own, memory), entry.about))
    for one in there:
        if one.name is None:
            rows.append((one.address, "n/a", "n/a", "n/a", size(one.bytes), _stored_fits(one, memory), ""))
    headers = ("model", "parameters", "licence", "consent", "here", "fits now", "what for")
    return Table(headers, tuple(rows), frozenset({"parameters"}), "no model is on this machine; %llama models list")


def _form(one: Stored) -> str:
    return (one.name or "").partition(":")[2]


def _fits(entry: Entry, own: Sequence[Stored], memory: Free) -> str:
    """The largest form that fits: by the plan for one that is here; a sign says that it is estimated for others."""
    from ...models.fit import beside
    from ...models.quants import BITS

    here = {_form(one): one.bytes for one in own}
    more = beside(str(own[0].paths[0]), memory) if own else None  # the same for all forms
    placed = []
    for quant in entry.quants:
        exact = more is not None and quant in here
        where = _placed(here.get(quant) or int(entry.parameters * BITS[quant] / 8), memory, more)
        placed.append((f"{'' if exact else '≈ '}{quant}", where))
        if where != "no" and (not memory.gpus or where == "GPU"):
            return f"{placed[-1][0]} ({where})"
    smallest, where = placed[-1]
    return "no" if where == "no" else f"{smallest} (part on the host)"


def _stored_fits(one: Stored, memory: Free) -> str:
    from ...models.fit import beside

    more = beside(str(one.paths[0]), memory)
    return f"{'≈ ' if more is None else ''}{_placed(one.bytes, memory, more)}"


def _placed(file_bytes: int, memory: Free, more: Beside | None) -> str:
    from ...models.fit import place

    return place(file_bytes, memory, more) or "no"


# --------------------------------------------------------------------------------------------------------------- info


def _info(model: str, ctx: int) -> ModelView:
    """The header of a model as a picture with tables; of a remote one nothing else is fetched."""
    from ...models.demand import Demand
    from ...models.gguf import read_model
    from ...models.shape import shape_of
    from ...views.models import model_view

    header = read_model(located(model))
    return model_view(header, shape_of(header), Demand(ctx))


def located(model: str) -> str:
    """Where the header of a model can be read: a file on this machine, or an address of which no more is fetched."""
    from ...models import catalogue

    if model.lower().startswith(("https:", "http:")):
        return model.partition("#")[0]
    with Line() as line:
        return catalogue.readable(model, line)


# --------------------------------------------------------------------------------------------------------------- pull


def _pull(model: str) -> None:
    from ...models import catalogue
    from ...server.available import free
    from ...views.format import size

    with Line() as line:
        chosen = catalogue.choose(model, free(), line)
        if chosen.why:
            line.note(chosen.why)
        ref = catalogue.pull(chosen.model, line)
        checked = "" if ref.sha256 is None else f" · SHA-256 {ref.sha256[:16]}…"
        line.end(f"{ref.id} · {ref.quant or 'n/a'} · {size(ref.file_bytes)}{checked} · {ref.path}")


# ----------------------------------------------------------------------------------------------------------------- rm


def _remove(session: Session, model: str, *, yes: bool) -> None:
    from ...models import store
    from ...views.format import size

    found = [one for one in store.stored() if one.called(model)]
    if not found:
        raise ModelError(f"{escape.plain(model)} is in none of the caches", hint="%llama models list --here")
    handle = session.handle
    served = handle.model.path if handle is not None and handle.model is not None else None
    if any(served == str(path) for one in found for path in one.paths):
        raise ModelError(f"{escape.plain(model)} is being served", hint="%llama stop")
    shared = [one for one in found if one.owner != "ours"]
    for one in found:
        print(escape.plain(f"{one.name or one.address}: {size(one.bytes)}, {one.paths[0]}"))
    if shared and not yes:
        owners = " and ".join(dict.fromkeys(f"{one.owner}'s" for one in shared))
        again = f"%llama models rm {model} --yes"
        if not confirmed(f"Delete it from {owners} cache, which other programs use, too?", again):
            print("nothing was deleted")
            return
    for one in found:
        store.remove(one)
    print(f"deleted: {size(sum(one.bytes for one in found))}")

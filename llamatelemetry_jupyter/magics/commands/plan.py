"""``%llama plan``: where a model's bytes would go, and what fits, without loading anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser
from .models import located

if TYPE_CHECKING:
    from ...models.demand import Demand
    from ...models.plan import Device, Plan
    from ...models.shape import ModelShape
    from ...session import Session
    from ...views.plan import PlanView
    from ...views.text import Table


def configure(parser: Parser) -> None:
    """The model, the cards, and how it is to be run."""
    parser.add_argument("model", nargs="?", help="a name, a .gguf file, hf:… or https:… (the running one)")
    parser.add_argument("--gpus", metavar="CARDS", help="plan for cards that are not here: 2xT4, T4,L4, 12GB, none")
    parser.add_argument("--ctx", type=int, default=8192, metavar="N", help="context per slot, in tokens (8192)")
    parser.add_argument("--slots", type=int, default=1, metavar="N", help="requests answered at the same time (1)")
    parser.add_argument(
        "--kv", default="f16", metavar="TYPE", help="type of the KV cache: f16, q8_0, q4_0 …; of keys,values (f16)"
    )
    parser.add_argument("--flash", choices=("on", "off"), default="on", help="flash attention (on)")
    parser.add_argument("--batch", type=int, default=2048, metavar="N", help="tokens of a logical batch (2048)")
    parser.add_argument("--ubatch", type=int, default=512, metavar="N", help="tokens computed at once (512)")
    parser.add_argument("--unified", action="store_true", help="one KV cache for all slots")
    parser.add_argument("--split", choices=("layer", "none"), default="layer", help="share layers among GPUs (layer)")
    parser.add_argument("--gpu-layers", type=int, metavar="N", help="layers on the GPUs (as many as fit)")
    parser.add_argument(
        "--check", action="store_true", help="compare what was planned for the running server with what it took"
    )


def run(session: Session, args: argparse.Namespace) -> PlanView | Table:
    """Bytes per device, the context per slot, the largest context and quantisation that fit."""
    from ...models.gguf import check
    from ...models.shape import shape_of
    from ...views.format import size
    from ...views.plan import plan_view

    if args.check:
        return _check(session)
    handle = session.handle
    model = args.model or (handle.model.path if handle and handle.model else None)
    if model is None:
        raise CommandError("no model was named and none is running", hint="%llama plan smollm2-135m --gpus 2xT4")
    demand = _demand(args, args.ctx, args.slots)
    header = check(located(model))
    shape = shape_of(header)
    gpus, host = _devices(args.gpus)
    found = _placed(shape, gpus, host, demand, args.gpu_layers)
    where = ", ".join(gpu.name for gpu in gpus) or "this machine's memory"
    title = f"{header.name or header.architecture}, {shape.quant or 'n/a'}, {size(header.file_bytes)} on {where}"
    return plan_view(title, found, _advice(shape, gpus, host, demand, found, model))


def _demand(args: argparse.Namespace, ctx: int, slots: int) -> Demand:
    from ...models.demand import Demand

    keys, _, values = args.kv.partition(",")
    return Demand(
        ctx, slots, keys, args.flash == "on", args.batch, args.ubatch, args.unified, args.split, values or None
    )


def _placed(shape: ModelShape, gpus: Sequence[Device], host: Device, demand: Demand, gpu_layers: int | None) -> Plan:
    from ...models.plan import placed, plan

    if gpu_layers is None:
        return plan(shape, gpus, host, demand)
    if gpu_layers < 0:
        raise CommandError("--gpu-layers must be 0 or more", hint="%llama plan --help")
    return placed(shape, gpus, host, demand, gpu_layers)


def _devices(asked: str | None) -> tuple[tuple[Device, ...], Device]:
    """Named cards, else the GPUs that are here with their free memory; and this machine."""
    from ... import cards
    from ...models.host import host_device
    from ...models.plan import Device

    host = host_device()
    if asked is None:
        from ...gpu.nvml import Nvml

        nvml = Nvml()
        try:
            infos = nvml.infos()
        finally:
            nvml.close()
        return tuple(Device(i.name, i.free_bytes or 0, "gpu", i.total_bytes) for i in infos), host
    if asked.strip().lower() == "none":
        return (), host
    named = cards.parse(asked)
    several = len(named) > 1
    return tuple(
        Device(f"{card.name}{f' #{number}' if several else ''}", card.usable_bytes, "gpu", card.usable_bytes)
        for number, card in enumerate(named)
    ), host


def _advice(
    shape: ModelShape, gpus: Sequence[Device], host: Device, demand: Demand, found: Plan, model: str
) -> list[str]:
    """The largest context and quantisation with every layer where it is fast, and the line that starts it."""
    from ...models.plan import largest_context, largest_quant
    from ...models.source import is_remote
    from ...views.format import count, size

    lines = []
    if shape.context_length and demand.ctx > shape.context_length:
        lines.append(
            f"{count(demand.ctx)} tokens are more than the model was trained for: {count(shape.context_length)}"
        )
    context = largest_context(shape, gpus, host, demand)
    whole = "with all layers on GPU" if gpus else "in memory"
    lines.append(f"largest context {whole}: {'none' if context is None else f'{count(context)} tokens per slot'}")
    if not found.fits or (gpus and found.gpu_layers <= len(shape.layers)):
        quant = largest_quant(shape, gpus, host, demand)
        said = "none" if quant is None else f"{quant[0]}, about {size(quant[1])}"
        lines.append(f"largest quantisation that fits whole: {said}")
    if found.fits and not is_remote(model):
        lines.append(f"start it: %llama start {model} --ctx {demand.ctx} --slots {demand.slots}")
    if gpus:
        lines.append("CUDA context and pipeline copies are assumptions that were not yet verified on a GPU")
    return lines


def _check(session: Session) -> Table:
    """Predicted against actual for the server that runs; all of it is known from its start."""
    from ...server.forecast import uncounted
    from ...views.plan import comparison

    handle = session.chosen()
    if handle is None:
        raise CommandError("no server is running: there is nothing to compare", hint="%llama start")
    if not handle.predicted or not handle.buffers:
        what = "was not started here" if not handle.owned else "has no figures of its memory from its start"
        raise CommandError(f"the server at {handle.url} {what}: there is nothing to compare", hint="%llama start")
    settings = session.manager_of(handle.name).settings
    return comparison(handle.predicted, handle.buffers, uncounted(settings) if settings is not None else ())

"""``%llama limits``: the most tokens per second that a model can reach, and how close the last call came."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CommandError
from ..parser import Parser
from .models import located

if TYPE_CHECKING:
    from ...cards import Card
    from ...gpu.roofline import Limits, Place
    from ...models.demand import Demand
    from ...models.shape import ModelShape
    from ...session import Session
    from ...values import ServerHandle, SpanRow, Traffic
    from ...views.limits import LimitsView

    #: A place and what one token asks of it while the cache holds so many tokens.
    Part = tuple[Place, Callable[[int], Traffic]]

_CTX = 8192
_RECENT = 500


def configure(parser: Parser) -> None:
    """The model, where it lies, and whether to measure."""
    parser.add_argument("model", nargs="?", help="a name, a .gguf file, hf:… or https:… (the running one)")
    parser.add_argument("--gpus", metavar="CARDS", help="for cards that are not here: 2xT4, T4,L4, none")
    parser.add_argument("--ctx", type=int, metavar="N", help="tokens in a full cache (the running server's, else 8192)")
    parser.add_argument("--measure", action="store_true", help="measure this machine's memory bandwidth (0.3 s)")


def run(session: Session, args: argparse.Namespace) -> LimitsView:
    """Limits of decode and prefill for an empty and a full cache, and for the last call beside what it reached."""
    from ...gpu.roofline import limits
    from ...models.gguf import check
    from ...models.shape import shape_of
    from ...views.format import size
    from ...views.limits import limits_view

    running = session.chosen()
    model = args.model or (running.model.path if running and running.model else None)
    if model is None:
        raise CommandError("no model was named and none is running", hint="%llama limits smollm2-135m --gpus 2xT4")
    if args.ctx is not None and not 1 <= args.ctx <= 1 << 24:
        raise CommandError(f"--ctx must be from 1 to {1 << 24:,}", hint="%llama limits --help")
    path = located(model)
    header = check(path)
    shape = shape_of(header)
    served = next((h for h in session.handles() if h.model and Path(h.model.path) == Path(path)), None)
    ctx = args.ctx or (served.ctx_per_slot if served else None) or _CTX
    demand = _demand(session, served, ctx)
    host = _host(measure=args.measure)
    if served is not None and served.buffers and args.gpus is None:
        parts = _as_served(shape, demand, served, _cards_here(), host)
    else:
        parts = _as_planned(shape, demand, args.gpus, host)
    last = _last_call(session, served) if args.gpus is None else None

    def at(filled: int) -> Limits:
        return limits([(place, work(filled)) for place, work in parts])

    empty = [(place, work(0)) for place, work in parts]
    used = [(place, work) for place, work in empty if work.weight_bytes or work.cache_bytes]
    title = f"{header.name or header.architecture}, {shape.quant or 'n/a'}, {size(header.file_bytes)}"
    where = ", ".join(place.name for place, _ in used)
    lines = [*_compared(last, at), *_missing([place for place, _ in used])]
    if shape.approximate:
        lines.append(f"an estimate: {shape.approximate}")
    return limits_view(f"{title} on {where}", {filled: at(filled) for filled in sorted({0, ctx})}, used, lines)


# ------------------------------------------------------------------------------------------------------------- places


def _host(*, measure: bool) -> Place:
    from ...gpu.roofline import Place

    if not measure:
        return Place("this machine's memory", None, None, "not measured")
    from ...gpu.bandwidth import measured_gb_s

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Place("this machine's memory", measured_gb_s(cores), None, "measured")


def _of_card(name: str, card: Card | None) -> Place:
    from ...gpu.roofline import Place

    if card is None or not card.bandwidth_gb_s:
        return Place(name, None, None, "no spec sheet known")
    return Place(name, card.bandwidth_gb_s, card.fp16_tflops, f"from spec sheet: {card.source}")


def _cards_here() -> list[tuple[str, int, Place]]:
    """Id, bytes and place of every GPU that answers."""
    from ... import cards
    from ...gpu.nvml import Nvml

    nvml = Nvml()
    try:
        infos = nvml.infos()
    finally:
        nvml.close()
    found = []
    for number, info in enumerate(infos):
        name = f"GPU {number} · {info.name}"
        found.append((info.device, info.total_bytes, _of_card(name, cards.of_product(info.name, info.total_bytes))))
    return found


def _named(asked: str) -> list[tuple[int, Place]]:
    from ... import cards

    if asked.strip().lower() == "none":
        return []
    found = cards.parse(asked)
    several = len(found) > 1
    return [(c.usable_bytes, _of_card(f"{c.name}{f' #{n}' if several else ''}", c)) for n, c in enumerate(found)]


# -------------------------------------------------------------------------------------------- what lies in which place


def _as_planned(shape: ModelShape, demand: Demand, asked: str | None, host: Place) -> list[Part]:
    """The placement that a plan makes on cards that nobody else uses."""
    from ...models.host import host_device
    from ...models.plan import Device, plan

    places = [(size, place) for _, size, place in _cards_here()] if asked is None else _named(asked)
    gpus = [Device(place.name, size, "gpu", size) for size, place in places]
    found = plan(shape, gpus, host_device(), demand)
    # The output goes where the last layer is; a single "layer" on the GPUs is the output.
    holding = [n for n, share in enumerate(found.shares) if share.layers and share.device.kind == "gpu"]
    head = len(found.shares) - 1 if not found.gpu_layers else holding[-1] if holding else 0
    order = [*(place for _, place in places), host]
    return [
        (place, _work(shape, demand, share.layers, output=number == head))
        for number, (place, share) in enumerate(zip(order, found.shares, strict=True))
    ]


def _work(shape: ModelShape, demand: Demand, layers: Sequence[int], *, output: bool) -> Callable[[int], Traffic]:
    from ...models.traffic import traffic

    return lambda filled: traffic(shape, demand, filled, layers, output=output)


def _as_served(
    shape: ModelShape, demand: Demand, handle: ServerHandle, cards: Sequence[tuple[str, int, Place]], host: Place
) -> list[Part]:
    """The placement that a running engine has announced: each place has its share of weights and of caches."""
    from ...gpu.owners import gpu_index
    from ...gpu.roofline import Place
    from ...models.traffic import traffic

    weights: dict[int | None, int] = {}
    caches: dict[int | None, int] = {}
    for buffer in handle.buffers:
        sums = {"weights": weights, "kv": caches}.get(buffer.owner)
        if sums is not None:
            index = gpu_index(buffer.device)
            sums[index] = sums.get(index, 0) + buffer.bytes
    if any(index is not None for index in weights):
        # Embeddings are looked up on the host wherever the layers are.
        weights[None] = max(0, weights.get(None, 0) - sum(t.bytes or 0 for t in shape.input_tensors))
    all_weights, all_caches = sum(weights.values()) or 1, sum(caches.values()) or 1

    def share(index: int | None) -> Callable[[int], Traffic]:
        of_weights, of_caches = weights.get(index, 0) / all_weights, caches.get(index, 0) / all_caches

        def work(filled: int) -> Traffic:
            whole = traffic(shape, demand, filled)
            return type(whole)(
                round(whole.weight_bytes * of_weights),
                round(whole.cache_bytes * of_caches),
                round(whole.parameters * of_weights),
                round(whole.prompt_parameters * of_weights),
            )

        return work

    parts: list[Part] = []
    for index in sorted({*weights, *caches}, key=lambda i: (i is None, i or 0)):
        if index is None:
            place = host
        elif index < len(cards):
            place = cards[index][2]
        else:
            place = Place(f"GPU {index}", None, None, "not seen by NVML")
        parts.append((place, share(index)))
    return parts


def _demand(session: Session, served: ServerHandle | None, ctx: int) -> Demand:
    from ...models.demand import Demand

    settings = session.managers[served.name].settings if served is not None else None
    return Demand(ctx, kv_type=settings.cache_type_k) if settings is not None else Demand(ctx)


# ------------------------------------------------------------------------------------------------------- the last call


def _last_call(session: Session, served: ServerHandle | None) -> SpanRow | None:
    """The newest call of the server that was long enough to have a rate."""
    from ...telemetry import semconv

    if served is None:
        return None
    address = served.url.partition("://")[2]
    for row in reversed(session.spans.rows(last=_RECENT)):
        if row.server == address and row.decode_tokens_per_s and row.attributes.get(semconv.OPERATION_NAME) == "chat":
            return row
    return None


def _compared(row: SpanRow | None, at: Callable[[int], Limits]) -> list[str]:
    from ...views.format import count, rate

    if row is None or row.decode_tokens_per_s is None:
        return ["no call to compare with: %llama chat Hello"]
    filled = round((row.input_tokens or 0) + (row.output_tokens or 0) / 2)
    most = at(filled).decode_tokens_per_s
    reached = f"the last call decoded {rate(row.decode_tokens_per_s)} tokens/s"
    if most is None:
        return [reached]
    near = 100 * row.decode_tokens_per_s / most
    share = f"{near:.{0 if near >= 10 else 1}f} %"
    return [f"{reached}, {share} of the {rate(most)} that {count(filled)} tokens in the cache allow"]


def _missing(places: Sequence[Place]) -> list[str]:
    lines = []
    if any(place.source == "not measured" for place in places):
        lines.append("the bandwidth of this machine's memory is not known: %llama limits --measure")
    unknown = [place.name for place in places if place.source == "no spec sheet known"]
    if unknown:
        lines.append(f"n/a, because no spec sheet is known for {', '.join(unknown)}")
    if any(place.source.startswith("from spec sheet") for place in places):
        lines.append("a spec sheet's figures are nominal: no engine reaches all of them")
    return lines

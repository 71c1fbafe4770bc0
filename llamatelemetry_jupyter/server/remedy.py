"""What to type where a model does not fit: a smaller context, else a smaller form of it, else a smaller model."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from ..models import catalogue
from ..models.entries import Entry
from ..models.fit import Free, place
from ..models.plan import QUANTS, largest_context, placed, plan, quantised
from ..models.quants import BITS
from .failures import Failure
from .forecast import LEAST_CONTEXT, Forecast, missing, told

_LEAST = 256  # what settings take as a context


def warning(found: Forecast, asked: str, server: str) -> Failure | None:
    """What is to be said before a start that is likely to fail; ``asked`` is how the model was named."""
    if found.fits:
        return None
    cause = f"{told(found.plan)}: the start may fail, or be slow"
    return Failure(cause, _remedy(found, asked, server, short=True, ask=False))


def notices(found: Forecast, asked: str, server: str) -> list[str]:
    """What is told before a start: a lowered context in one line, and in two what :func:`warning` says."""
    problem = warning(found, asked, server)
    lines = [found.lowered] if found.lowered else []
    return [*lines, f"warning: {problem.cause}\n  try: {problem.remedy}"] if problem else lines


def explained(failure: Failure, found: Forecast, asked: str, server: str) -> Failure:
    """``failure`` of an engine that had too little memory, with how much was missing and what would fit.

    An end that only may have to do with memory (a signal) is left as it is where the plan says that all of it fits.
    """
    on_gpu = failure.memory == "gpu"
    plan_ = found.whole() if on_gpu and found.settings.gpu_layers is None else found.plan
    short = missing(plan_) is not None
    if failure.memory is None or (failure.memory == "maybe" and not short):
        return failure
    cause = failure.cause
    if short:
        cause = f"{cause if failure.memory == 'maybe' else cause.partition(':')[0]}: {told(plan_)}"
    elif found.gpus or not on_gpu:  # of a GPU that we did not see nothing can be said
        cause = f"{cause}, although {told(plan_)}"
    return Failure(cause, _remedy(found, asked, server, short=short, ask=True), failure.memory)


def _remedy(found: Forecast, asked: str, server: str, *, short: bool, ask: bool) -> str:
    name = "" if server == "default" else f" --name {server}"
    forms = cache(lambda: catalogue.forms(asked, ask=ask))
    return _smaller_start(found, forms, name, short=short) or _smaller_model(found, asked, name) or "%llama models list"


def _smaller_start(found: Forecast, forms: Callable[[], Mapping[str, str]], name: str, *, short: bool) -> str | None:
    """The same model with less context, fewer slots, fewer layers on the GPU, or in a smaller form."""
    demand, layers = found.plan.demand, found.settings.gpu_layers
    again = f"%llama restart{name}"
    enough = min(LEAST_CONTEXT, max(demand.ctx // 2, _LEAST))
    below = demand.ctx - 1 if short else demand.ctx // 2  # where the plan was wrong, half of it may go

    def context(slots: int, at_most: int) -> int:
        wanted = replace(demand, slots=slots)
        return min(largest_context(found.shape, found.gpus, found.host, wanted, layers) or 0, at_most)

    if (most := context(demand.slots, below)) >= enough:
        return f"{again} --ctx {most}"
    if demand.slots > 1 and (alone := context(1, demand.ctx)) >= enough:
        return f"{again} --slots 1 --ctx {alone}"
    if layers and found.gpus and (less := plan(found.shape, found.gpus, found.host, demand).gpu_layers) < layers:
        return f"{again} --gpu-layers {less}"
    for ctx in (demand.ctx, enough):
        if (form := _smaller_form(found, forms, ctx)) is not None:
            return f"%llama start {shlex.quote(form)}{name} --ctx {ctx}"
    return f"{again} --ctx {most}" if most >= _LEAST else None


def _smaller_form(found: Forecast, forms: Callable[[], Mapping[str, str]], ctx: int) -> str | None:
    """The best form of the same model that fits whole."""
    shape, demand = found.shape, replace(found.plan.demand, ctx=ctx)
    now = 8 * sum(tensor.bytes or 0 for tensor in shape.tensors) / max(shape.parameters, 1)
    for quant, bits in QUANTS:
        if bits < now and quant in forms():
            smaller = quantised(shape, bits)
            if placed(smaller, found.gpus, found.host, demand, len(shape.layers) + 1).fits:
                return forms()[quant]
    return None


def _smaller_model(found: Forecast, asked: str, name: str) -> str | None:
    """The largest known model of the same use that fits whole in one of its forms."""
    free = Free(tuple(gpu.free_bytes for gpu in found.gpus), found.host.free_bytes)
    own = catalogue.entry_of(asked)
    use = own.use if own else "embeddings" if found.settings.embeddings else "chat"

    def fits(entry: Entry) -> bool:
        least = round(entry.parameters * BITS[entry.quants[-1]] / 8)
        return place(least, free) == ("GPU" if free.gpus else "host")

    smaller = [e for e in catalogue.entries() if e.use == use and e.parameters < found.shape.parameters and fits(e)]
    best = max(smaller, key=lambda entry: entry.parameters, default=None)
    return f"%llama start {best.id}{name}" if best else None

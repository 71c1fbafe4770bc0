"""What a server is going to take of each device's memory: the plan for its settings, and what follows from it.

Where layers go on GPUs stays llama.cpp's own choice (its ``--fit`` measures, and what we compute for CUDA was never
verified) unless the settings say it: the plan follows the same rule. It tells beforehand what will not fit, lowers a
context that nobody asked for, and afterwards stands beside what the engine took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..models.demand import MARGIN_BYTES, Demand
from ..models.plan import Device, Plan, Share, largest_context, placed, plan
from ..models.shape import ModelShape
from ..units import size
from ..values import EngineBuffer, Owner
from .settings import DEFAULT_CONTEXT, ServerSettings

#: A context that nobody asked for is lowered to this at least to keep a model whole on the GPUs; below it layers move
#: to the host. llama.cpp's --fit-ctx stops at 4,096 for the same reason; what is asked in a notebook is shorter.
LEAST_CONTEXT = 2048
_OWNERS: tuple[Owner, ...] = ("weights", "kv", "compute", "output", "context")


@dataclass(frozen=True, slots=True)
class Forecast:
    """The plan of one server that is to be started with ``settings``.

    ``usual`` is the plan with the usual context where that was lowered because it would not fit, else ``None``.
    """

    settings: ServerSettings
    shape: ModelShape
    gpus: tuple[Device, ...]
    host: Device
    plan: Plan
    usual: Plan | None = None

    @property
    def buffers(self) -> tuple[EngineBuffer, ...]:
        """What the engine should announce, by the names that it uses for devices; and the contexts of GPUs."""
        return tuple(
            EngineBuffer(share.device.name, owner, taken)
            for share in self.plan.shares
            for owner in _OWNERS
            if (taken := getattr(share, owner))
        )

    @property
    def fits(self) -> bool:
        """Whether it goes into what is free; that something stays free for others is not asked for here."""
        return self.spare >= 0

    @property
    def lowered(self) -> str | None:
        """In one line that the context is smaller than usual, and why; ``None`` when it is not."""
        if self.usual is None:
            return None
        demand, usual = self.plan.demand, self.usual.demand
        where = " whole on the GPU" if self.gpus and self.plan.gpu_layers > len(self.shape.layers) else ""
        return (
            f"context: {demand.ctx:,} tokens, the most that fits{where} with {size(self.spare)} to spare "
            f"({usual.ctx:,}: {told(self.usual)}); --ctx {usual.ctx} insists"
        )

    @property
    def spare(self) -> int:
        """Bytes that stay free on the device where it is tightest; negative: so much is missing."""
        return min(share.device.free_bytes - share.used for share in self.plan.shares)

    def whole(self) -> Plan:
        """The plan with every layer where it is fast, whether it fits or not."""
        return placed(self.shape, self.gpus, self.host, self.plan.demand, len(self.shape.layers) + 1)


def forecast(
    settings: ServerSettings, shape: ModelShape, gpus: Sequence[Device], host: Device, *, lower: bool = False
) -> Forecast:
    """The plan of resolved ``settings``; with ``lower`` (nobody asked for a context) the largest that fits at most.

    Raises CommandError when the model's heads do not fit the type of the KV cache.
    """
    found = Forecast(settings, shape, tuple(gpus), host, _plan(settings, shape, gpus, host))
    context = _lower(found) if lower else None
    if context is None:
        return found
    smaller = replace(settings, ctx=context)
    usual = found.plan if missing(found.plan) else found.whole()
    return replace(found, settings=smaller, plan=_plan(smaller, shape, gpus, host), usual=usual)


def demand_of(settings: ServerSettings) -> Demand:
    """What resolved settings ask of memory, with the engine's defaults where they leave it a choice."""
    ubatch = settings.ubatch or 512
    margin = settings.fit_margin_mib
    experts = {None: 0, "all": 1 << 16}.get(settings.cpu_moe)
    return Demand(
        ctx=settings.ctx or DEFAULT_CONTEXT,
        slots=settings.slots,
        kv_type=settings.cache_type_k,
        value_type=settings.cache_type_v,
        flash_attention=settings.flash_attention != "off",
        batch=settings.batch or max(ubatch, 2048),
        ubatch=ubatch,
        unified=settings.kv_unified,
        split="none" if settings.split_mode == "none" else "layer",
        embeddings=settings.embeddings or settings.reranking,
        whole_windows=settings.swa_full,
        mapped=settings.load_mode not in ("none", "dio"),
        host_cache=not settings.kv_offload,
        host_experts=int(settings.cpu_moe or 0) if experts is None else experts,
        tensor_split=settings.tensor_split,
        margin=MARGIN_BYTES if margin is None else margin << 20,
    )


def uncounted(settings: ServerSettings) -> tuple[str, ...]:
    """What these settings add to memory, or move there, that the plan does not count."""
    known = {
        "a draft model": settings.draft_model,
        "a projector": settings.mmproj,
        "adapters": settings.lora,
        "workers of the RPC backend": settings.rpc,
        f"split mode {settings.split_mode}": settings.split_mode in ("row", "tensor"),
    }
    return tuple(name for name, there in known.items() if there)


def missing(found: Plan) -> Share | None:
    """The device that is short of most memory; ``None`` where all of it goes into what is free."""
    fullest = max(found.shares, key=lambda share: share.used - share.device.free_bytes)
    return fullest if fullest.used > fullest.device.free_bytes else None


def told(found: Plan) -> str:
    """``the model needs 9.1 GiB, 4.2 GiB are free``; of several devices, on the one that is short of most."""
    used = [share for share in found.shares if share.used]
    share = missing(found) or max(used, key=lambda share: share.used - share.device.free_bytes)
    where = "" if len(used) == 1 else f" on {share.device.name}"
    return f"the model needs {size(share.used)}{where}, {size(share.device.free_bytes)} are free"


def _plan(settings: ServerSettings, shape: ModelShape, gpus: Sequence[Device], host: Device) -> Plan:
    demand = demand_of(settings)
    if settings.gpu_layers is None:
        return plan(shape, gpus, host, demand)
    return placed(shape, gpus, host, demand, settings.gpu_layers)


def _lower(found: Forecast) -> int | None:
    """The context per slot to start with instead; ``None`` where the usual one fits, or no other would."""
    layers, shape, usual = found.settings.gpu_layers, found.shape, found.plan.demand
    choice = bool(found.gpus) and layers is None  # whole on the GPUs, or a part on the host
    if found.plan.fits and (not choice or found.plan.gpu_layers > len(shape.layers)):
        return None
    context = largest_context(shape, found.gpus, found.host, usual, layers)
    if choice and (context or 0) < min(LEAST_CONTEXT, usual.ctx):
        if found.plan.fits:
            return None
        context = largest_context(shape, found.gpus, found.host, usual, whole=False)
    return context if context is not None and context < usual.ctx else None

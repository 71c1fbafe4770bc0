"""What a server is going to take of each device's memory, by the plan, from its settings and what is free.

Where layers go on GPUs stays llama.cpp's own choice (its ``--fit`` measures what we compute) unless the settings say
it; the forecast tells beforehand what will not fit, narrows a context that nobody asked for, and afterwards stands
beside what the engine took. Settings that it cannot count are named in :attr:`Forecast.beside`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._files import size
from ..gpu.nvml import Nvml
from ..models import catalogue
from ..models.demand import Demand
from ..models.fit import Free, place
from ..models.header import GGUFHeader
from ..models.host import host_device
from ..models.plan import QUANTS, Device, Plan, largest_context, largest_quant, placed, plan
from ..models.quants import BITS
from ..models.shape import ModelShape, shape_of
from ..values import EngineBuffer, ModelRef, Owner, Runtime
from .runtime import devices
from .settings import ServerSettings

#: A context that nobody asked for is not made smaller than this to keep a model on the GPUs (llama.cpp's --fit-ctx
#: stops at 4,096 for the same reason; a notebook's questions are shorter).
_LEAST_CONTEXT = 2048
_DEVICE = re.compile(r"(\S+): .*\((\d+) MiB, (\d+) MiB free\)")
_OWNERS: tuple[Owner, ...] = ("weights", "kv", "compute", "output", "context")


@dataclass(frozen=True, slots=True)
class Forecast:
    """The plan of one server that is to be started with ``settings``.

    ``usual`` is the context that it would have had if that had fitted and nobody asked for another; ``None`` where it
    has what was wanted. ``beside`` names what comes on top, uncounted.
    """

    settings: ServerSettings
    model: ModelRef
    plan: Plan
    shape: ModelShape
    gpus: tuple[Device, ...]
    host: Device
    usual: int | None = None
    beside: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        settings: ServerSettings,
        model: ModelRef,
        header: GGUFHeader,
        runtime: Runtime,
        *,
        fixed: bool,
        ending: Iterable[EngineBuffer] = (),
    ) -> Forecast:
        """The forecast of resolved ``settings``; ``fixed``: their context was asked for.

        ``ending`` are the buffers of a server that is stopped first.
        """
        back: dict[str, int] = {}
        for buffer in ending:
            back[buffer.device] = back.get(buffer.device, 0) + buffer.bytes
        host = host_device()
        host = replace(host, free_bytes=host.free_bytes + back.get("CPU", 0))
        gpus = [replace(gpu, free_bytes=gpu.free_bytes + back.get(gpu.name, 0)) for gpu in engine_gpus(runtime)]
        if settings.devices:
            gpus = [gpu for gpu in gpus if gpu.name in settings.devices]
        shape, demand = shape_of(header), demand_of(settings)

        def planned(wanted: Demand) -> Plan:
            if settings.gpu_layers is None:
                return plan(shape, gpus, host, wanted)
            return placed(shape, gpus, host, wanted, settings.gpu_layers)

        found = cls(settings, model, planned(demand), shape, tuple(gpus), host, beside=uncounted(settings))
        if fixed or (context := found.narrower()) is None:
            return found
        smaller = replace(settings, ctx=context)
        return replace(found, settings=smaller, plan=planned(demand_of(smaller)), usual=demand.ctx)

    @property
    def buffers(self) -> tuple[EngineBuffer, ...]:
        """What the engine should announce, by the names that it uses for devices."""
        return tuple(
            EngineBuffer("CPU" if share.device.kind == "host" else share.device.name, owner, taken)
            for share in self.plan.shares
            for owner in _OWNERS
            if (taken := getattr(share, owner))
        )

    @property
    def fits(self) -> bool:
        """Whether all of it goes into what is free; a margin for others is not asked for here."""
        return all(share.used <= share.device.free_bytes for share in self.plan.shares)

    def narrower(self) -> int | None:
        """A context per slot with which all of it fits where it is fast, margins kept; ``None`` where this one does."""
        if self.plan.fits and (not self.gpus or self.plan.gpu_layers > len(self.shape.layers)):
            return None
        found = largest_context(self.shape, self.gpus, self.host, self.plan.demand)
        enough = min(_LEAST_CONTEXT, self.plan.demand.ctx)
        return found if found is not None and enough <= found < self.plan.demand.ctx else None

    def needs(self) -> str:
        """``the model needs 9.1 GiB, 4.2 GiB are free``."""
        free = sum(gpu.free_bytes for gpu in self.gpus) + self.host.free_bytes
        said = f"the model needs {size(self.plan.total)}, {size(free)} are free"
        return f"{said}: another process took it, or this one is limited" if self.fits else said

    def warnings(self) -> list[tuple[str, str]]:
        """Cause and remedy of what the user would want to know before the engine loads."""
        if self.usual is not None:
            said = f"the context is {self.plan.demand.ctx:,} tokens: {self.usual:,} do not fit into free memory"
            return [(said, f"%llama start {self._name()} --ctx {self.usual}   (to try it all the same)")]
        return [] if self.fits else [(f"{self.needs()}: it may fail, or be slow", self.remedy())]

    def remedy(self) -> str:
        """What to type instead: a smaller context, else a smaller form of the model, else a smaller model."""
        demand = self.plan.demand
        context = largest_context(self.shape, self.gpus, self.host, demand)
        if self.fits:  # by the plan it should have gone: something else took the memory meanwhile
            context = demand.ctx // 2
        if context is not None and 256 <= context < demand.ctx:
            return f"%llama start {self._name()} --ctx {context}"
        best = largest_quant(self.shape, self.gpus, self.host, demand)
        entry = catalogue.entry_of(self.model.id)
        if best is not None and entry is not None:
            order = [quant for quant, _ in QUANTS]
            smaller = [quant for quant in order[order.index(best[0]) :] if quant in entry.quants]
            if smaller:
                return f"%llama start {entry.id}:{smaller[0]} --ctx {demand.ctx}"
        return self._other() or "%llama models list"

    def _name(self) -> str:
        return shlex.quote(self.model.id if catalogue.entry_of(self.model.id) else self.model.path)

    def _other(self) -> str | None:
        """The largest known model that fits whole, in the smallest form that it is offered in."""
        free = Free(tuple(gpu.free_bytes for gpu in self.gpus), self.host.free_bytes)
        own = self.model.id.partition(":")[0]
        sizes = [
            (round(entry.parameters * BITS[entry.quants[-1]] / 8), f"{entry.id}:{entry.quants[-1]}")
            for entry in catalogue.entries()
            if entry.id != own
        ]
        fitting = [one for one in sizes if place(one[0], free) is not None]
        return f"%llama start {max(fitting)[1]}" if fitting else None


def demand_of(settings: ServerSettings) -> Demand:
    """What resolved settings ask of memory, with the engine's defaults where they leave it a choice."""
    ubatch = settings.ubatch or 512
    return Demand(
        ctx=settings.ctx or settings.context,
        slots=settings.slots,
        kv_type=settings.cache_type_k,
        value_type=settings.cache_type_v,
        flash_attention=settings.flash_attention != "off",
        batch=settings.batch or max(ubatch, 2048),
        ubatch=ubatch,
        unified=settings.kv_unified and settings.slots > 1,
        split="none" if settings.split_mode == "none" else "layer",
        embeddings=settings.embeddings or settings.reranking,
    )


def uncounted(settings: ServerSettings) -> tuple[str, ...]:
    """What these settings add to or move in memory that the plan does not count."""
    known = {
        "a draft model": settings.draft_model,
        "a projector": settings.mmproj,
        "adapters": settings.lora,
        "experts on the host": settings.cpu_moe,
        "a KV cache on the host": not settings.kv_offload,
        f"split mode {settings.split_mode}": settings.split_mode in ("row", "tensor"),
        "a tensor split of your own": settings.tensor_split,
    }
    return tuple(name for name, there in known.items() if there)


def engine_gpus(runtime: Runtime) -> list[Device]:
    """The GPUs that an engine sees, by its own names; asked only where a driver is (a CUDA build takes a second)."""
    nvml = Nvml()
    try:
        if not nvml.gpus:
            return []
    finally:
        nvml.close()
    found = [match for line in devices(runtime) if (match := _DEVICE.match(line))]
    return [Device(name, int(free) << 20, "gpu", int(total) << 20) for name, total, free in (m.groups() for m in found)]

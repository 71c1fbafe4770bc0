"""Who owns a device's memory: pure attribution of measured bytes, for the host and for GPUs.

The owners of a device always sum to its total, so a stacked picture never leaks. What an engine's process holds is
measured; how it splits into weights, KV cache and compute buffers is what the engine announced, so those parts are
cut to what was measured: weights first, because they are mapped from the file and may be only partly resident.
Every part that is not a plain reading says so in ``source``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..values import EngineBuffer, Owner, OwnerBytes

# llama.cpp's device names; *_Host is pinned memory of the host, *_Split and *_Mapped belong to their device.
_GPU = re.compile(r"(?:CUDA|ROCm|HIP|MUSA|Vulkan|SYCL|CANN|MTL|Metal)_?(\d*)(?!.*_Host)(?:_\w+)?$")
_PARTS: tuple[Owner, ...] = ("weights", "kv", "compute", "output")
# In what order parts give way when the process holds less than the engine announced.
_YIELD: tuple[Owner, ...] = ("weights", "output", "compute", "kv")


@dataclass(frozen=True, slots=True)
class Engine:
    """A server's process as attribution sees it; ``gpus`` are device ids in the order in which the engine counts."""

    name: str
    pid: int | None
    buffers: tuple[EngineBuffer, ...]
    kv_fill: float | None = None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resident:
    """Memory of a process on the host: ``anon_bytes`` is its own, ``file_bytes`` is page cache that it maps.

    Of pages that several processes map, each counts its share. ``weights_bytes`` are those of ``file_bytes`` that are a
    model's file, of which ``weights_mapped`` bytes are mapped, in memory or not; ``None`` where that cannot be read.
    """

    pid: int
    anon_bytes: int
    file_bytes: int
    weights_bytes: int | None = None
    weights_mapped: int = 0

    @property
    def bytes(self) -> int:
        """Resident set, shared pages by share."""
        return self.anon_bytes + self.file_bytes


@dataclass(frozen=True, slots=True)
class ProcessBytes:
    """Memory of a process on a GPU; ``bytes`` is ``None`` where the driver does not tell."""

    pid: int
    bytes: int | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on a GPU that a library of this kernel says it holds."""

    library: str
    bytes: int


def gpu_index(buffer_device: str) -> int | None:
    """The engine's number of the GPU that a buffer lies on, ``None`` for memory of the host."""
    match = _GPU.match(buffer_device)
    return int(match[1] or 0) if match else None


def visible(devices: Sequence[str], cuda_visible: str | None) -> tuple[str, ...]:
    """Device ids in the engine's order, from NVML's order and the engine's ``CUDA_VISIBLE_DEVICES``.

    As CUDA reads it: numbers or (prefixes of) ids, and the list ends at the first entry that names nothing.
    """
    if cuda_visible is None:
        return tuple(devices)
    order: list[str] = []
    for entry in (e.strip() for e in cuda_visible.split(",")):
        if entry.isdigit() and int(entry) < len(devices):
            order.append(devices[int(entry)])
        elif entry.startswith(("GPU-", "MIG-")) and (found := [d for d in devices if d.startswith(entry)]):
            order.append(found[0])
        else:
            break
    return tuple(order)


def announced(engine: Engine, device: str) -> dict[Owner, int]:
    """Bytes per owner that the engine announced for a device (``host`` or an id among ``engine.gpus``)."""
    parts: dict[Owner, int] = {}
    for buffer in engine.buffers:
        index = gpu_index(buffer.device)
        here = "host" if index is None else engine.gpus[index] if index < len(engine.gpus) else None
        if here == device and buffer.bytes > 0:
            parts[buffer.owner] = parts.get(buffer.owner, 0) + buffer.bytes
    return parts


def split(
    engine: Engine, device: str, measured: int, *, estimate: bool = False, elsewhere: int = 0
) -> list[OwnerBytes]:
    """An engine's ``measured`` bytes on a device by owner; the entries sum to exactly ``measured``.

    What the engine did not announce is its ``context`` (driver context, code, heap), a difference and so an estimate.
    ``elsewhere``: so many of the announced weights are not part of ``measured``.
    """
    parts = announced(engine, device)
    if elsewhere and "weights" in parts:
        parts["weights"] = max(0, parts["weights"] - elsewhere)
    excess = sum(parts.values()) - measured
    cut: set[Owner] = set()
    for owner in (*_YIELD, *(o for o in parts if o not in _YIELD)):
        if excess > 0 and parts.get(owner):
            less = min(excess, parts[owner])
            parts[owner] -= less
            excess -= less
            cut.add(owner)
    entries = [
        OwnerBytes(
            device,
            owner,
            size,
            filled_bytes=_filled(engine, size) if owner == "kv" else None,
            pid=engine.pid,
            process=engine.name,
            source="estimate" if estimate or owner in cut else "engine",
        )
        for owner, size in sorted(parts.items(), key=lambda p: _rank(p[0]))
        if size > 0
    ]
    rest = measured - sum(e.bytes for e in entries)
    if rest > 0:
        entries.append(OwnerBytes(device, "context", rest, pid=engine.pid, process=engine.name, source="estimate"))
    return entries


def _rank(owner: Owner) -> int:
    return _PARTS.index(owner) if owner in _PARTS else len(_PARTS)


def _filled(engine: Engine, size: int) -> int | None:
    return None if engine.kv_fill is None else round(size * min(1.0, max(0.0, engine.kv_fill)))


def host_owners(
    total: int,
    available: int,
    engines: Iterable[tuple[Engine, Resident]],
    kernel: Resident | None,
    others: Iterable[ProcessBytes] = (),
) -> tuple[OwnerBytes, ...]:
    """Owners of the host's memory, summing to ``total``.

    ``engine`` and ``kernel`` = resident sets (own + mapped pages); ``other`` = max(0, (total − available) − own pages
    of engines and kernel), of which ``others`` name a part; ``free`` = the rest, and where pages that several map were
    counted twice, ``other`` and then the largest parts give way. Used memory is total − free. Weights that are pages
    of the model's file are ``measured`` and stand apart from the engine's own: the system may drop them.
    """
    entries: list[OwnerBytes] = []
    own = 0
    for engine, resident in engines:
        entries += _on_host(engine, resident)
        own += resident.anon_bytes
    if kernel is not None:
        entries.append(OwnerBytes("host", "kernel", kernel.bytes, pid=kernel.pid))
        own += kernel.anon_bytes
    rest = max(0, (total - available) - own)
    for one in others:
        if one.bytes and one.bytes <= rest:
            entries.append(OwnerBytes("host", "other", one.bytes, pid=one.pid, process=one.name))
            rest -= one.bytes
    if rest:
        entries.append(OwnerBytes("host", "other", rest))
    return closed("host", total, entries)


def _on_host(engine: Engine, resident: Resident) -> list[OwnerBytes]:
    mapped = resident.weights_bytes
    if not mapped:
        return split(engine, "host", resident.bytes)
    pages = OwnerBytes("host", "weights", mapped, pid=engine.pid, process=engine.name)
    return [pages, *split(engine, "host", resident.bytes - mapped, elsewhere=resident.weights_mapped)]


def gpu_owners(
    device: str,
    *,
    used: int,
    total: int,
    free: int,
    processes: Sequence[ProcessBytes] | None,
    engines: Sequence[Engine],
    kernel_pid: int,
    trusted: bool,
    before: int | None = None,
    held: Sequence[Held] = (),
) -> tuple[OwnerBytes, ...]:
    """Owners of a GPU's memory, summing to ``total``.

    ``trusted``: every listed pid is a process that we see, so pids are of our namespace and a match means something
    (the caller compared the engine's start time). Without a trusted match an engine gets, as an estimate, what the
    only process on the device holds, else ``used − held − before`` (``before``: the same just before it started), else
    what it announced. ``held`` is what this kernel's libraries said when its last cell ended: estimates, a part of
    what the driver says of the kernel or, where it says nothing, all that is known. ``unknown`` = used memory that
    nobody was found for, a kernel's CUDA context among it, and what the driver reserves (total − used − free).
    """
    here = [e for e in engines if announced(e, device)]
    by_pid = {p.pid: p for p in processes or ()} if trusted else {}
    entries: list[OwnerBytes] = []
    unmatched: list[Engine] = []
    for engine in engines:
        found = by_pid.pop(engine.pid, None) if engine.pid is not None else None
        if found is not None and found.bytes is not None:
            entries += split(engine, device, found.bytes)
        elif engine in here:
            unmatched.append(engine)
    mine = by_pid.pop(kernel_pid, None)
    entries += [OwnerBytes(device, "other", p.bytes, pid=p.pid, process=p.name) for p in by_pid.values() if p.bytes]
    rest = max(0, used - sum(e.bytes for e in entries))
    entries += (kernel := _of_kernel(device, kernel_pid, mine, held, rest))
    rest = max(0, rest - sum(e.bytes for e in kernel))
    only = processes[0].bytes if not trusted and processes is not None and len(processes) == 1 and not held else None
    for engine in unmatched:
        size = sum(announced(engine, device).values())
        if len(unmatched) == 1 and only:
            size = only
        elif len(unmatched) == 1 and before is not None:
            size = max(0, used - sum(h.bytes for h in held) - before)
        size = min(size, rest)
        entries += split(engine, device, size, estimate=True)
        rest -= size
    unknown = rest + max(0, total - used - free)
    if unknown:
        entries.append(OwnerBytes(device, "unknown", unknown))
    return closed(device, total, entries)


def _of_kernel(device: str, pid: int, listed: ProcessBytes | None, held: Sequence[Held], room: int) -> list[OwnerBytes]:
    """What this kernel holds: by library as far as they tell, then the rest of what the driver lists, if it does."""
    measured = listed.bytes if listed is not None else None
    left = room if measured is None else measured
    entries = []
    for one in sorted(held, key=lambda h: -h.bytes):
        if size := min(one.bytes, left):
            entries.append(OwnerBytes(device, "kernel", size, pid=pid, process=one.library, source="estimate"))
            left -= size
    if listed is not None and measured is not None and left:
        entries.append(OwnerBytes(device, "kernel", left, pid=pid, process=listed.name))
    return entries


def closed(device: str, total: int, entries: Sequence[OwnerBytes]) -> tuple[OwnerBytes, ...]:
    """The entries and ``free``, summing to ``total``; an excess is taken from unknown, other and then the largest."""
    excess = sum(e.bytes for e in entries) - total
    kept = list(entries)
    for index in sorted(
        range(len(kept)), key=lambda i: (kept[i].owner != "unknown", kept[i].owner != "other", -kept[i].bytes)
    ):
        if excess <= 0:
            break
        less = min(excess, kept[index].bytes)
        entry = kept[index]
        size = entry.bytes - less
        filled = None if entry.filled_bytes is None else min(entry.filled_bytes, size)
        kept[index] = replace(entry, bytes=size, filled_bytes=filled, source="estimate")
        excess -= less
    free = total - sum(e.bytes for e in kept)
    return (*(e for e in kept if e.bytes > 0), OwnerBytes(device, "free", free))

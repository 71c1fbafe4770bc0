"""What the two addresses say: the rings of this user, matched with the server's kernels, as JSON-safe dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from ..clock import now_ns
from ..environment import process_start
from ..errors import LlamaError
from ..sampling.rings import KernelRing, readable
from ..values import DeviceSeries, OwnerBytes, ServerSeries


class Kernel(NamedTuple):
    """A kernel of the server: ``name`` and ``path`` of its session, ``pid`` of the process that was launched."""

    id: str
    name: str | None
    path: str | None
    pid: int | None


def kernels(known: Sequence[Kernel]) -> list[dict[str, Any]]:
    """An entry for each of the server's kernels, then one for each other ring."""
    rings, entries, told = readable(), [], set()
    for kernel in known:
        ring = next((one for one in rings if one.is_of(kernel.id, kernel.pid)), None)
        entry = _held(ring) if ring else _unsampled(kernel.pid, rings)
        entries.append(entry | {"id": kernel.id, "name": kernel.name, "path": kernel.path or entry["path"]})
        told.add(entry["ring"])
    return entries + [_held(ring) for ring in rings if ring.name not in told]


def samples(known: Sequence[Kernel], wanted: str, window_s: float, points: int) -> dict[str, Any]:
    """Columns of the ``window_s`` before the newest sample; ``wanted`` is a kernel's id or a ring's name.

    Raises LlamaError when there is no such ring, or it cannot be read.
    """
    rings = readable()
    own = [ring for kernel in known if kernel.id == wanted for ring in rings if ring.is_of(kernel.id, kernel.pid)]
    ring = next(iter(own + [one for one in rings if wanted in (one.kernel_id, one.name)]), None)
    if ring is None:
        is_known = any(kernel.id == wanted for kernel in known)
        what = f"kernel {wanted} has no samples" if is_known else f"there is no kernel and no ring {wanted[:80]!r}"
        raise LlamaError(what, hint="%llama start" if is_known else "llamatelemetry/kernels")
    if ring.error is not None:
        raise ring.error
    window = ring.reader.window(ring.newest_ns - int(window_s * 1e9), ring.newest_ns, points)
    devices = [_columns(one) | {"name": ring.names.get(one.device)} for one in window.devices]
    now = ring.reader.now_ns() if ring.alive else now_ns()  # by the clock of the samples, wherever that can still run
    return _about(ring) | {"now_ns": now, "devices": devices, "servers": [_columns(one) for one in window.servers]}


def _about(ring: KernelRing) -> dict[str, Any]:
    writer = {"pid": ring.writer_pid, "alive": ring.writer_pid is not None, "gone_since_ns": ring.gone_since_ns}
    told = {"id": ring.kernel_id, "name": None, "path": ring.path, "pid": ring.pid, "alive": ring.alive}
    return told | {"ring": ring.name, "writer": writer, "error": ring.error and str(ring.error)}


def _held(ring: KernelRing) -> dict[str, Any]:
    servers = [{"server": one.server, "state": one.state[-1]} for one in ring.latest.servers]
    return _about(ring) | {"memory": list(_memory(ring)), "servers": servers}


def _unsampled(pid: int | None, rings: Sequence[KernelRing]) -> dict[str, Any]:
    """A kernel without a ring: what another kernel's sampler saw of its process."""
    alive = pid is not None and process_start(pid) is not None
    memory = list(_memory(rings[0], pid)) if alive and rings and rings[0].writer_pid else []
    return {"path": None, "pid": pid, "alive": alive, "ring": None, "writer": None, "memory": memory, "servers": []}


def _memory(ring: KernelRing, pid: int | None = None) -> Iterator[dict[str, Any]]:
    """Each device's bytes by owner when last read; with ``pid`` that process's alone, as ``kernel``."""
    for one in ring.latest.devices:
        owners: dict[str, int] = {}
        for part in one.owners[-1]:
            if pid in (None, part.pid):
                owner = part.owner if pid is None else "kernel"
                owners[owner] = owners.get(owner, 0) + part.bytes
        if owners or pid is None:
            sizes = {"used_bytes": one.used_bytes[-1], "total_bytes": one.total_bytes[-1]}
            yield {"device": one.device, "name": ring.names.get(one.device), **sizes, "owners": owners}


def _columns(series: DeviceSeries | ServerSeries) -> dict[str, Any]:
    columns = ((one.name, getattr(series, one.name)) for one in fields(series))
    return {k: v if isinstance(v, str) else _owners(v) if k == "owners" else list(v) for k, v in columns}


def _owners(rows: Sequence[tuple[OwnerBytes, ...]]) -> list[dict[str, Any]]:
    """One column of bytes for each owner and process, ``null`` where it held nothing or nothing was read."""
    found: dict[tuple[str, int | None, str | None], dict[str, Any]] = {}
    for index, row in enumerate(rows):
        for part in row:
            key = (part.owner, part.pid, part.process)
            if (column := found.get(key)) is None:
                empty: dict[str, Any] = {"bytes": [None] * len(rows), "filled_bytes": [None] * len(rows)}
                column = found[key] = {"owner": part.owner, "pid": part.pid, "process": part.process} | empty
            column["source"] = part.source
            column["bytes"][index] = (column["bytes"][index] or 0) + part.bytes
            column["filled_bytes"][index] = part.filled_bytes
    return list(found.values())

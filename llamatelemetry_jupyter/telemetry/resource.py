"""What spans and metrics are of: the kernel that sends them, the GPUs it has, the servers it runs.

OpenTelemetry's resource is fixed when its provider is made, so it holds what does not change and costs nothing to find
out: :func:`attributes`. A server comes and goes, and asking a driver takes 50 ms: :func:`server` goes on the span of a
start, and with :func:`gpus` into the table ``described`` of the session's file.

No host name, no user, no folder and no environment: they are personal or hold secrets, and spans may be exported to a
hub. ``OTEL_RESOURCE_ATTRIBUTES`` adds what a user wants to add, and has the last word.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import PurePath
from urllib.parse import unquote

from .. import environment
from ..values import JSON, DeviceInfo, ServerHandle
from . import semconv

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
_MAX_WORD = 120


def attributes() -> dict[str, str | int]:
    """Resource attributes of this kernel; ``service.name`` is the user's (``OTEL_*``) or the notebook's name.

    ``service.instance.id`` is the kernel's process id with its start time, the stem of its files.
    """
    found: dict[str, str | int] = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or _notebook() or "notebook",
        "service.instance.id": environment.kernel_key(),
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
        "host.arch": platform.machine(),
        "os.type": sys.platform,
    }
    if (created := _created(os.getpid())) is not None:
        found["process.creation.time"] = created
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    theirs = {unquote(one.partition("=")[0]).strip() for one in given.split(",")}
    return {name: value for name, value in found.items() if name not in theirs}


def gpus(found: Sequence[DeviceInfo], driver: str | None, cuda: str | None) -> dict[str, JSON]:
    """The GPUs of this machine: ids and names in one order, NVIDIA's driver, the newest CUDA that it runs."""
    told: dict[str, JSON] = {
        semconv.GPU_ID: [one.device for one in found],
        semconv.GPU_NAME: [one.name for one in found],
        semconv.GPU_DRIVER: driver,
        semconv.GPU_CUDA: cuda,
    }
    return {name: value for name, value in told.items() if value} if found else {}


def server(handle: ServerHandle, command: Sequence[str] | None) -> dict[str, JSON]:
    """A server: model with hash, quantisation and size, engine, memory for context, arguments without secrets.

    The hash is the catalogue's; of a file of the user's own it is left out, because reading the whole file takes long.
    """
    model = handle.model
    told: dict[str, JSON] = {
        semconv.SERVER_NAME: handle.name,
        semconv.ENGINE: handle.engine or handle.backend,
        semconv.SLOTS: handle.slots,
        semconv.CTX: handle.ctx_per_slot,
        semconv.SETTINGS_HASH: handle.settings_hash,
        semconv.ARGV: list(argv(command)) if command is not None else None,
    }
    if model is not None:
        told |= {
            semconv.REQUEST_MODEL: model.id,
            semconv.MODEL_SHA256: model.sha256,
            semconv.MODEL_ARCHITECTURE: model.architecture,
            semconv.MODEL_QUANT: model.quant,
            semconv.MODEL_FILE_BYTES: model.file_bytes,
        }
    return {name: value for name, value in told.items() if value is not None}


def argv(command: Sequence[str]) -> list[str]:
    """Arguments as they may be told: of a path its last part, of a secret or a long text nothing."""
    told: list[str] = []
    flag = ""
    for word in command:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            flag = name
            told.append(f"{name}={_told(name, value)}" if equals else word)
        else:
            told.append(_told(flag, word))
            flag = ""
    return told


def _told(flag: str, value: str) -> str:
    if _SECRET.search(flag):
        return "***"
    if len(value) > _MAX_WORD or "\n" in value:  # a template or a schema of the user's own
        return "…"
    value = value.rpartition("@")[2]  # a name and password before an address
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if "/" in value or "\\" in value else value


def _notebook() -> str | None:
    # Set by Jupyter Server to the notebook's path; only its name is told.
    path = os.environ.get("JPY_SESSION_NAME")
    return PurePath(path).stem if path else None


@cache
def _created(pid: int) -> str | None:
    """When a process started, in UTC (RFC 3339); computed once, because the wall clock moves."""
    start = environment.process_start(pid)
    if start is None:
        return None
    if hasattr(time, "CLOCK_BOOTTIME"):  # ticks since boot
        start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(start, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")

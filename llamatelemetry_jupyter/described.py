"""Writes into the session's file what its kernel and its servers are (:mod:`.telemetry.resource`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import environment
from .values import JSON

if TYPE_CHECKING:
    from .server.process import ServerManager
    from .telemetry.store import SpanStore


def kernel(spans: SpanStore) -> None:
    """Describe this kernel and its GPUs; with a driver that takes about 50 ms."""
    from .gpu.nvml import Nvml
    from .telemetry import resource

    nvml = Nvml()
    try:
        gpus = resource.gpus(nvml.infos(), nvml.driver, nvml.cuda)
    finally:
        nvml.close()
    spans.describe("kernel", environment.kernel_key(), resource.attributes() | gpus)


def server(spans: SpanStore, manager: ServerManager) -> Mapping[str, JSON]:
    """Describe the running server of ``manager``; returns what was told, nothing when none runs."""
    from .telemetry import resource

    if (handle := manager.handle) is None:
        return {}
    told = resource.server(handle, manager.command)
    spans.describe("server", manager.name, told)
    return told

"""The Jupyter Server extension: what the samplers' rings hold, over HTTP, also of kernels that are busy or dead."""

from __future__ import annotations

from typing import Any

from .. import __version__ as __version__  # what `jupyter server extension list` shows


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    from .handlers import KernelsHandler, SamplesHandler

    base = serverapp.base_url.rstrip("/") + "/llamatelemetry"
    serverapp.web_app.add_handlers(".*$", [(f"{base}/kernels", KernelsHandler), (f"{base}/samples", SamplesHandler)])

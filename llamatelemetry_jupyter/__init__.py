"""llamatelemetry for Jupyter: run GGUF models in a notebook and see what model and memory are doing.

``%load_ext llamatelemetry_jupyter`` brings the ``%llama`` magics, ``import llamatelemetry_jupyter as lt`` the
same things as Python. Names are loaded when first used (PEP 562): importing this package loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

#: Name → the module that it is in; a module itself has none.
_EXPORTS = {
    "Answer": "values",
    "AsyncLlamaCppClient": "api.async_client",
    "Chat": "inference.chat",
    "Embeddings": "inference.embeddings",
    "InferenceEngine": "inference.engine",
    "LlamaCppClient": "api.client",
    "LlamaError": "errors",
    "ServerManager": "server.process",
    "ServerSettings": "server.settings",
    "Session": "session",
    "current_session": "session",
    "figures": "",
    "metrics": "recording",
    "redact": "telemetry.privacy",
    "report": "reporting",
    "span": "recording",
    "spans": "recording",
    "traced": "recording",
}
__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *_EXPORTS]  # noqa: PLE0604 (the keys are strings)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not (home := _EXPORTS[name]):
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext``: registers ``%llama`` and ``%%llama``; prints nothing, starts nothing."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext``: stops what was started and restores the shell."""
    from .magics import unload

    unload(shell)

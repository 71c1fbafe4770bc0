"""The short name of :mod:`llamatelemetry_jupyter`, so that ``%load_ext llamatelemetry`` works; nothing of its own."""

from __future__ import annotations

from typing import Any

import llamatelemetry_jupyter as _package
from llamatelemetry_jupyter import __version__, load_ipython_extension, unload_ipython_extension

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension"]  # and every name of the package


def __getattr__(name: str) -> Any:
    return getattr(_package, name)


def __dir__() -> list[str]:
    return dir(_package)

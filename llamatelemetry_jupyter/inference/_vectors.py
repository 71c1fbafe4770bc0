"""Vectors that were asked for before, in SQLite: in memory, or in a file that lasts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CommandError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROW_BYTES = 96  # key, row header and index entry, measured
_MAX_VARIABLES = 900  # SQLite before 3.32 takes 999


class VectorCache:
    """Key → float32 vector; holds about ``max_bytes``, the least recently used go first. Safe on any thread."""

    def __init__(self, path: str | Path | None, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            if path is not None:
                path = Path(path).expanduser()
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, used INTEGER, vector BLOB)")
            self._db.execute("CREATE INDEX IF NOT EXISTS by_use ON vectors (used)")
            self._clock, self._bytes = self._db.execute(
                f"SELECT COALESCE(MAX(used), 0), COALESCE(SUM(LENGTH(vector) + {_ROW_BYTES}), 0) FROM vectors"
            ).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise CommandError(
                f"the cache {path} cannot be used: {error}", hint="another file, or cache=None"
            ) from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there."""
        import numpy as np

        found: dict[bytes, NDArray[np.float32]] = {}
        wanted = list(dict.fromkeys(keys))
        with self._lock, self._db:
            self._clock += 1
            for start in range(0, len(wanted), _MAX_VARIABLES):
                part = wanted[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(part))
                rows = self._db.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part).fetchall()
                found |= {key: np.frombuffer(vector, np.float32) for key, vector in rows}
                self._db.executemany(
                    "UPDATE vectors SET used = ? WHERE key = ?", [(self._clock, key) for key, _ in rows]
                )
        return found

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep these, and forget the least recently used beyond the limit."""
        rows = [(key, vector.tobytes()) for key, vector in vectors.items()]
        with self._lock, self._db:
            self._clock += 1
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", [(key, self._clock, blob) for key, blob in rows]
            )
            self._bytes += sum(len(blob) + _ROW_BYTES for _, blob in rows)
            while self._bytes > self._max_bytes:
                old = self._db.execute("SELECT key, LENGTH(vector) FROM vectors ORDER BY used LIMIT 256").fetchall()
                if not old:
                    self._bytes = 0
                    break
                gone = []
                for key, size in old:
                    gone.append((key,))
                    self._bytes -= size + _ROW_BYTES
                    if self._bytes <= self._max_bytes:
                        break
                self._db.executemany("DELETE FROM vectors WHERE key = ?", gone)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

"""The sessions of a folder: each kernel's spans are a file of their own, kept until there are too many.

A session is named by the moment at which its kernel began and the kernel's process, so names sort by time. One that a
live kernel writes is locked by it (:mod:`._lock`), whatever machine or container that kernel is in.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import environment
from ..clock import now_ns
from ..errors import CommandError
from ..values import JSON
from . import semconv
from ._lock import Lock
from ._reading import SpanReader
from .latency import rank
from .recorded import RecordedSpans
from .where import Where

_STARTED = datetime.fromtimestamp(now_ns() / 1e9).astimezone()
_SUFFIX = ".sqlite"
_SIDES = ("-wal", "-shm", "-journal")
#: Of all sessions together; Kaggle keeps what its working folder holds with the notebook.
MAX_BYTES, MAX_BYTES_KAGGLE = 1_000_000_000, 200_000_000
MAX_AGE_S = 30 * 86_400
_SETTINGS = 1_000  # newest calls whose settings are looked at


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session at a glance; times are Unix nanoseconds of its first span's start and its last one's end."""

    id: str
    path: Path
    running: bool
    size_bytes: int
    start_ns: int | None
    end_ns: int | None
    totals: Mapping[str, int]
    models: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What a session's calls did, to be compared with another's; ``None`` is not available.

    Rates and times are medians over calls. ``energy_j`` is the sum over calls that have one, of the whole GPUs;
    ``energy_per_token_j`` divides that by the output tokens of the same calls. ``peak_bytes``: the most of any span.
    """

    id: str
    models: tuple[str, ...]
    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    decode_tokens_per_s: float | None
    ttft_s: float | None
    ttft_p95_s: float | None
    duration_s: float | None
    peak_bytes: int | None
    energy_j: float | None
    energy_per_token_j: float | None
    settings: Mapping[str, str]


class Sessions:
    """The sessions in ``folder``; ``own`` is the file of the running one."""

    def __init__(self, folder: Path, own: Path | None = None) -> None:
        self.folder = folder
        self.own = own

    def list(self) -> list[SessionInfo]:
        """All of them, the newest first; milliseconds each, however many spans it has."""
        return [self._info(path) for path in sorted(self._paths(), key=_modified, reverse=True)]

    def find(self, named: str) -> Path:
        """The file of a session: by its id, the beginning of that, or ``this``.

        Raises CommandError when there is none, or several.
        """
        if named == "this" and self.own is not None:
            return self.own
        found = [path for path in self._paths() if path.stem.startswith(named)]
        exact = [path for path in found if path.stem == named]
        if len(exact or found) != 1:
            said = f"{len(found)} sessions begin with" if found else "there is no session"
            raise CommandError(f"{said} {named!r}", hint="%llama sessions")
        return (exact or found)[0]

    def open(self, named: str) -> RecordedSpans:
        """The spans of a session, to be read. Raises LlamaError when it cannot be."""
        return RecordedSpans(self.find(named))

    def _info(self, path: Path) -> SessionInfo:
        reader, problem = SpanReader(path), None
        totals: dict[str, int] = {}
        models: tuple[str, ...] = ()
        bounds: tuple[int | None, int | None] = (None, None)
        try:
            totals, bounds = reader.totals(), reader.bounds()
            called = (one.partition(" ")[2] for one in reader.names() if _is_call(one))
            models = tuple(model for model in dict.fromkeys(called) if model)
        except (OSError, ValueError, sqlite3.Error) as error:
            problem = str(error)
        running = path == self.own or Lock(path).taken
        return SessionInfo(path.stem, path, running, _size(path), *bounds, totals, models, problem)

    def _paths(self) -> Iterator[Path]:
        yield from self.folder.glob(f"*{_SUFFIX}")


def new_path(folder: Path) -> Path:
    """The file of this process's session in ``folder``; another one where a live kernel elsewhere has the same name."""
    name = f"{_STARTED:%Y%m%d-%H%M%S}-{os.getpid()}"
    paths = [folder / f"{name}{suffix}{_SUFFIX}" for suffix in ("", "-2", "-3", "-4")]
    # None is free where the folder cannot be entered: writing tells why.
    return next((path for path in paths if not Lock(path).taken), paths[0])


def prune(own: Path, max_bytes: int | None = None, max_age_s: float = MAX_AGE_S) -> list[Path]:
    """Delete whole sessions beside ``own`` that are too old, then the oldest while all together are too large.

    Never ``own``, nor one that a live kernel writes. Returns the files that are gone.
    """
    if max_bytes is None:
        max_bytes = MAX_BYTES_KAGGLE if environment.detect().host == "kaggle" else MAX_BYTES
    folder, now_s = own.parent, now_ns() / 1e9
    gone: list[Path] = []
    sizes = {path: _size(path) for path in sorted(folder.glob(f"*{_SUFFIX}"), key=_modified)}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if path != own and (total > max_bytes or now_s - _modified(path) > max_age_s) and _delete(path):
            total -= size
            gone.append(path)
    for side in (*folder.glob(f"*{_SUFFIX}-*"), *folder.glob("*.lock")):  # of a deletion that was cut off
        path = side.with_name(side.name.partition(_SUFFIX)[0].removesuffix(".lock") + _SUFFIX)
        if not path.exists():
            _delete(path)
    return gone


def _delete(path: Path) -> bool:
    """Whether it could be deleted: not while a kernel writes it."""
    lock = Lock(path)
    try:
        lock.acquire()
        for one in (path, *(Path(f"{path}{side}") for side in _SIDES), lock.path):
            one.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        lock.release()
    return True


def _modified(path: Path) -> float:
    times = [0.0]
    for one in (path, Path(f"{path}-wal")):
        with suppress(OSError):  # deleted a moment ago
            times.append(one.stat().st_mtime)
    return max(times)


def _size(path: Path) -> int:
    total = 0
    for one in (path, *(Path(f"{path}{side}") for side in _SIDES)):
        with suppress(OSError):
            total += one.stat().st_size
    return total


def run_of(spans: RecordedSpans, named: str) -> Run:
    """A session in figures."""
    columns = ("name", "status", "model", "input_tokens", "output_tokens", "decode_tokens_per_s", "ttft_s", "start_ns",
               "end_ns", "peak_bytes", "energy_j")  # fmt: skip
    every = list(spans.values(columns, Where()))
    calls = [one for one in every if _is_call(one[0])]
    measured = [(one[10], one[4] or 0) for one in calls if one[10] is not None]
    joules, tokens = sum(j for j, _ in measured), sum(t for _, t in measured)
    return Run(
        named,
        tuple(dict.fromkeys(one[2] for one in calls if one[2])),
        len(calls),
        sum(one[1] == "error" for one in calls),
        sum(one[3] or 0 for one in calls),
        sum(one[4] or 0 for one in calls),
        _median([one[5] for one in calls]),
        _median([one[6] for one in calls]),
        _median([one[6] for one in calls], 0.95),
        _median([(one[8] - one[7]) / 1e9 for one in calls]),
        max((one[9] for one in every if one[9] is not None), default=None),
        joules if measured else None,
        joules / tokens if tokens else None,
        _settings(spans),
    )


def _settings(spans: RecordedSpans) -> dict[str, str]:
    """What the server was started with last, and every value of the newest calls' options."""
    found: dict[str, str] = {}
    for start in spans.select(Where(name="server start*"), 1):
        for name, value in start.attributes.items():
            if name.startswith("llama_cpp.") and name not in (semconv.SERVER_NAME, semconv.WARNINGS):
                found[name.removeprefix("llama_cpp.")] = _said(value)
    values: dict[str, dict[str, None]] = {}
    for call in spans.select(Where(name="*"), _SETTINGS):
        if _is_call(call.name):
            for name in dict.fromkeys(semconv.REQUEST_OPTIONS.values()):
                if name in call.attributes:
                    values.setdefault(name.removeprefix("gen_ai.request."), {})[_said(call.attributes[name])] = None
    return found | {name: ", ".join(sorted(seen)) for name, seen in values.items()}


def _said(value: JSON) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_call(name: str) -> bool:
    return name.partition(" ")[0] in semconv.CALLS


def _median(values: Sequence[Any], q: float = 0.5) -> float | None:
    there = sorted(value for value in values if value is not None)
    return there[rank(len(there), q)] if there else None

"""The state file of a server: how it is found again after its kernel has gone, and how its leftovers are removed.

One file a server, mode 0600, named after the kernel that holds it: ``<pid>-<start>.<name>.server.json`` in the runtime
folder. It holds the handle (with pid, start time, address and key), the settings with their hash, and whether the
server was meant to stay. What it says is believed only after the process and its ``/props`` agreed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import environment
from .._files import write_private
from ..values import Runtime, ServerHandle
from . import probe
from .child import Child
from .settings import ServerSettings

_GRACE_S = 2.0
_FILE = re.compile(r"(\d+)-(\d+)\.")


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a server beyond its process. ``settings`` are ``None`` for a server that we did not start."""

    handle: ServerHandle
    settings: ServerSettings | None = None
    runtime: Runtime | None = None
    kept: bool = False
    path: Path | None = None

    def write(self, path: Path) -> None:
        """Write the file; readers see it whole or not at all."""
        extra = {
            "settings": asdict(self.settings) if self.settings else None,
            "runtime": asdict(self.runtime) | {"features": sorted(self.runtime.features)} if self.runtime else None,
            "kept": self.kept,
        }
        write_private(path, json.dumps(json.loads(self.handle.to_json()) | extra))

    @classmethod
    def read(cls, path: Path) -> State:
        """The state in ``path``; raises OSError, ValueError, KeyError or TypeError for a file that is none."""
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        settings, runtime = data.get("settings"), data.get("runtime")
        return cls(
            ServerHandle.from_json(text),
            ServerSettings.of(settings) if settings else None,
            Runtime(**runtime | {"argv": tuple(runtime["argv"]), "features": frozenset(runtime["features"])})
            if runtime
            else None,
            bool(data.get("kept")),
            path,
        )

    @property
    def alive(self) -> bool:
        """Whether its process still is the one that was started."""
        pid, start = self.handle.pid, self.handle.pid_start
        return pid is not None and start is not None and environment.process_start(pid) == start

    @property
    def ending(self) -> bool:
        """Whether its guard is about to end it: it was not meant to stay, and its kernel has just gone."""
        try:
            children = Path(f"/proc/{self.handle.pid}/task/{self.handle.pid}/children").read_text(encoding="ascii")
        except OSError:
            return False
        # The engine's only child is its guard; a killed one stays as a zombie, for the engine reaps nothing.
        return not self.kept and any(environment.process_start(int(child)) is not None for child in children.split())

    def verified(self) -> bool:
        """Whether the process runs, holds the port, and ``/props`` says what the state says."""
        handle = self.handle
        if not self.alive or handle.pid is None or probe.listens(handle.pid, handle.url) is False:
            return False
        try:
            status, props = probe.get(handle.url, "/props", handle.api_key)
        except OSError:
            return False
        if status != 200 or not isinstance(props, dict):
            return False
        told = (props.get("model_path"), props.get("total_slots"))
        known = (handle.model.path if handle.model else None, handle.slots)
        same_hash = self.settings is None or self.settings.hash() == handle.settings_hash
        return told == known and same_hash


def abandoned() -> list[State]:
    """Servers of this user that run while their kernel is gone: kept ones, and those whose guard was killed."""
    found = []
    for path, kernel_lives in _files():
        if kernel_lives or not path.name.endswith(".server.json"):
            continue
        state = _read(path)
        if state is not None and state.handle.owned and state.alive and _ours(state.handle.pid) and not state.ending:
            found.append(state)
    return sorted(found, key=lambda s: s.path.stat().st_mtime_ns if s.path and s.path.exists() else 0)


def end_abandoned() -> tuple[ServerHandle, ...]:
    """Stop the servers that :func:`abandoned` finds; returns those that have ended."""
    ended = []
    for state in abandoned():
        pid, start = state.handle.pid, state.handle.pid_start
        assert pid is not None
        child = Child(pid, start)
        child.end(_GRACE_S)
        if child.ended():
            ended.append(state.handle)
        child.close()
    remove_stale_files()
    return tuple(ended)


def remove_stale_files() -> None:
    """Delete what kernels that are gone left in the runtime folder: rings, state files, logs, saved slots.

    Files of a server that still runs stay, whoever holds it now.
    """
    held = []
    for path, _ in _files():
        if path.name.endswith(".server.json") and (state := _read(path)) is not None and state.alive:
            held.append(path.name.removesuffix("server.json"))
            if state.handle.log_path:
                held.append(Path(state.handle.log_path).name.removesuffix("log"))
    for path, kernel_lives in _files():
        if kernel_lives or path.name.startswith(tuple(held)):
            continue
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _files() -> Iterator[tuple[Path, bool]]:
    """Every file that belongs to a kernel, and whether that kernel still runs."""
    starts: dict[int, float | None] = {}
    for path in list(environment.runtime_dir().iterdir()):
        if (found := _FILE.match(path.name)) is None:
            continue
        pid = int(found[1])
        if pid not in starts:
            starts[pid] = environment.process_start(pid)
        start = starts[pid]
        yield path, start is not None and f"{start:.0f}" == found[2]


def _read(path: Path) -> State | None:
    try:
        return State.read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _ours(pid: int | None) -> bool:
    try:
        return pid is not None and Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        return not Path("/proc/self").exists()  # without /proc: the file is in a folder that is ours

"""Builds of llama.cpp's server: those that can be installed (``engines.json``, the lock file) and those that are.

A build that was installed lies in a folder of its own in the cache, with ``engine.json`` beside it: where it came from,
the hash of what arrived, and what was seen when it was tried. Only whole builds have that folder's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from .. import environment
from .._files import write_json
from ..errors import EngineError
from ..fetch import HttpsSource
from ..values import JSON
from .machine import Machine, version_key

Backend = Literal["cuda", "vulkan", "cpu"]
#: In the order in which installed builds are preferred.
BACKENDS: tuple[Backend, ...] = ("cuda", "vulkan", "cpu")
MANIFEST = "engine.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A build of the lock file. ``program`` is the file to run and its first arguments.

    ``gpu`` is the compute capability that its code was built for, ``7.5+`` for that and newer ones.
    """

    id: str
    backend: Backend
    version: str
    program: tuple[str, ...]
    publisher: str
    licence: str
    files: tuple[HttpsSource, ...]
    arch: str | None = None
    glibc: str | None = None
    driver: str | None = None
    gpu: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the hash of every file is known before it is downloaded."""
        return all(file.sha256 for file in self.files)

    def misfit(self, machine: Machine) -> str | None:
        """Why this build cannot run on ``machine``; ``None`` when nothing speaks against it."""
        if machine.system != "linux" or machine.arch != self.arch:
            return f"is for Linux on {self.arch}, this is {machine.system} on {machine.arch}"
        if self.glibc and (machine.glibc is None or version_key(machine.glibc) < version_key(self.glibc)):
            return f"needs glibc {self.glibc}, here is {machine.glibc or 'another C library'}"
        if self.backend == "vulkan" and not machine.vulkan:
            return "needs libvulkan.so.1, which is not here"
        return self._gpu_misfit(machine) if self.backend == "cuda" else None

    def _gpu_misfit(self, machine: Machine) -> str | None:
        if not machine.gpus:
            return "needs an NVIDIA GPU with its driver, and there is none"
        if self.driver and (machine.driver is None or version_key(machine.driver) < version_key(self.driver)):
            return f"needs driver {self.driver}, here is {machine.driver or 'an unknown one'}"
        if self.gpu and machine.capabilities:
            wanted = version_key(self.gpu)
            fits = wanted.__le__ if self.gpu.endswith("+") else wanted.__eq__
            wrong = [c for c in machine.capabilities if not fits(version_key(c))]
            if wrong:
                return f"is for compute capability {self.gpu}, here is {', '.join(wrong)}"
        return None

    def reasons(self, machine: Machine) -> str:
        """What of ``machine`` speaks for this build, as one clause."""
        said = [f"glibc {machine.glibc} ≥ {self.glibc}"] if self.glibc else []
        if self.backend == "cuda":
            said = [
                f"compute capability {' and '.join(machine.capabilities) or 'n/a'}",
                f"driver {machine.driver} ≥ {self.driver}",
                *said,
            ]
        return ", ".join([f"{machine.system} on {machine.arch}", *said])


@dataclass(frozen=True, slots=True)
class Origin:
    """A file that a build was unpacked from. ``verified``: its hash was known before it came."""

    url: str
    sha256: str
    file_bytes: int
    verified: bool


@dataclass(frozen=True, slots=True)
class Build:
    """A build in the cache. ``program`` is relative to ``folder``; ``problem`` says why it does not run here."""

    id: str
    backend: Backend
    version: str
    folder: Path
    program: tuple[str, ...]
    origins: tuple[Origin, ...]
    devices: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """What is run."""
        return (str(self.folder / self.program[0]), *self.program[1:])

    @property
    def verified(self) -> bool:
        """Whether every file it was unpacked from had a known hash."""
        return bool(self.origins) and all(origin.verified for origin in self.origins)

    @property
    def label(self) -> str:
        """Its name for lists and for the line that says what was started."""
        return f"{self.id}{'' if self.verified else ' (unverified)'}"

    def save(self) -> None:
        """Write ``engine.json``."""
        origins = [
            {"url": o.url, "sha256": o.sha256, "bytes": o.file_bytes, "verified": o.verified} for o in self.origins
        ]
        write_json(
            self.folder / MANIFEST,
            {
                "id": self.id,
                "backend": self.backend,
                "version": self.version,
                "program": self.program,
                "files": origins,
                "devices": self.devices,
                "problem": self.problem,
            },
        )


def folder() -> Path:
    """Where installed builds lie, a folder each."""
    return environment.cache_dir() / "engines"


@cache
def entries() -> tuple[Entry, ...]:
    """Every build of the lock file, the preferred ones first."""
    return parse(files(__package__).joinpath("engines.json").read_text(encoding="utf-8"))


def parse(text: str) -> tuple[Entry, ...]:
    """The entries of a lock file's text."""
    return tuple(_entry(row) for row in json.loads(text)["entries"])


def installed() -> tuple[Build, ...]:
    """The builds in the cache, those for GPUs first, the newest of a backend first; damaged ones are left out."""
    found = []
    for path in folder().glob(f"*/{MANIFEST}"):
        try:
            build = _build(path)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue  # half deleted by hand: `%llama install` makes it anew
        if not path.parent.name.startswith(".") and (build.folder / build.program[0]).is_file():
            found.append(build)
    return tuple(sorted(found, key=lambda b: (-BACKENDS.index(b.backend), version_key(b.version), b.id), reverse=True))


def named(name: str) -> Build | None:
    """The installed build called ``name``: its id, or a backend's best.

    ``None`` for a name that is neither. Raises EngineError when a backend is named and nothing of it is installed, or
    when the build does not run here.
    """
    builds = [build for build in installed() if name in (build.id, build.backend)]
    if not builds:
        if name in BACKENDS or any(name == entry.id for entry in entries()):
            raise EngineError(f"no engine {name!r} is installed", hint=f"%llama install --engine {name}")
        return None
    good = next((build for build in builds if build.problem is None), None)
    if good is None:
        raise EngineError(f"{builds[0].id} does not run here: {builds[0].problem}", hint="%llama doctor")
    return good


def names() -> tuple[str, ...]:
    """What ``%llama install --engine`` takes: the backends, then the ids of the lock file."""
    return (*BACKENDS, *(entry.id for entry in entries()))


def _entry(row: Mapping[str, JSON]) -> Entry:
    sources = cast("list[dict[str, Any]]", row["files"])
    rest = {name: value for name, value in row.items() if name not in ("files", "program")}
    return Entry(
        files=tuple(HttpsSource(s["url"], s["sha256"], s["bytes"]) for s in sources),
        program=tuple(cast("list[str]", row["program"])),
        **rest,  # type: ignore[arg-type]  # the lock file's names are the fields' names; a test reads every entry
    )


def _build(path: Path) -> Build:
    row = json.loads(path.read_text(encoding="utf-8"))
    return Build(
        id=str(row["id"]),
        backend=BACKENDS[BACKENDS.index(row["backend"])],
        version=str(row["version"]),
        folder=path.parent,
        program=tuple(map(str, row["program"])),
        origins=tuple(Origin(o["url"], o["sha256"], o["bytes"], o["verified"]) for o in row["files"]),
        devices=tuple(map(str, row["devices"])),
        problem=row["problem"],
    )

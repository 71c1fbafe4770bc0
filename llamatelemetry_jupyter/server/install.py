"""Puts a build of llama.cpp's server into the cache: planned, then fetched, checked, unpacked and tried.

A plan says what would happen before anything does. A build gets its final name only when everything is in place, so
that a killed install leaves nothing that could be started; what it had downloaded is kept for the next attempt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from .. import archive
from .._files import locked, make_folder, require_space, sha256, write_json
from .._https import remote_size
from ..errors import EngineError, FetchError
from ..fetch import HttpsSource, fetch
from ..progress import Progress, counted
from ..units import size
from . import engines
from .engines import BACKENDS, Backend, Build, Entry, Origin
from .machine import Machine
from .runtime import said, seen_devices

#: An unpacked engine is at most so much larger than its files (CUDA code packs well, 8 leaves room) …
_GROWTH = 8
_ROOM_BYTES = 64 << 20
#: … and never larger than this.
_LIMIT_BYTES = 16 << 30
#: Addresses whose unverified files are remembered; a file of the user's own may change.
_REMEMBERED = ("https:", "http:")
_WAIT_S = 3600.0
_PROGRAMS = (("llama-server",), ("llama", "serve"))
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be installed. ``local`` holds the files, or the unpacked build, that lie on this machine already.

    ``size_bytes`` is what would be downloaded or copied; ``None`` where no server says.
    """

    entry: Entry
    why: str
    size_bytes: int | None
    local: tuple[Path, ...] = ()
    caution: str | None = None

    def describe(self) -> str:
        """Source, size, licence and hash, before anything happens."""
        entry = self.entry
        lines = [f"{entry.id}: llama.cpp {entry.version} for {entry.backend}, {entry.publisher}", f"  why: {self.why}"]
        if self.caution:
            lines.append(f"  caution: {self.caution}")
        lines += [f"  from: {place}" for place in (self.local or [file.url for file in entry.files])]
        known = "size unknown (the server does not say)" if self.size_bytes is None else size(self.size_bytes)
        lines.append(f"  size: {known}, licence: {entry.licence}")
        lines += [f"  SHA-256: {f.sha256} of {f.filename}" for f in entry.files if f.sha256]
        if not entry.verified:
            lasting = "" if self.local else " and must not change later"
            lines.append(f"  unverified: no SHA-256 is known; that of what arrives is recorded{lasting}")
        lines.append(f"  to: {engines.folder() / entry.id}")
        return "\n".join(lines)


def plan(name: str, machine: Machine, local: Path | None = None) -> Plan:
    """What ``%llama install --engine name`` would do: the first build that fits ``machine`` and has not failed here.

    ``name`` is a backend or the id of a build; ``local`` a folder of files, for a machine without a network. Raises
    EngineError when nothing fits, with every reason, and FetchError when the server does not answer or refuses.
    """
    if name not in engines.names():
        raise EngineError(f"there is no engine {name!r}", hint="%llama install --list")
    if local is not None:
        return _from_folder(name, machine, local.expanduser())
    entry, misfit = _choose(name, machine)
    hint = f"%llama install --engine {name} --from FOLDER   (with {', '.join(f.filename for f in entry.files)} in it)"
    sizes = [file.file_bytes or remote_size(file, hint) for file in entry.files]
    total = None if None in sizes else sum(filter(None, sizes))
    return Plan(entry, entry.reasons(machine), total, caution=misfit)


def install(wanted: Plan, say: Progress) -> Build:
    """Do it; returns the build, tried out: :attr:`Build.problem` says if it does not run here.

    Raises FetchError or EngineError when it could not be put in place; nothing is left then under its name.
    """
    entry, home = wanted.entry, engines.folder()
    make_folder(home)
    final = home / entry.id
    with locked(home / f".{entry.id}.lock", say, _WAIT_S):
        for left in home.glob(f".{entry.id}.*.part"):  # of a process that was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        if ready := next((build for build in engines.installed() if build.id == entry.id), None):
            return tried(ready)
        shutil.rmtree(final, ignore_errors=True)  # one that somebody has half deleted
        require_space(home, 3 * (wanted.size_bytes or 0))
        with tempfile.TemporaryDirectory(prefix=f".{entry.id}.", suffix=".part", dir=home) as scratch:
            place = Path(scratch) / "build"
            place.mkdir()
            origins = _fill(place, wanted, say)
            program = _program(place, entry)
            _gather_libraries(place, (place / program[0]).parent)
            build = Build(entry.id, entry.backend, entry.version, place, program, origins)
            build.save()
            place.rename(final)
        shutil.rmtree(_downloads(entry), ignore_errors=True)
        return tried(replace(build, folder=final))


def tried(build: Build) -> Build:
    """The build after it was run for its version and its devices; what was seen is kept beside it."""
    problem: str | None = None
    devices: tuple[str, ...] = ()
    try:
        said(build.argv, "--version")
        devices = seen_devices(build.argv)
    except EngineError as error:
        problem = str(error)
    if problem is None and build.backend != "cpu" and not devices:
        problem = f"it runs, but sees no GPU for {build.backend}"
    now = replace(build, problem=problem, devices=devices)
    if now != build:  # a cache that is shared may not be writable, and has nothing new to keep
        now.save()
    return now


def _choose(name: str, machine: Machine) -> tuple[Entry, str | None]:
    """The entry to install; for one that was named by its id also what speaks against it."""
    failed = {build.id for build in engines.installed() if build.problem}
    wanted = [entry for entry in engines.entries() if name in (entry.id, entry.backend)]
    if name not in BACKENDS:
        return wanted[0], wanted[0].misfit(machine)
    reasons: dict[str, list[str]] = {}
    for entry in wanted:
        why = "was installed and does not run here" if entry.id in failed else entry.misfit(machine)
        if why is None:
            return entry, None
        reasons.setdefault(why, []).append(entry.id)
    told = "; ".join(f"{ids[0] if len(ids) == 1 else f'{len(ids)} builds'}: {why}" for why, ids in reasons.items())
    hint = '%pip install "llamatelemetry-jupyter[local]"' if name == "cpu" else "%llama install --engine cpu"
    raise EngineError(f"no build for {name} fits this machine ({told})", hint=hint)


# --------------------------------------------------------------------------------------------------- a folder of files


def _from_folder(name: str, machine: Machine, folder: Path) -> Plan:
    """A build out of files on this machine: those of the lock file by name, else archives, else an unpacked build."""
    if not folder.is_dir():
        raise EngineError(f"{folder} is not a folder", hint=f"%llama install --engine {name} --from /kaggle/input/NAME")
    there = list(_walk(folder))
    by_name = {path.name: path for path in reversed(there)}
    entries = [entry for entry in engines.entries() if name in (entry.id, entry.backend)]
    digests: dict[Path, str] = {}
    for entry in entries:
        paths = [by_name.get(file.filename) for file in entry.files]
        whole = [path for path in paths if path is not None]
        if len(whole) == len(paths) and _hashes_fit(entry, whole, digests):
            total = sum(path.stat().st_size for path in whole)
            return Plan(entry, f"found in {folder}", total, tuple(whole), entry.misfit(machine))
    if name not in BACKENDS:
        missing = ", ".join(file.filename for file in entries[0].files)
        raise EngineError(f"{folder} does not hold {missing} with the right SHA-256", hint=f"!ls -l {folder}")
    packed = [path for path in there if path.name.endswith((".tar.gz", ".tgz", ".zst")) and archive.kind(path)]
    if packed:
        return _loose(name, folder, tuple(packed), packed, "archives of no known release")
    for program, *_ in _PROGRAMS:
        if found := next((path for path in there if path.name == program), None):
            around = [path for path in there if path.is_relative_to(found.parent)]
            return _loose(name, folder, (found.parent,), around, f"an unpacked build around {found.name}")
    raise EngineError(
        f"{folder} holds neither an archive of a build (.tar.gz, .zst) nor a llama-server", hint=f"!ls -R {folder}"
    )


def _loose(name: str, folder: Path, local: tuple[Path, ...], paths: list[Path], what: str) -> Plan:
    """A plan for files that the lock file does not know; their hashes are a part of the id, so that it means them."""
    digest = sha256(next((p for p in paths if p.name in ("llama-server", "llama")), paths[0]))
    stem = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-").lower()[:24] or "folder"
    backend: Backend = BACKENDS[BACKENDS.index(name)]
    sources = tuple(HttpsSource(f"file:{path}", None) for path in local)
    name = f"{stem}-{backend}-{digest[:8]}"
    entry = Entry(name, backend, "of unknown version", (), "your own files", "theirs", sources)
    return Plan(entry, f"{what} in {folder}", sum(path.stat().st_size for path in paths), local)


def _walk(folder: Path) -> Iterator[Path]:
    """The regular files at most four folders deep, the nearest first."""
    for path, folders, names in os.walk(folder):
        if len(Path(path).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        yield from (file for name in sorted(names) if (file := Path(path, name)).is_file())


def _hashes_fit(entry: Entry, paths: list[Path], digests: dict[Path, str]) -> bool:
    """Whether files of these names are the entry's: all single-file builds of llama.app have the same name."""
    for file, path in zip(entry.files, paths, strict=True):
        if file.file_bytes not in (None, path.stat().st_size):
            return False
        if file.sha256 is not None and path not in digests:
            digests[path] = sha256(path)
        if file.sha256 is not None and file.sha256 != digests[path]:
            return False
    return True


# ------------------------------------------------------------------------------------------------ fetched and unpacked


def _downloads(entry: Entry) -> Path:
    return engines.folder() / f".{entry.id}.files"


def _fill(place: Path, wanted: Plan, say: Progress) -> tuple[Origin, ...]:
    """Unpack or copy every file of the plan into ``place``."""
    entry, origins = wanted.entry, []
    for number, source in enumerate(entry.files):
        if wanted.local and wanted.local[number].is_dir():
            _copy(wanted.local[number], place, say)
            program = next(place / name for name, *_ in _PROGRAMS if (place / name).is_file())
            origins.append(_recorded(source, sha256(program), program.stat().st_size))
            continue
        if wanted.local:
            origins.append(_unpack(wanted.local[number], source, place / str(number), entry, say))
            continue
        hint = f"%llama install --engine {entry.backend} --from FOLDER"
        path = fetch(source, say, folder=_downloads(entry), hint=hint, timeout_s=_WAIT_S)
        try:
            origins.append(_unpack(path, source, place / str(number), entry, say))
        except FetchError:
            path.unlink()  # damaged, or another one than before: the next attempt asks the server again
            raise
    return tuple(origins)


def _unpack(path: Path, source: HttpsSource, own: Path, entry: Entry, say: Progress) -> Origin:
    """One file into a folder of its own, because two archives may hold the same names."""
    file_bytes = path.stat().st_size
    origin = _recorded(source, source.sha256 or sha256(path, say), file_bytes)
    require_space(own.parent, 2 * file_bytes)
    own.mkdir()
    limit = min(file_bytes * _GROWTH + _ROOM_BYTES, _LIMIT_BYTES)
    archive.unpack(path, own, limit, say, name=entry.program[0] if entry.program else "llama")
    return origin


def _recorded(source: HttpsSource, digest: str, file_bytes: int) -> Origin:
    """Where a file came from; an unverified one must be the same for ever, whoever sends it later."""
    if source.sha256 is None and source.url.startswith(_REMEMBERED):
        path = engines.folder() / "seen.json"
        try:
            seen = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            seen = {}
        before = seen.get(source.url)
        if before is not None and before["sha256"] != digest:
            raise FetchError(
                f"{source.url} has changed: SHA-256 {digest[:16]}…, {before['sha256'][:16]}… on {before['date']}",
                hint=f"!rm {path}   (if you trust the new file)",
            )
        seen[source.url] = before or {"sha256": digest, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d")}
        write_json(path, seen)
    return Origin(source.url, digest, file_bytes, source.sha256 is not None)


def _copy(folder: Path, place: Path, say: Progress) -> None:
    """Copy an unpacked build; a Kaggle dataset can neither be written nor keeps who may execute."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in counted(files, f"copying {folder.name}", len(files), "files", say):
        shutil.copyfile(path, place / path.name)
        (place / path.name).chmod(0o755)


def _program(place: Path, entry: Entry) -> tuple[str, ...]:
    """The program and its arguments, relative to ``place``; made executable."""
    for name, *arguments in (entry.program,) if entry.program else _PROGRAMS:
        found = next((p for p in sorted(place.rglob(name)) if p.is_file() and not p.is_symlink()), None)
        if found is not None:
            found.chmod(0o755)
            return (str(found.relative_to(place)), *arguments)
    raise EngineError(f"{entry.id} holds no llama-server", hint="%llama install --list")


def _gather_libraries(place: Path, beside: Path) -> None:
    """Shared libraries of other archives go beside the program: its own run path looks nowhere else."""
    for path in sorted(place.rglob("*.so*")):
        if path.parent != beside and not (beside / path.name).exists():
            path.rename(beside / path.name)

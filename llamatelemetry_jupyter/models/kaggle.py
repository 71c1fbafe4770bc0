"""Models of Kaggle, in kagglehub's own cache; in a Kaggle notebook they are attached instead of downloaded.

kagglehub continues what broke off and compares the MD5 that the store states.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import escape, secrets
from .._files import POLL_S, bytes_in
from ..errors import FetchError, ModelError
from ..progress import Progress, Step
from .quants import File

SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
_INSTALL = '%pip install "llamatelemetry-jupyter[hub]"'
_PARENT = str(Path(__file__).resolve().parents[2])
#: ``12.5M/98.0M [`` in its bar.
_DONE = re.compile(rb"([\d.]+)([kMGT]?)/([\d.]+)([kMGT]?) \[")
_PREFIXES = (b"", b"k", b"M", b"G", b"T")


def cache_folder() -> Path:
    """kagglehub's cache of models."""
    return Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub") / "models"


def cached(variation: str, version: str | None = None, file: str | None = None) -> list[tuple[File, Path]]:
    """The .gguf files of the newest version (or of ``version``) that kagglehub has downloaded whole; asks nobody."""
    folder = cache_folder() / variation
    there = [path.name for path in folder.glob("*") if path.name.isdigit()]
    for name in sorted(there, key=int, reverse=True) if version is None else [version]:
        files = [
            (one, path)
            for one, path in files_in(folder / name)
            if file in (None, one.path) and _complete(folder, name, one.path)
        ]
        if files:
            return files
    return []


def files_in(folder: Path) -> list[tuple[File, Path]]:
    """The .gguf files under ``folder``."""
    paths = sorted(path for path in folder.rglob("*.gguf") if path.is_file())
    return [(File(path.relative_to(folder).as_posix(), path.stat().st_size), path) for path in paths]


def marks(folder: Path, version: str, file: str) -> tuple[Path, Path]:
    """kagglehub's marks of a whole version, and of a file of it that was fetched alone."""
    return folder / f"{version}.complete", folder / ".complete" / version / f"{file}.complete"


def pull(variation: str, version: str | None, file: str | None, say: Progress) -> list[tuple[File, Path]]:
    """The .gguf files of a variation, or the one called ``file``; without ``file`` the whole variation is downloaded.

    Raises ModelError (consent, token, name, network) or FetchError (disk, wrong hash).
    """
    if find_spec("kagglehub") is None:
        raise ModelError("models of Kaggle need the package kagglehub", hint=_INSTALL)
    handle = variation if version is None else f"{variation}/{version}"
    arguments = [handle] if file is None else [handle, file]
    while True:
        before = bytes_in(cache_folder() / variation)
        answer = _run(arguments, file or variation.split("/")[1], variation, say)
        if "path" in answer or not _broken(answer) or bytes_in(cache_folder() / variation) <= before:
            break  # what broke off is continued as long as something arrives
    if "path" not in answer:
        raise _refused(variation, file, answer)
    path = Path(str(answer["path"]))
    if path.is_dir():
        return files_in(path)
    return [(File(file or path.name, path.stat().st_size), path)]


def _complete(folder: Path, version: str, file: str) -> bool:
    return any(mark.exists() for mark in marks(folder, version, file))


def _run(arguments: Sequence[str], name: str, variation: str, say: Progress) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}._kagglehub", *arguments]
    tokens = {name: value for name in SECRETS if (value := secrets.get(name))}
    stage, folder = f"downloading {name}", cache_folder() / variation
    before = bytes_in(folder)
    env = {
        **os.environ,
        **tokens,
        "KAGGLEHUB_CACHE": str(cache_folder().parent.absolute()),
        "KAGGLEHUB_VERBOSITY": "critical",
        "PYTHONPATH": os.pathsep.join(filter(None, (_PARENT, os.environ.get("PYTHONPATH")))),
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as bars,
    ):
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=bars,
            # `-m` puts the working directory on sys.path: a notebook's folder may hold a module like an import.
            cwd=scratch,
            env=env,
        )
        try:
            while child.poll() is None:
                say(_step(stage, bytes_in(folder) - before, bars.fileno() if len(arguments) > 1 else None))
                time.sleep(POLL_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").split("\n")
        bars.seek(0)
        noise = bars.read().decode("utf-8", "replace").strip().split("\n")
    try:
        answer = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    except (StopIteration, ValueError):
        return {"kinds": [], "status": None, "errno": None, "message": f"kagglehub ended: {noise[-1][:200]}"}
    return dict(answer)


def _step(stage: str, grown: int, bars: int | None) -> Step:
    """What kagglehub's bar says; it is drawn once more for each step, the last one counts. Else how much has come."""
    if bars is not None:
        end = os.fstat(bars).st_size
        if found := _DONE.findall(os.pread(bars, 400, max(0, end - 400))):
            done, prefix, total, total_prefix = found[-1]
            return Step(stage, _bytes(done, prefix), _bytes(total, total_prefix), "B")
    return Step(stage, grown if grown > 0 else None, unit="B")


def _bytes(number: bytes, prefix: bytes) -> float:
    return float(number) * float(1 << 10 * _PREFIXES.index(prefix))


def _broken(answer: dict[str, Any]) -> bool:
    return bool({"ConnectionError", "ChunkedEncodingError", "Timeout"} & set(answer["kinds"]))


def _refused(variation: str, file: str | None, answer: dict[str, Any]) -> ModelError | FetchError:
    owner_model = "/".join(variation.split("/")[:2])
    page, status, kinds = f"https://www.kaggle.com/models/{owner_model}", answer["status"], answer["kinds"]
    if status in (401, 403):
        known = any(secrets.get(name) for name in SECRETS)
        who = "the account of your Kaggle token has no access to" if known else "Kaggle asks for a login or consent for"
        return ModelError(
            f"{who} {variation}: accept its terms at {page}",
            hint="put a token of that account into the secret KAGGLE_API_TOKEN   (kaggle.com/settings)",
        )
    if status == 404:
        what = f"no file {file} in {variation}" if file else f"no model {variation}"
        return ModelError(f"Kaggle has {what}", hint=f"look at {page}")
    if status == 429:
        return ModelError("Kaggle was asked too often (HTTP 429)", hint="try again in some minutes")
    if answer["errno"] in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(f"the disk of {cache_folder()} is full", hint="%env KAGGLEHUB_CACHE=/a/larger/disk")
    if "DataCorruptionError" in kinds:
        return FetchError(
            f"{variation} did not arrive as Kaggle states it: its MD5 differs; it was deleted", hint="try again"
        )
    if _broken(answer):
        return ModelError(
            "Kaggle does not answer (is this machine offline?)",
            hint="%llama start PATH.gguf   (a model file that is on this machine)",
        )
    said = escape.plain(answer["message"]).strip().split("\n")[0][:200]
    return ModelError(f"Kaggle's {variation} cannot be fetched: {said}", hint=f"look at {page}")

"""Models of Hugging Face: in the cache that every tool shares, listed and fetched with huggingface_hub's own rules.

huggingface_hub answers for names, revisions, consent, tokens and the cache's layout. The bytes come through our own
download: its 2.x throws an interrupted transfer away and no version compares the SHA-256, and a model is gigabytes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import escape, secrets
from .._files import locked, make_folder, require_space
from .._https import HttpsSource, download
from ..errors import FetchError, ModelError
from ..progress import Progress
from .quants import File

SECRET = "HF_TOKEN"  # a name
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INSTALL = '%pip install "llamatelemetry-jupyter[hub]"'
_WAIT_S = 3600.0  # for another process that downloads the same file


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit."""

    repo: str
    revision: str
    commit: str
    files: tuple[File, ...]


def cache_folder() -> Path | None:
    """Folder of the cache that Hugging Face's tools share; ``None`` without huggingface_hub."""
    if find_spec("huggingface_hub") is None:
        return None
    return Path(_constants().HF_HUB_CACHE)


def cached(repo: str, revision: str | None = None) -> list[tuple[File, Path]]:
    """The .gguf files of ``repo`` that are in the cache at ``revision``, whoever put them there; asks nobody."""
    root = cache_folder()
    if root is None:
        return []
    folder = _repo_folder(root, repo)
    commit = _commit_of(folder, revision or "main")
    if commit is None:
        return []
    snapshot = folder / "snapshots" / commit
    found = []
    for path in sorted(snapshot.rglob("*.gguf")):
        if path.is_file():  # not a link whose blob was deleted
            name = path.relative_to(snapshot).as_posix()
            found.append((File(name, path.stat().st_size, sha256_of(path)), path))
    return found


def sha256_of(path: Path) -> str | None:
    """The SHA-256 under which the cache keeps a file of a snapshot."""
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) else None


def listing(repo: str, revision: str | None = None) -> Listing:
    """The .gguf files that ``repo`` offers at ``revision``, with sizes and hashes; one request.

    Raises ModelError: no such repository or revision, no network, offline mode, asked too often.
    """
    api = _api()
    with _told(repo):
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=30)
    files = [
        File(one.rfilename, max(one.size or 0, 0), _stated(one.lfs))
        for one in info.siblings or ()
        if one.rfilename.lower().endswith(".gguf") and ".." not in one.rfilename.split("/")
    ]
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        raise ModelError(f"{_host()} names no commit of {repo}", hint="%llama doctor --online")
    return Listing(repo, revision or "main", info.sha, tuple(files))


def pull(found: Listing, files: Sequence[File], say: Progress) -> list[Path]:
    """Paths of ``files`` in the shared cache, each fetched when it is not there, continued where it broke off, checked.

    Raises ModelError (consent, token, network) or FetchError (disk, wrong hash).
    """
    root = cache_folder()
    assert root is not None  # listing() has used the library
    folder = _repo_folder(root, found.repo)
    blobs = folder / "blobs"
    make_folder(blobs)
    missing = [file for file in files if not (blobs / (file.sha256 or "")).is_file()]
    hint = "%env HF_HOME=/a/larger/disk   (then restart the kernel)"
    require_space(blobs, sum(file.bytes for file in missing), hint)
    paths = [_one(found, file, blobs, say) for file in files]
    _remember(folder, found)
    return paths


def _one(found: Listing, file: File, blobs: Path, say: Progress) -> Path:
    import huggingface_hub

    if file.sha256 is None:
        raise ModelError(f"{_host()} states no SHA-256 for {file.path} of {found.repo}", hint="take another repository")
    url = f"{_constants().ENDPOINT}/{found.repo}/resolve/{found.commit}/{quote(file.path)}"
    hint = f"%llama models pull hf:{found.repo}/{file.path}   (goes on where it broke off)"
    blob, token = blobs / file.sha256, _token()
    if not blob.is_file():
        with _told(found.repo):  # consent and token are known only here, and the library knows what an answer means
            huggingface_hub.get_hf_file_metadata(url, token=token or False)
        # The library's own lock (it locks with flock, too): two tools never fetch the same file at once.
        lock = blobs.parents[1] / ".locks" / blobs.parent.name / f"{file.sha256}.lock"
        make_folder(lock.parent)
        with locked(lock, say, _WAIT_S):
            if not blob.is_file():
                name = file.path.rsplit("/", 1)[-1]
                download(HttpsSource(url, file.sha256, file.bytes, escape.plain(name), token), blob, say, hint)
    with _told(found.repo):  # the blob is there: this only gives it its name in the snapshot
        path = Path(huggingface_hub.hf_hub_download(found.repo, file.path, revision=found.commit, token=token or False))
    if sha256_of(path) not in (None, file.sha256):
        raise FetchError(f"{_host()} states two different SHA-256 for {file.path} of {found.repo}", hint=hint)
    return path


def _stated(lfs: Any) -> str | None:
    """The SHA-256 that the hub states; it becomes a file's name, so only what is one counts."""
    return lfs.sha256 if lfs is not None and _SHA256.fullmatch(str(lfs.sha256)) else None


def _remember(folder: Path, found: Listing) -> None:
    """The commit that a branch means, so that everybody finds the files without a network."""
    if not _COMMIT.fullmatch(found.revision):
        ref = folder / "refs" / found.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        part = ref.with_name(f".{ref.name}.{os.getpid()}")
        part.write_text(found.commit)
        part.replace(ref)


def _repo_folder(root: Path, repo: str) -> Path:
    return root / f"models--{repo.replace('/', '--')}"


def _commit_of(folder: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _constants() -> Any:
    return import_module("huggingface_hub.constants")  # read by the library when it is imported, as for all its users


def _host() -> str:
    endpoint = str(_constants().ENDPOINT)
    return "Hugging Face" if endpoint == "https://huggingface.co" else endpoint


def _token() -> str | None:
    from huggingface_hub import get_token

    return secrets.get(SECRET) or get_token()


def _api() -> Any:
    if find_spec("huggingface_hub") is None:
        raise ModelError("models of Hugging Face need the package huggingface_hub", hint=_INSTALL)
    from huggingface_hub import HfApi

    from .. import __version__

    return HfApi(token=_token() or False, library_name="llamatelemetry-jupyter", library_version=__version__)


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """What the library raises, as two lines."""
    errors: Any = import_module("huggingface_hub.errors")
    page = f"{_constants().ENDPOINT}/{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        if _token() is None:
            raise ModelError(
                f"{repo} asks for consent: log in and accept its terms at {page}",
                hint=f"put a token of that account into the secret {SECRET}   (huggingface.co/settings/tokens)",
            ) from error
        raise ModelError(
            f"the account of {SECRET} has not been given access to {repo}", hint=f"accept the terms at {page}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{_host()} has no public model {repo}", hint=f"check the name; a private one needs the secret {SECRET}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no such revision", hint=f"hf:{repo}   (its newest)") from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{repo} has lost that file", hint=f"%llama models pull hf:{repo}") from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(
            f"{repo} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it",
            hint="%env HF_HUB_OFFLINE=0   (then restart the kernel)",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except errors.HTTPError as error:
        raise ModelError(
            f"{_host()} does not answer (is this machine offline?)",
            hint="%llama start PATH.gguf   (a model file that is on this machine)",
        ) from error


def _refused(repo: str, error: Any) -> ModelError:
    status = error.response.status_code
    if status == 429:
        more = "" if _token() else f"; with the secret {SECRET} more is allowed"
        return ModelError(f"{_host()} was asked too often (HTTP 429){more}", hint="try again in some minutes")
    if status == 401:
        return ModelError(f"{_host()} does not accept the token (HTTP 401)", hint=f"renew the secret {SECRET}")
    if status >= 500:
        return ModelError(f"{_host()} has trouble (HTTP {status})", hint="try again in some minutes")
    said = escape.plain(error.server_message or "no reason given").split("\n")[0][:160]
    return ModelError(f"{_host()} refuses {repo} (HTTP {status}): {said}", hint=f"check the token in {SECRET}")

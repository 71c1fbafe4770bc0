"""One file from a web server, continued where an earlier attempt broke off.

The part that has arrived lies beside its final name, with the server's validator (ETag or date): a range of another
version of the file can never be added to it. Proxies are those of the user; connections to this machine use none.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from ._files import require_space, sha256, write_json
from .errors import FetchError
from .progress import Progress, Step
from .units import size

if TYPE_CHECKING:
    from requests import Response, Session

_TRIES = 4  # in a row without one new byte
_WAIT_S = 0.25  # doubled from try to try
_TIMEOUT_S = (10.0, 30.0)  # to connect; between two pieces
_REDIRECTS = 8
_PIECE = 1 << 16  # small enough that a slow transfer is seen to move
#: No engine and no model for a notebook's GPU is larger; a server without Content-Length ends here.
_LIMIT_BYTES = 64 << 30
_WHY = {401: "it asks for a login", 403: "access is refused", 404: "it is not there", 410: "it is there no more"}
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class HttpsSource:
    """A file at a URL. Without ``sha256`` it can be fetched, but nobody vouches for it: whoever asks has to say so.

    ``http:`` is taken for this machine only. ``token`` is sent to the URL's own host and to no other that it leads to.
    """

    url: str
    sha256: str | None
    file_bytes: int | None = None
    name: str | None = None
    token: str | None = field(default=None, repr=False, compare=False)

    @property
    def filename(self) -> str:
        """Name under which the file is cached; that of the URL unless given."""
        return self.name or unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return self.url


class _BrokenOff(Exception):  # noqa: N818 (the transfer is tried again)
    """The transfer ended before the file did; what has arrived is kept."""


def download(source: HttpsSource, final: Path, say: Progress, hint: str) -> None:
    """Puts the file at ``final``, whole and with the right hash if one is known.

    Raises FetchError with ``hint`` when the server refuses, cannot be reached or sends another file.
    """
    part, note = final.with_name(f".{final.name}.part"), final.with_name(f".{final.name}.part.json")
    failures, reached = 0, 0
    while True:
        try:
            _attempt(source, part, note, say, hint)
            break
        except _BrokenOff as broken:
            arrived = _size(part)
            failures = 0 if arrived > reached else failures + 1
            reached = max(reached, arrived)
            if failures >= _TRIES:
                raise FetchError(f"{source.url} cannot be downloaded: {broken}", hint=hint) from broken.__cause__
            say(Step(f"{broken}; going on after {size(arrived)}"))
            time.sleep(_WAIT_S * 2**failures)
    found = sha256(part, say, source.filename)
    if source.sha256 is not None and found != source.sha256:
        _discard(part, note)
        raise FetchError(
            f"{source.url} is not the file that was expected: SHA-256 {found[:16]}…, expected {source.sha256[:16]}…",
            hint=hint,
        )
    part.replace(final)
    note.unlink(missing_ok=True)


def remote_size(source: HttpsSource, hint: str) -> int | None:
    """Bytes of the file as its server says without sending it; raises FetchError when it does not answer or refuses."""
    try:
        with _opened("HEAD", source, {}) as response:
            # 403: a storage host's address is often signed for GET alone. What is truly refused is so again, later.
            if response.status_code in (403, 405, 501):
                return None
            if response.status_code != 200:
                raise _refused(source, response, hint)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None
    except _BrokenOff as broken:
        raise FetchError(f"{source.url} cannot be reached: {broken}", hint=hint) from broken.__cause__


def _attempt(source: HttpsSource, part: Path, note: Path, say: Progress, hint: str) -> None:
    have, validator = _resumable(source, part, note)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and validator:
        headers["If-Range"] = validator
    with _opened("GET", source, headers) as response:
        status = response.status_code
        if status == 416 and have:
            if _range(response)[1] == have:
                return  # it had arrived whole; only its new name was missing
            _discard(part, note)
            raise _BrokenOff("the server has another file by now")
        if status in _BUSY:
            raise _BrokenOff(f"the server is busy (HTTP {status})")
        if status == 206 and _range(response)[0] != have:
            _discard(part, note)
            raise _BrokenOff("the server sent another range than the one asked for")
        if status not in (200, 206):
            raise _refused(source, response, hint)
        if status == 200:
            have = 0  # a server without ranges, or with another version of the file
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if source.file_bytes is not None and total not in (None, source.file_bytes):
            _discard(part, note)
            raise FetchError(
                f"{source.url} is not the file that was expected: {total:,} bytes, expected {source.file_bytes:,}",
                hint=hint,
            )
        total = total if total is not None else source.file_bytes
        require_space(part.parent, (total or 0) - have)
        write_json(note, {"url": source.url, "validator": _validator(response)})
        _receive(source, response, part, have, total, say, hint)


def _receive(
    source: HttpsSource, response: Response, part: Path, have: int, total: int | None, say: Progress, hint: str
) -> None:
    stage, limit = f"downloading {source.filename}", total if total is not None else _LIMIT_BYTES
    say(Step(stage, have, total, "B"))
    try:
        with part.open("ab" if have else "wb") as out:
            for chunk in _chunks(response):
                have += len(chunk)
                if have > limit:
                    raise FetchError(f"{source.url} sends more than its {size(limit)}", hint=hint)
                out.write(chunk)
                say(Step(stage, have, total, "B"))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
        raise FetchError(f"{part.parent} cannot be written: {error.strerror}", hint=f"!df -h {part.parent}") from error
    if total is not None and have < total:
        raise _BrokenOff(f"the connection ended after {size(have)} of {size(total)}")


def _chunks(response: Response) -> Iterator[bytes]:
    """The body as it was sent: never unpacked on the way, because lengths, ranges and hashes are those of the file."""
    from urllib3.exceptions import HTTPError

    try:
        yield from response.raw.stream(_PIECE, decode_content=False)
    except HTTPError as error:
        raise _BrokenOff("the connection broke off") from error


@contextlib.contextmanager
def _opened(method: str, source: HttpsSource, headers: dict[str, str]) -> Iterator[Response]:
    import requests

    url = source.url
    with requests.Session() as session:
        try:
            response = _followed(session, method, url, {"Accept-Encoding": "identity", **headers}, source.token)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise FetchError(f"{url} is not an address: {error}", hint="https://HOST/PATH/FILE") from error
        except requests.exceptions.SSLError as error:
            raise FetchError(
                f"the certificate of {urlsplit(url).hostname} is not accepted (a proxy that reads along?)",
                hint="%env REQUESTS_CA_BUNDLE=/path/to/the/company's.pem",
            ) from error
        except requests.exceptions.ProxyError as error:
            raise _BrokenOff("the proxy does not answer (https_proxy is set)") from error
        except requests.RequestException as error:
            raise _BrokenOff(f"{urlsplit(url).hostname} does not answer (is this machine offline?)") from error
        with response:
            yield response


def _followed(session: Session, method: str, url: str, headers: dict[str, str], token: str | None) -> Response:
    first, own = url, dict(headers)
    if token is not None:
        own["Authorization"] = f"Bearer {token}"
    for _ in range(_REDIRECTS):
        parts = urlsplit(url)
        local = _is_loopback(parts.hostname)
        inside = parts.scheme == "http" and local and _is_loopback(urlsplit(first).hostname)
        if parts.scheme != "https" and not inside:
            raise FetchError(f"{first} leads to {url}, which is not https", hint="%llama doctor --online")
        session.trust_env = not local
        at_home = (parts.scheme, parts.netloc) == urlsplit(first)[:2]
        sent = own if at_home else headers
        response = session.request(method, url, headers=sent, stream=True, allow_redirects=False, timeout=_TIMEOUT_S)
        if not response.is_redirect:
            return response
        url = urljoin(url, response.headers["Location"])
        response.close()
    raise FetchError(f"{first} leads from one address to the next without an end", hint="%llama doctor --online")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _resumable(source: HttpsSource, part: Path, note: Path) -> tuple[int, str | None]:
    """How many bytes are there to go on from, and what proves that they are of the server's present file."""
    have = _size(part)
    try:
        kept: Any = json.loads(note.read_text(encoding="utf-8"))
        url, validator = kept["url"], kept["validator"]
    except (OSError, ValueError, TypeError, KeyError):
        url, validator = None, None
    # With a known hash a mixture of two versions is noticed at the end; without one the validator must rule it out.
    if not have or url != source.url or not (validator or source.sha256):
        _discard(part, note)
        return 0, None
    return have, validator


def _validator(response: Response) -> str | None:
    """A strong ETag or the date; a weak ETag does not promise equal bytes (RFC 9110 §8.8.1)."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _range(response: Response) -> tuple[int | None, int | None]:
    """First byte and whole size of ``Content-Range: bytes 5-9/10`` or ``bytes */10``."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return int(found[1]) if found[1] else None, int(found[2]) if found[2] != "*" else None


def _refused(source: HttpsSource, response: Response, hint: str) -> FetchError:
    status = response.status_code
    return FetchError(f"{source.url}: {_WHY.get(status, 'the server refuses')} (HTTP {status})", hint=hint)


def _discard(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

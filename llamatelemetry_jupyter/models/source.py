"""Bytes of a model file at an offset, wherever the file lies: on this machine, or at an address that serves ranges.

Reads go through ``pread``, not through a memory map: a file that another process truncates while it is read would end
the kernel with SIGBUS, and a map of a network file system reads it 4 KiB at a time.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from .. import escape, secrets
from ..errors import GGUFError, ModelError

if TYPE_CHECKING:
    import requests

#: ``hf:owner/repository/path/to/file.gguf``, with ``@revision`` after the repository where it is not ``main``.
_HF = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<path>[^?#]+)")
_USER = re.compile(r"(?<=://)[^/@]*@")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_CONNECT_S, _READ_S, _TOTAL_S = 10.0, 20.0, 120.0
#: huggingface_hub's own variable for a mirror.
_HF_HOST = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class ByteSource(Protocol):
    """A file that can be read at any place; ``windows`` are the first and the largest read that suit it, in bytes."""

    name: str
    size: int
    windows: tuple[int, int]

    def read(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset``, fewer only when the file ends before; raises ModelError."""
        ...

    def close(self) -> None:
        """Give the file or connection back."""
        ...


class FileSource:
    """A regular file on this machine; raises GGUFError when it cannot be read."""

    windows = (64 << 10, 1 << 20)

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._shown = shown(self.name)
        try:
            # O_NONBLOCK: opening a FIFO would wait for a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise self._error(exc) from exc
        self.status = os.fstat(self._fd)
        self.size = self.status.st_size
        if stat.S_ISDIR(self.status.st_mode):
            os.close(self._fd)
            raise GGUFError(f"{self._shown} is a folder, not a .gguf file", hint=f"!ls {shlex.quote(self._shown)}")
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self._fd)
            raise GGUFError(f"{self._shown} is not a regular file", hint=f"!ls -l {shlex.quote(self._shown)}")

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from ``offset``."""
        try:
            return os.pread(self._fd, count, offset)
        except OSError as exc:
            raise self._error(exc) from exc

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _error(self, exc: OSError) -> GGUFError:
        if isinstance(exc, FileNotFoundError):
            return GGUFError(f"there is no file {self._shown}", hint="%llama start smollm2-135m")
        return GGUFError(f"{self._shown} cannot be read: {exc.strerror}", hint=f"!ls -l {shlex.quote(self._shown)}")


class HTTPSource:
    """A file at ``url``, read by HTTP range; one request is made at once, for the first window and the size.

    Raises ModelError when the server cannot be reached, refuses, or serves no ranges. ``hf:`` addresses carry the
    token of the secret ``HF_TOKEN`` where there is one; it goes to huggingface.co only.
    """

    # Fewer and larger reads than from a disk: each costs a round trip.
    windows = (512 << 10, 8 << 20)

    def __init__(self, name: str, url: str, token: str | None = None) -> None:
        import requests

        self.name = name
        self._shown = shown(name)
        self._url = url
        self._session = requests.Session()
        # Compressed answers have no ranges.
        self._session.headers["Accept-Encoding"] = "identity"
        self._token = token
        self._deadline = time.monotonic() + _TOTAL_S
        self.size = 0
        try:
            self._first = self._get(0, self.windows[0])
        except BaseException:
            self._session.close()
            raise

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from ``offset``."""
        if offset + count <= len(self._first):
            return self._first[offset : offset + count]
        count = min(count, self.size - offset)
        return self._get(offset, count) if count > 0 else b""

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _get(self, offset: int, count: int) -> bytes:
        import requests
        import urllib3

        headers = {"Range": f"bytes={offset}-{offset + count - 1}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"  # requests drops it when it is sent to another host
        try:
            with self._session.get(self._url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S)) as response:
                total = self._accepted(response, offset)
                wanted = min(count, total - offset)
                data = self._body(response, wanted)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise ModelError(
                f"{self._shown} cannot be reached: {type(exc).__name__}", hint="give the path of a file on this machine"
            ) from exc
        if len(data) != wanted:
            raise ModelError(f"{self._shown}: the connection ended too early", hint="try again")
        if self.size not in (0, total):
            raise ModelError(f"{self._shown} has changed while it was read", hint="try again")
        self.size = total
        return data

    def _accepted(self, response: requests.Response, offset: int) -> int:
        status = response.status_code
        if status in (401, 403):
            raise ModelError(
                f"{self._shown} is not public (HTTP {status})", hint="accept its licence there, then set HF_TOKEN"
            )
        if status == 404:
            raise ModelError(f"{self._shown} does not exist (HTTP 404)", hint="look at the file list of the repository")
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if status == 200 or (status == 206 and found is None):
            raise ModelError(f"{self._shown}: its server sends whole files only", hint="download it, give its path")
        if status == 416:
            raise GGUFError(f"{self._shown} is empty", hint="look at the file list of the repository")
        if status != 206 or found is None or int(found[1]) != offset:
            raise ModelError(f"{self._shown}: its server answers HTTP {status}", hint="try again later")
        return int(found[3])

    def _body(self, response: requests.Response, wanted: int) -> bytes:
        parts: list[bytes] = []
        left = wanted
        while left > 0:
            if time.monotonic() > self._deadline:
                raise ModelError(f"{self._shown}: its header took longer than {_TOTAL_S:.0f} s", hint="try again")
            part = response.raw.read(min(left, 1 << 16), decode_content=False)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class Window:
    """Sequential reading of a :class:`ByteSource`: one window of it is in memory, and far skips cost nothing.

    ``data`` holds the bytes from ``base``; a reader works in it directly and asks :meth:`load` for the next ones.
    """

    def __init__(self, source: ByteSource, most_bytes: int) -> None:
        self.source = source
        self.size = source.size
        self.base = 0
        self.data = b""
        self._width = source.windows[0]
        self._left = most_bytes

    def load(self, position: int, count: int) -> bool:
        """Bring ``count`` bytes or more from ``position`` into ``data``; false when file or budget end first."""
        if position < self.base or position > self.base + len(self.data):
            self._width = self.source.windows[0]  # a jump: what lies behind it may not be wanted
        width = min(max(count, self._width), self.size - position)
        if width < count or width > self._left:
            return False
        self._left -= width
        self._width = min(self._width * 2, self.source.windows[1])
        self.data = self.source.read(position, width)
        self.base = position
        return len(self.data) >= count


def is_remote(where: str) -> bool:
    """Whether ``where`` is an address (``hf:``, ``https:``, ``http:``) and not a path."""
    return where.startswith(("hf:", "https://", "http://"))


def shown(where: str) -> str:
    """``where`` for a message: on one line, and without the credentials that an address may carry."""
    if is_remote(where):
        where = re.split("[?#]", _USER.sub("", where))[0]
    return escape.plain(where).replace("\n", "\ufffd")


class opened:  # noqa: N801 (used like contextlib's)
    """``with opened(where) as source``: the bytes behind a path or an address."""

    def __init__(self, where: str | Path) -> None:
        self._where = str(where)

    def __enter__(self) -> ByteSource:
        where = self._where
        if where.startswith("hf:"):
            found = _HF.fullmatch(where)
            if found is None:
                raise ModelError(f"{escape.plain(where)} is no address of a file", hint="hf:OWNER/REPOSITORY/FILE.gguf")
            url = f"{_HF_HOST}/{found['repo']}/resolve/{found['revision'] or 'main'}/{quote(found['path'])}"
            self._source: ByteSource = HTTPSource(where, url, secrets.get("HF_TOKEN"))
        elif is_remote(where):
            self._source = HTTPSource(where, where)
        else:
            self._source = FileSource(where)
        return self._source

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

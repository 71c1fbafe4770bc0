"""One HTTP connection to a server: open it, send, read, and name what went wrong.

Standard library only: :mod:`http.client` takes no proxy from the environment, costs a few microseconds per event and
leaves the socket in our hands, so that any thread can end a request by shutting it down.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import CommandError
from ..values import JSON
from . import failures

_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is and how to speak to it; ``prefix`` is the path before every route."""

    host: str
    port: int
    secure: bool = False
    prefix: str = ""
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> Endpoint:
        """The endpoint of ``http://host:port[/prefix][/v1]``; raises :class:`CommandError` for anything else."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as exc:
            raise _bad_url(url) from exc
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise _bad_url(url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
            raise CommandError("the API key is empty or holds characters that HTTP cannot send", hint="check the key")
        secure = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if secure else 80), secure, prefix, api_key)

    @property
    def url(self) -> str:
        """The base URL, without ``/v1`` and without the key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.prefix}"

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """An open connection; each later read may take ``timeout_s``. Raises :class:`ServerError`."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=min(timeout_s, _CONNECT_TIMEOUT_S))
        try:
            connection.connect()
        except failures.CONNECTION_ERRORS as exc:
            connection.close()
            raise failures.unreachable(self.url, exc) from exc
        connection.sock.settimeout(timeout_s)
        return connection

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a request with a JSON body."""
        headers = {"Content-Type": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if extra:
            headers.update(extra)
        return headers

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, JSON] | None = None,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The whole body of an answer below 400; raises :class:`RequestError` or :class:`ServerError`."""
        payload = None if body is None else encode(body)
        connection = self.connect(timeout_s)
        try:
            connection.request(method, self.prefix + path, payload, self.headers(headers))
            response = connection.getresponse()
            content = response.read()
        except failures.CONNECTION_ERRORS as exc:
            raise failures.unreachable(self.url, exc) from exc
        finally:
            connection.close()
        if response.status >= 400:
            raise failures.refused(response.status, content)
        return content


def encode(body: Mapping[str, JSON]) -> bytes:
    """``body`` as JSON; raises :class:`CommandError` when it holds something that JSON cannot say."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as exc:
        raise CommandError(
            f"a message or option cannot be sent as JSON: {exc}", hint="use text, numbers, lists and dicts"
        ) from exc


def _bad_url(url: str) -> CommandError:
    return CommandError(
        f"not a server's address: {failures.quoted(url)!r}", hint="an address such as http://127.0.0.1:8080"
    )

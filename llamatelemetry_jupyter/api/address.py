"""Where a server is, how to speak to it, and how long to wait while it loads: the same for both clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import CommandError
from . import failures

CONNECT_TIMEOUT_S = 10.0
#: An idle connection is not used again after this: servers close theirs after 5 s (llama.cpp, uvicorn).
IDLE_S = 3.0


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

    def headers(self, content_type: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a request."""
        headers = {"Content-Type": content_type}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if extra:
            headers.update(extra)
        return headers


def pauses(bound_s: float) -> Iterator[float]:
    """Seconds to wait before asking a loading server again: 50 ms, then longer, ``bound_s`` together."""
    waited, pause = 0.0, 0.05
    while waited < bound_s:
        yield min(pause, bound_s - waited)
        waited += pause
        pause = min(1.0, pause * 1.5)


def _bad_url(url: str) -> CommandError:
    return CommandError(
        f"not a server's address: {failures.quoted(url)!r}", hint="an address such as http://127.0.0.1:8080"
    )

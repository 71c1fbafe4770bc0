"""One POST of an OTLP body to a receiver, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import escape
from .destination import Destination

TIMEOUT_S = 2.0
_LONGEST_PAUSE_S = 60.0
#: What is sent is at fault and would be refused again; anything else may get better.
AT_FAULT = frozenset({400, 413, 422})
AWAY = frozenset({0, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Reply:
    """``status`` is 0 without an answer, ``error`` why nothing was taken, ``content`` the answer where it was."""

    status: int
    error: str | None = None
    content: bytes = b""
    pause_s: float = 0.0


class Connection:
    """A receiver's address with a connection that is kept; for one thread at a time."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.as_json = destination.protocol == "http/json"
        self._http: Any = None

    def post(self, body: bytes, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send ``body``, in the destination's protocol; raises nothing that a network can do."""
        import requests

        target = self.destination
        headers = {
            **target.headers,
            "Content-Type": "application/json" if self.as_json else "application/x-protobuf",
            "User-Agent": "llamatelemetry-jupyter",
        }
        if target.gzip:
            import gzip

            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        try:
            answer = self._session().post(
                target.url,
                data=body,
                headers=headers,
                timeout=max(0.05, min(TIMEOUT_S, timeout_s)),
                allow_redirects=False,  # to another host the headers would go, too
                verify=target.verify,
                cert=target.certificate,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            return Reply(0, _why(error))
        if 200 <= answer.status_code < 300:
            return Reply(answer.status_code, content=answer.content)
        html = "html" in answer.headers.get("Content-Type", "")
        return Reply(
            answer.status_code,
            f"HTTP {answer.status_code}{said('' if html else answer.text)}",
            pause_s=_seconds(answer.headers.get("Retry-After")),
        )

    def close(self) -> None:
        """Close the connection; another post opens it again."""
        if self._http is not None:
            self._http.close()

    def _session(self) -> Any:
        import requests

        if self._http is None:
            self._http = requests.Session()
            # A proxy is for the world outside.
            self._http.trust_env = not self.destination.here
        return self._http


def said(text: str) -> str:
    """What a receiver has said, on one short line behind a colon; nothing for nothing."""
    words = " ".join(escape.plain(text).split())[:120]
    return f": {words}" if words else ""


def _why(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (OTEL_EXPORTER_OTLP_CERTIFICATE names a file of authorities)"
    if isinstance(error, requests.ConnectionError):
        return "nothing answers there"
    return type(error).__name__


def _seconds(header: str | None) -> float:
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(header or 0)))
    except ValueError:  # a date
        return _LONGEST_PAUSE_S

"""Where spans and metrics are sent: the standard's environment variables, or an endpoint that was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from .. import escape
from ..errors import ExportError
from ..secrets import remember

Signal: TypeAlias = Literal["traces", "metrics"]
_ALL = "OTEL_EXPORTER_OTLP_"
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")  # 127.0.0.1.example.org is somebody else


@dataclass(frozen=True, slots=True)
class Destination:
    """An OTLP/HTTP receiver; ``headers`` may hold keys and are never shown."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    protocol: Literal["http/protobuf", "http/json"] = "http/protobuf"
    gzip: bool = False
    #: A file of certificate authorities, ``True`` for the usual ones.
    verify: str | bool = True
    #: Our own certificate and its key, for a receiver that asks for one.
    certificate: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Name and port, without credentials."""
        return escape.plain(urlsplit(self.url).netloc.rpartition("@")[2])

    @property
    def here(self) -> bool:
        """Whether it is on this machine, as its address says."""
        return _LOOPBACK.fullmatch(urlsplit(self.url).hostname or "") is not None


def find(
    endpoint: str | None = None, environ: Mapping[str, str] = os.environ, signal: Signal = "traces"
) -> Destination:
    """The destination of a signal: ``endpoint``, else what the variables ``OTEL_EXPORTER_OTLP_*`` say.

    ``endpoint`` and ``OTEL_EXPORTER_OTLP_ENDPOINT`` are bases, to which ``/v1/traces`` or ``/v1/metrics`` is added;
    ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` and ``…_METRICS_ENDPOINT`` are taken as they are. Raises ExportError that
    says what to type.
    """
    own_names = f"{_ALL}{signal.upper()}_"

    def variable(name: str) -> str:
        return (environ.get(own_names + name) or environ.get(_ALL + name) or "").strip()

    url = endpoint or environ.get(f"{own_names}ENDPOINT") or environ.get(f"{_ALL}ENDPOINT")
    if not url:
        raise ExportError(
            "no endpoint is named, here or in OTEL_EXPORTER_OTLP_ENDPOINT",
            hint="%llama export otlp --endpoint http://localhost:4318",
        )
    full = endpoint is None and bool(environ.get(f"{own_names}ENDPOINT"))
    protocol = variable("PROTOCOL") or "http/protobuf"
    if protocol not in ("http/protobuf", "http/json"):
        raise ExportError(
            f"OTLP over {escape.plain(protocol)[:20]} is not spoken here, HTTP is",
            hint="%env OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        )
    own = variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY")
    return Destination(
        _address(url.strip(), signal, full=full),
        _headers(variable("HEADERS")),
        protocol,  # type: ignore[arg-type]
        variable("COMPRESSION").lower() == "gzip",
        variable("CERTIFICATE") or True,
        own if all(own) else None,
    )


def _address(url: str, signal: Signal, *, full: bool) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too much
        usable = False
    if not usable:
        raise ExportError(
            f"{escape.plain(url)[:80]!r} is not the address of a receiver", hint="--endpoint http://localhost:4318"
        )
    if parts.password:
        remember(unquote(parts.password))
    if full:
        return url
    # A base that was given with the path of a signal.
    base = parts.path.rstrip("/").removesuffix("/v1/traces").removesuffix("/v1/metrics")
    return parts._replace(path=f"{base}/v1/{signal}").geturl()


def _headers(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = pair.partition("=")
        name, value = unquote(name).strip(), unquote(value).strip()
        if not equals or not name or not (name + value).isprintable() or not (name + value).isascii():
            raise ExportError(
                "OTEL_EXPORTER_OTLP_HEADERS is not name=value,name=value",
                hint="%env OTEL_EXPORTER_OTLP_HEADERS=name=value",
            )
        found[name] = remember(value)
    return found

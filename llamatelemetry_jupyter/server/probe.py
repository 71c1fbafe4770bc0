"""Asks a server who it is, over a plain socket that no proxy variable can lead astray."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..values import JSON

_BODY_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered; ``server`` is its header of that name."""

    status: int
    body: bytes
    server: str = ""

    @property
    def json(self) -> JSON:
        """The body, ``None`` when it is not JSON."""
        try:
            parsed: JSON = json.loads(self.body)
        except ValueError:
            return None
        return parsed


def ask(url: str, path: str, api_key: str | None = None, timeout_s: float = 2.0, *, post: JSON = None) -> Reply:
    """The answer to a GET, or to a POST of ``post`` as JSON; raises OSError when nothing answers in time.

    ``timeout_s`` bounds the whole answer, also of a server that sends a byte at a time.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    deadline = time.monotonic() + timeout_s
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        if post is None:
            connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", parts.path.rstrip("/") + path, json.dumps(post), headers)
        response = connection.getresponse()
        body = b""
        while (more := response.read1(65536)) and len(body) < _BODY_LIMIT:
            body += more
            if time.monotonic() > deadline:
                raise TimeoutError(f"no whole answer within {timeout_s:g} s")
    except (http.client.HTTPException, UnicodeError) as exc:
        raise OSError(f"no HTTP answer: {exc!r}") from exc
    finally:
        connection.close()
    return Reply(response.status, body, response.headers.get("Server") or "")


def get(url: str, path: str, api_key: str | None = None, timeout_s: float = 2.0) -> tuple[int, JSON]:
    """Status and JSON body of a GET (``None`` for a body that is not JSON); raises OSError when nothing answers."""
    reply = ask(url, path, api_key, timeout_s)
    return reply.status, reply.json


def ports(pid: int) -> list[int] | None:
    """TCP ports on which the process itself listens; ``None`` where the system doesn't say (no /proc)."""
    ours = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):  # noqa: PTH115 (a socket is no path)
                    ours.add(found[1])
        # The tables hold every connection of the machine: they are read only where there is something to look up.
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6") if ours]
    except OSError:
        return None
    rows = [row.split() for row in "\n".join(tables).splitlines()]
    # State 0A is LISTEN; column 1 is address:port in hex, column 9 the socket's inode (proc(5)).
    return [int(r[1].split(":")[1], 16) for r in rows if len(r) > 9 and r[3] == "0A" and r[9] in ours]


def listens(pid: int, url: str) -> bool | None:
    """Whether the process itself holds the port of ``url``; ``None`` where the system doesn't say (no /proc).

    An address from a log is a claim: a model's chat template is shown in it. The API key goes only to our own engine.
    """
    found = ports(pid)
    return urlsplit(url).port in found if found is not None else None


def capabilities(props: dict[str, JSON]) -> frozenset[str]:
    """What a server can do by its ``/props``: chat tools reasoning metrics slots, and the modalities beside text."""
    templates, modalities = props.get("chat_template_caps"), props.get("modalities")
    found = {"chat"} if props.get("chat_template") else set()
    # Older builds do not say, and we always ask for both.
    found |= {name for name in ("metrics", "slots") if props.get(f"endpoint_{name}", True)}
    if isinstance(templates, dict):
        found |= {name for name in ("tools", "reasoning") if templates.get(f"supports_{name}")}
    if isinstance(modalities, dict):
        found |= {name for name, there in modalities.items() if there}
    return frozenset(found)

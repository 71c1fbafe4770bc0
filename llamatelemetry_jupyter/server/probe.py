"""Asks a server on this machine who it is, over a plain socket that no proxy variable can lead astray."""

from __future__ import annotations

import http.client
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ..values import JSON

_BODY_LIMIT = 4 << 20


def get(url: str, path: str, api_key: str | None = None, timeout_s: float = 2.0) -> tuple[int, JSON]:
    """Status and JSON body of a GET (``None`` for a body that is not JSON); raises OSError when nothing answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
        response = connection.getresponse()
        body = response.read(_BODY_LIMIT)
    except http.client.HTTPException as exc:
        raise OSError(f"no HTTP answer: {exc!r}") from exc
    finally:
        connection.close()
    try:
        parsed: JSON = json.loads(body)
    except ValueError:
        parsed = None
    return response.status, parsed


def listens(pid: int, url: str) -> bool | None:
    """Whether the process itself holds the port of ``url``; ``None`` where the system doesn't say (no /proc).

    An address from a log is a claim: a model's chat template is shown in it. The API key goes only to our own engine.
    """
    port = urlsplit(url).port
    try:
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115 (a socket is no path)
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    except OSError:
        return None
    ours = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    for row in "\n".join(tables).splitlines():
        columns = row.split()
        # State 0A is LISTEN; column 1 is address:port in hex, column 9 the socket's inode (proc(5)).
        if len(columns) > 9 and columns[3] == "0A" and columns[9] in ours and int(columns[1].split(":")[1], 16) == port:
            return True
    return False


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

"""Model hubs on loopback, for their real clients: Hugging Face's API, resolve and storage; Kaggle's model API and store."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """``gated`` needs the hub's token; ``lies`` are hashes stated for files that are others, ``etag`` that of a redirect."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False
    lies: dict[str, str] = field(default_factory=dict)
    etag: str | None = None

    def sha256(self, name: str) -> str:
        return self.lies.get(name) or hashlib.sha256(self.files[name]).hexdigest()


@dataclass
class Hub:
    """What a hub has, what it was asked, and what goes wrong: ``statuses`` are answered first, ``cuts`` end transfers."""

    port: int = 0
    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_right"
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    hits: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    tokens: list[tuple[str, str | None]] = field(default_factory=list)  # path, Authorization

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        """The storage host: another name, so another host for every client."""
        return f"http://localhost:{self.port}/store"

    def sent(self, method: str = "GET") -> list[tuple[str, str | None]]:
        """Paths and ranges asked of the storage host."""
        return [(path, asked) for way, path, asked in self.hits if way == method and path.startswith("/store")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.route(False)

    def do_GET(self):
        self.route(True)

    def do_POST(self):
        length = int(self.headers["Content-Length"] or 0)
        self.asked = json.loads(self.rfile.read(length) or b"{}")
        self.route(True)

    def route(self, body):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.hits.append((self.command, path, self.headers["Range"]))
        hub.tokens.append((path, self.headers["Authorization"]))
        if path.startswith("/store/"):
            self.stored(path, body)
        elif hub.statuses and (status := hub.statuses.pop(0)) != 200:
            self.answer(status, b'{"error": "no"}')
        else:
            self.told(path, body)

    def answer(self, status, content, headers=(), body=True):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def stored(self, path, body):
        name = path.removeprefix("/store/")
        content = next(data for repo in self.hub.repos.values() for file, data in repo.files.items() if file == name)
        start, total = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        headers = [("ETag", f'"{md5}"'), ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream")]
        stated = next((repo.lies[name] for repo in self.hub.repos.values() if name in repo.lies), md5)
        headers.append(("x-goog-hash", f"crc32c=AAAAAA==,md5={stated}"))
        if asked:
            start = int(asked[1])
            content = content[: int(asked[2]) + 1] if asked[2] else content
            headers.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{total}"))
        rest = content[start:]
        self.send_response(206 if asked else 200)
        for header in [*headers, ("Content-Length", str(len(rest)))]:
            self.send_header(*header)
        self.end_headers()
        if body:
            if self.hub.cuts:
                rest = rest[: self.hub.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(rest)


class _HuggingFace(_Handler):
    """The calls of huggingface_hub: model_info with ``blobs``, HEAD and GET of resolve."""

    def told(self, path, body):
        hub = self.hub
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = info or file
        repo = hub.repos.get(found[1]) if found else None
        if repo is None:
            self.answer(
                401, b"{}", [("X-Error-Code", "RepoNotFound"), ("X-Error-Message", "Repository not found")], body
            )
        elif self.headers["Authorization"] not in (None, f"Bearer {hub.token}"):
            self.answer(401, b"{}", [("X-Error-Message", "Invalid credentials in Authorization header")], body)
        elif found[2] not in (None, "main", repo.commit):
            self.answer(404, b"{}", [("X-Error-Code", "RevisionNotFound")], body)
        elif info:
            siblings = [
                {
                    "rfilename": name,
                    "size": len(data),
                    "blobId": "b" * 40,
                    "lfs": {"sha256": repo.sha256(name), "size": len(data), "pointerSize": 134},
                }
                for name, data in repo.files.items()
            ]
            about = {"id": found[1], "sha": repo.commit, "gated": "manual" if repo.gated else False}
            about |= {
                "siblings": [{"rfilename": "README.md", "size": 3, "blobId": "c" * 40}, *siblings],
                "private": False,
            }
            self.answer(200, json.dumps(about).encode(), [("Content-Type", "application/json")], body)
        elif repo.gated and self.headers["Authorization"] is None:
            self.answer(401, b"{}", [("X-Error-Code", "GatedRepo")], body)
        elif file[3] not in repo.files:
            self.answer(404, b"{}", [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", repo.commit)], body)
        else:
            headers = [
                ("Location", f"{hub.store}/{file[3]}"),
                ("X-Repo-Commit", repo.commit),
                ("X-Linked-ETag", f'"{repo.etag or repo.sha256(file[3])}"'),
                ("X-Linked-Size", str(len(repo.files[file[3]]))),
            ]
            self.answer(302, b"", headers, body)


class _Kaggle(_Handler):
    """The calls of kagglehub: the newest version, and a download that leads to the store. Repositories are variations."""

    def told(self, path, body):
        asked, hub = self.asked, self.hub
        name = f"{asked['ownerSlug']}/{asked['modelSlug']}/gguf/{asked['instanceSlug']}"
        repo = hub.repos.get(name)
        kind = [("Content-Type", "application/json")]
        if repo is None:
            self.answer(404, b'{"code": 404, "message": "not found"}', kind)
        elif repo.gated and self.headers["Authorization"] != f"Bearer {hub.token}":
            self.answer(403, b'{"code": 403, "message": "consent"}', kind)
        elif path.endswith("/GetModelInstance"):
            self.answer(200, json.dumps({"id": 1, "versionNumber": 3}).encode(), kind)
        elif path.endswith("/ListModelInstanceVersionFiles"):
            self.answer(
                200, json.dumps({"files": [{"name": one} for one in repo.files], "nextPageToken": ""}).encode(), kind
            )
        elif asked.get("path") not in repo.files:
            self.answer(404, b'{"code": 404, "message": "not found"}', kind)
        else:
            self.answer(302, b"", [("Location", f"{hub.store}/{asked['path']}")])


@contextmanager
def _served(handler: type[_Handler]) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def hugging_face():
    """Hugging Face until the block ends."""
    return _served(_HuggingFace)


def kaggle():
    """Kaggle until the block ends."""
    return _served(_Kaggle)

"""A Graphistry server on loopback that speaks the endpoints which pygraphistry's client calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Request:
    method: str
    path: str
    authorization: str
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Hub:
    """What arrived, and how the server answers: ``refuse`` maps the beginning of a path to a status and a text."""

    requests: list[Request] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    silent: str | None = None
    release: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def paths(self) -> list[str]:
        return [request.path.partition("?")[0] for request in self.requests]

    def answer(self, request: Request) -> tuple[int, dict]:
        path = request.path
        if path.startswith(("/api-token-auth/", "/api/v2/auth/pkey/jwt/", "/api/v2/auth/token/refresh")):
            return 200, {"token": "jwt-of-the-test", "active_organization": {"slug": "somebody"}}
        if path.startswith(("/api-token-verify/", "/api/v2/o/")):
            return 200, {}
        if path == "/api/v2/upload/datasets/":
            return 200, {"success": True, "data": {"dataset_id": "d41d8"}}
        if path.startswith("/api/v2/upload/datasets/d41d8/"):
            return 200, {"success": True}
        if path == "/api/v2/share/link/":
            return 200, {"success": True}
        return 404, {"error": f"no such endpoint: {path}"}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(self.command, self.path, self.headers.get("Authorization", ""), self.rfile.read(length))
            hub.requests.append(request)
            if hub.silent is not None and self.path.startswith(hub.silent):
                hub.arrived.set()
                hub.release.wait(30)
            refused = next((answer for path, answer in hub.refuse.items() if self.path.startswith(path)), None)
            status, text = refused or (0, "")
            if refused is None:
                status, answer = hub.answer(request)
                text = json.dumps(answer)
            payload = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_GET(self) -> None:
            self.serve()

        def do_POST(self) -> None:
            self.serve()

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    for name in ("GRAPHISTRY_PERSONAL_KEY_ID", "GRAPHISTRY_PERSONAL_KEY_SECRET", "GRAPHISTRY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRAPHISTRY_USERNAME", "somebody")
    monkeypatch.setenv("GRAPHISTRY_PASSWORD", "swordfish")
    monkeypatch.setenv("GRAPHISTRY_HOSTNAME", f"127.0.0.1:{hub.port}")
    monkeypatch.setenv("GRAPHISTRY_PROTOCOL", "http")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    hub.release.set()
    server.shutdown()
    server.server_close()
    thread.join()

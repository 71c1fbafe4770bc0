"""A server behind TLS: the certificate is checked, and everything else is as without."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llamatelemetry_jupyter.api.async_client import AsyncLlamaCppClient
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import ServerError

STREAM = (Path(__file__).parent / "recorded" / "chat.sse").read_bytes()
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body, kind = (STREAM, "text/event-stream") if "chat" in self.path else (b'{"tokens":[1]}', "application/json")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    certificate = tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")

    class _Server(HTTPServer):
        def handle_error(self, *args: object) -> None:
            return

    server = _Server(("127.0.0.1", 0), _Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", certificate
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_trusted_server(secure: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with LlamaCppClient(url, timeout_s=10) as client:
        assert client.tokenize("a") == [1]
    with LlamaCppClient(url, timeout_s=10) as client:
        assert client.chat([{"role": "user", "content": "x"}]).finish_reason == "stop"


def test_a_stranger(secure: tuple[str, Path]) -> None:
    url, _ = secure

    async def ask() -> None:
        async with AsyncLlamaCppClient(url, timeout_s=10) as client:
            await client.tokenize("a")

    with pytest.raises(ServerError, match="certificate"):
        LlamaCppClient(url, timeout_s=10).tokenize("a")
    with pytest.raises(ServerError, match="certificate"):
        asyncio.run(ask())

"""Headers read by HTTP range from a server on this machine that speaks what model hosts speak."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llamatelemetry_jupyter import secrets
from llamatelemetry_jupyter.errors import GGUFError, LlamaError, ModelError
from llamatelemetry_jupyter.models import gguf, source


class Host(ThreadingHTTPServer):
    """Serves ``content`` at any path; ``mode`` says how."""

    daemon_threads = True

    def __init__(self, content: bytes, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.mode = content, mode
        self.sent = 0
        self.asked: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Host
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host, content = self.server, self.server.content
        host.asked.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        if host.mode.isdigit():
            self.answer(int(host.mode), b"no")
        elif host.mode == "no ranges":
            self.answer(200, content)
        elif host.mode == "moved" and not self.path.startswith("/cdn"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{host.server_port}/cdn{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
            part = content[first : last + 1]
            total = len(content) + (len(host.asked) if host.mode == "changing" else 0)
            if part:
                self.answer(206, part, f"bytes {first}-{first + len(part) - 1}/{total}")
            else:
                self.answer(416, b"")

    def answer(self, status: int, body: bytes, part: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.server.mode == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        self.server.sent += len(body)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def host(content: bytes, mode: str = "ranges") -> Iterator[Host]:
    server = Host(content, mode)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def content(model_path):
    return model_path.read_bytes()


def test_a_remote_header_is_the_local_one_and_the_weights_stay_where_they_are(content, model_path):
    with host(content) as server:
        remote, local = gguf.read_header(f"{server.url}/m.gguf"), gguf.read_header(model_path)
        assert remote.tensors == local.tensors
        assert remote.metadata == local.metadata
        assert (remote.file_bytes, remote.parameters) == (98_362_432, 134_515_008)
        assert server.sent < len(content) // 20
        assert len(server.asked) <= 4
        assert gguf.read_header(f"{server.url}/m.gguf") is remote  # asked for again: not fetched again
        assert len(server.asked) <= 4
        assert len(gguf.array(remote, "tokenizer.ggml.tokens")) == 49152


def test_an_hf_address_is_a_file_of_a_repository_and_its_token_goes_nowhere_else(content, monkeypatch):
    monkeypatch.setattr(secrets, "_sources", [{"HF_TOKEN": "hf_secret"}.get])
    with host(content, "moved") as server:
        monkeypatch.setattr(source, "_HF_HOST", server.url)
        assert gguf.read_header("hf:owner/repo@v1/folder/a b.gguf").architecture == "llama"
        paths = [(path, token) for path, _, token in server.asked]
        assert paths[0] == ("/owner/repo/resolve/v1/folder/a%20b.gguf", "Bearer hf_secret")
        assert {token for path, token in paths if path.startswith("/cdn")} == {None}
    with pytest.raises(ModelError, match="no address of a file"):
        gguf.read_header("hf:nonsense")


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("no ranges", ModelError, "sends whole files only"),
        ("404", ModelError, "does not exist"),
        ("401", ModelError, "is not public"),
        ("403", ModelError, "is not public"),
        ("500", ModelError, "answers HTTP 500"),
        ("cut", ModelError, "ended too early|cannot be reached"),
        ("changing", ModelError, "has changed"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said(content, mode, error, said):
    with host(content, mode) as server, pytest.raises(error, match=said) as problem:
        gguf.read_header(f"{server.url}/{mode}.gguf")
    assert len(problem.value._render_traceback_()) == 2


@pytest.mark.parametrize("wrong", [b"", b"<html>not a model</html>", b"GGUF\3\0\0\0" + b"\xff" * 100])
def test_a_remote_file_that_is_no_model_is_refused(wrong):
    with host(wrong) as server, pytest.raises(GGUFError):
        gguf.read_header(f"{server.url}/wrong{len(wrong)}.gguf")


def test_credentials_in_an_address_are_not_shown():
    for where in ("https://me:secret@host/m.gguf?token=secret", "https://host/m.gguf#secret", "hf:o/r/m.gguf?secret"):
        assert "secret" not in source.shown(where)
        assert "m.gguf" in source.shown(where)
    assert source.shown("/a?b/m\n.gguf") == "/a?b/m\ufffd.gguf"


def test_nobody_there():
    with host(b"") as server:
        url = server.url
    with pytest.raises(LlamaError, match="cannot be reached") as problem:
        gguf.read_header(f"{url}/gone.gguf")
    assert problem.value.hint == "give the path of a file on this machine"

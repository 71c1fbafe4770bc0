"""Which engine is found, and what it can do."""

from __future__ import annotations

import importlib.util

import fakellama
import pytest

from llamatelemetry_jupyter.errors import EngineError
from llamatelemetry_jupyter.server.runtime import find_runtime


@pytest.fixture(autouse=True)
def nothing_on_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_binary_the_wheel_is_the_engine():
    found = find_runtime()
    assert found.kind == "xllamacpp"
    assert found.version.startswith("xllamacpp 20")


def test_a_binary_on_path_comes_first_and_tells_what_it_can_do(tmp_path):
    program = fakellama.write(tmp_path / "llama-server")
    tool = tmp_path / "llama-quantize"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    found = find_runtime()
    assert (found.kind, found.argv, found.version) == (
        "binary", (str(program),), "llama-server 0.1.0-dev (build 1, commit 7e4c0a9)",
    )  # fmt: skip
    assert {"--no-kv-unified", "-lv", "--no-webui", "-ctk"} <= found.features
    assert "--log-jsonl" not in found.features
    assert found.tools == {"llama-quantize": str(tool)}
    assert find_runtime("xllamacpp").kind == "xllamacpp"


def test_the_environment_names_an_engine(tmp_path, monkeypatch):
    program = fakellama.write(tmp_path / "mine")
    monkeypatch.setenv("LLAMATELEMETRY_ENGINE", str(program))
    assert find_runtime().argv == (str(program),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not a program"),
        ("#!/bin/sh\necho hello\n", "not llama.cpp's server"),
        ("#!/bin/sh\necho 'libcuda.so.1: cannot open shared object file' >&2; exit 127\n", "libcuda.so.1"),
        ("#!/no/such/interpreter\n", "cannot be run"),
    ],
)
def test_what_cannot_serve_is_refused_with_its_reason(tmp_path, content, said):
    path = tmp_path / "engine"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    with pytest.raises(EngineError, match=said) as problem:
        find_runtime(path)
    assert problem.value.hint


def test_without_any_engine_the_hint_is_the_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "xllamacpp" else real(name, *a))
    with pytest.raises(EngineError) as problem:
        find_runtime()
    assert problem.value.hint == '%pip install "llamatelemetry-jupyter[local]"'

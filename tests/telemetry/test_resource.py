"""What a resource tells, and what it does not."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sqlite3
from datetime import datetime, timezone

import psutil
import pytest
from opentelemetry.sdk.resources import Resource

from llamatelemetry_jupyter import environment
from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.telemetry import resource
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import DeviceInfo, ModelRef, ServerHandle, SpanRow

pytestmark = pytest.mark.floor


def handle(**more):
    model = ModelRef("mine:Q4_1", "/home/bob/models/mine.gguf", "ab" * 32, "llama", "Q4_1", 98_000_000)
    known = {"api_key": "sk-planted", "backend": "llama.cpp", "owned": True, "pid": 1, "pid_start": 1.0}
    known |= {"model": model, "slots": 2, "ctx_per_slot": 512, "settings_hash": "f00", "engine": "llama-server b9000"}
    return ServerHandle(name="default", url="http://127.0.0.1:1", **(known | more))


def test_a_kernel_is_known_by_process_and_start_and_nothing_personal_is_told(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/bob/secret project/notes.ipynb")
    told = resource.attributes()
    assert told["service.name"] == "notes"
    assert told["service.instance.id"] == environment.kernel_key()
    assert (told["process.pid"], told["host.arch"]) == (os.getpid(), platform.machine())
    created = datetime.fromisoformat(told["process.creation.time"].replace("Z", "+00:00"))
    theirs = datetime.fromtimestamp(psutil.Process().create_time(), timezone.utc)
    assert abs((created - theirs).total_seconds()) < 1.5  # psutil reads the boot's time in whole seconds
    assert told == resource.attributes()
    text = json.dumps(told)
    for personal in (platform.node(), getpass.getuser() + "@", os.path.expanduser("~") + "/", "secret project", "bob"):
        assert personal not in text


@pytest.mark.parametrize(
    ("environ", "name", "instance"),
    [
        ({}, "notebook", None),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine", None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs,service.instance.id=7,host.name=box"}, "theirs", "7"),
    ],
)
def test_what_the_environment_says_has_the_last_word(monkeypatch, environ, name, instance):
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    made = Resource.create(dict(resource.attributes())).attributes
    assert made["service.name"] == name
    assert made["service.instance.id"] == (instance or environment.kernel_key())
    assert made.get("host.name") == ("box" if instance else None)


def test_a_server_is_told_with_its_model_and_without_its_key_and_folders():
    told = resource.server(handle(), ["/home/bob/bin/llama-server", "--model", "/home/bob/models/mine.gguf"])
    assert told == {
        "llama_cpp.server.name": "default",
        "llama_cpp.engine": "llama-server b9000",
        "llama_cpp.slots": 2,
        "llama_cpp.ctx_per_slot": 512,
        "llama_cpp.settings_hash": "f00",
        "llama_cpp.argv": ["llama-server", "--model", "mine.gguf"],
        "gen_ai.request.model": "mine:Q4_1",
        "llama_cpp.model.sha256": "ab" * 32,
        "llama_cpp.model.architecture": "llama",
        "llama_cpp.model.quant": "Q4_1",
        "llama_cpp.model.file_bytes": 98_000_000,
    }
    bare = resource.server(handle(model=None, slots=None, ctx_per_slot=None, settings_hash=None, engine=None), None)
    assert bare == {"llama_cpp.server.name": "default", "llama_cpp.engine": "llama.cpp"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--ctx-size", "512", "--mlock"], ["--ctx-size", "512", "--mlock"]),
        (["--api-key", "sk-planted"], ["--api-key", "***"]),
        (["--api-key-file", "/home/bob/key"], ["--api-key-file", "***"]),
        (["--hf-token=hf_planted"], ["--hf-token=***"]),
        (["--lora=/home/bob/a.gguf"], ["--lora=a.gguf"]),
        (["--rpc", "user:pw@10.0.0.1:50052/x/"], ["--rpc", "x"]),
        (["--rpc", "user:pw@10.0.0.1:50052"], ["--rpc", "10.0.0.1:50052"]),
        (["C:\\Users\\bob\\llama-server.exe"], ["llama-server.exe"]),
        (["--chat-template", "{% for m in messages %}" * 20], ["--chat-template", "…"]),
        (["--grammar", "root ::=\n planted"], ["--grammar", "…"]),
        (["--slot-save-path", "/"], ["--slot-save-path", ""]),
        ([], []),
    ],
)
def test_arguments_are_told_without_paths_secrets_and_texts(given, told):
    assert resource.argv(given) == told


def test_gpus_are_told_by_uuid_with_driver_and_cuda_and_none_are_nothing():
    two = [DeviceInfo("GPU-1", "Tesla T4", 1, 1), DeviceInfo("GPU-2", "Tesla T4", 1, 1)]
    assert resource.gpus(two, "550.54.15", "12.4") == {
        "llama_cpp.gpu.id": ["GPU-1", "GPU-2"],
        "llama_cpp.gpu.name": ["Tesla T4", "Tesla T4"],
        "llama_cpp.gpu.driver_version": "550.54.15",
        "llama_cpp.gpu.cuda_version": "12.4",
    }
    assert resource.gpus([], None, None) == {}


def test_descriptions_are_in_the_sessions_file_for_any_tool_and_are_read_back(tmp_path):
    path = tmp_path / "s.sqlite"
    store = SpanStore(path)
    store.describe("kernel", "1-2", {"process.pid": 1})
    store.append(SpanRow("1" * 32, "2" * 16, None, "x", "internal", now_ns(), now_ns()))
    store.flush()
    store.describe("server", "default", {"llama_cpp.argv": ["llama-server"]})
    store.close()
    with sqlite3.connect(path) as connection:
        parts = ", ".join(f"json_extract(value, '$.{part}')" for part in ("kind", "name", "told"))
        found = connection.execute(f"select {parts} from about order by json_extract(value, '$.t_ns')").fetchall()
    connection.close()
    assert found == [
        ("kernel", "1-2", '{"process.pid":1}'),
        ("server", "default", '{"llama_cpp.argv":["llama-server"]}'),
    ]
    again = SpanStore(path)
    assert again.descriptions() == store.descriptions()
    again.close()


def test_nothing_is_described_into_a_folder_that_cannot_be_written_and_nothing_is_raised(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = SpanStore(tmp_path / "file" / "s.sqlite")
    store.describe("kernel", "1-2", {"a": 1})
    store.append(SpanRow("1" * 32, "2" * 16, None, "x", "internal", now_ns(), now_ns()))
    store.close()
    assert [one.told for one in store.descriptions()] == [{"a": 1}]
    assert caplog.text.count("spans are kept in memory only") == 1

"""A build from a download host into the cache: whole, checked, tried, and then used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys

import builds
import pytest
from downloadhost import File, download_host

from llamatelemetry_jupyter import _https
from llamatelemetry_jupyter.errors import EngineError, FetchError
from llamatelemetry_jupyter.server import engines, install
from llamatelemetry_jupyter.server.machine import Machine
from llamatelemetry_jupyter.server.runtime import candidates, devices, find_runtime
from llamatelemetry_jupyter.values import DeviceInfo

HERE = Machine("linux", "x86_64", "2.39", "570.1", (DeviceInfo("GPU-0", "Tesla T4", 1, 1, "7.5"),), True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(_https, "_WAIT_S", 0.0)


@pytest.fixture
def host():
    with download_host() as running:
        yield running


@pytest.fixture
def publish(host, monkeypatch):
    """``publish(id, backend, {name: content}, known=True)``: adds a build to the host and to the lock file."""
    rows = []

    def add(id_, backend, contents, program=("llama-server",), known=True):
        for name, content in contents.items():
            host.files[f"/{id_}/{name}"] = File(content, etag=f'"{hashlib.md5(content).hexdigest()}"')
        rows.append(
            {
                "id": id_, "backend": backend, "version": "b7", "program": list(program), "publisher": "test", "licence": "MIT",
                "arch": "x86_64", "glibc": "2.17", "driver": "500" if backend == "cuda" else None, "gpu": None,
                "files": [
                    {
                        "url": f"{host.url}/{id_}/{name}",
                        "bytes": len(content) if known else None,
                        "sha256": hashlib.sha256(content).hexdigest() if known else None,
                    }
                    for name, content in contents.items()
                ],
            }
        )  # fmt: skip
        entries = engines.parse(json.dumps({"entries": rows}))
        monkeypatch.setattr(engines, "entries", lambda: entries)

    return add


def put(name, **options):
    return install.install(install.plan(name, HERE, **options), lambda *_: None)


def in_cache():
    return sorted(path.name for path in engines.folder().iterdir() if not path.name.endswith(".lock"))


def test_two_archives_become_one_build_that_was_tried(publish, tmp_path, host):
    server = builds.program(tmp_path, [builds.DEVICE])
    publish(
        "gpu-b7", "cuda",
        {
            "llama.tar.gz": builds.tar(("llama-b7/llama-server", server), ("llama-b7/libggml.so", b"1"), ("llama-b7/llama-quantize", b"#!")),
            "cudart.tar.gz": builds.tar(("cudart/libcudart.so.12", b"2"), ("cudart/README", b"3")),
        },
    )  # fmt: skip
    build = put("cuda")
    assert (build.devices, build.problem, build.verified) == ((builds.DEVICE,), None, True)
    program = build.folder / build.program[0]
    assert (program.parent / "libcudart.so.12").read_bytes() == b"2"  # its run path looks beside the program only
    assert in_cache() == ["gpu-b7"]
    assert engines.installed() == (build,)
    found = find_runtime("cuda")
    assert found == find_runtime()
    assert (found.argv, found.version) == ((str(program),), "gpu-b7")
    assert set(found.tools) == {"llama-quantize"}
    assert devices(found) == (builds.DEVICE,)
    asked = len(host.hits)
    assert put("gpu-b7") == build
    assert len(host.hits) == asked


def test_a_single_file_is_served_by_its_subcommand(publish, tmp_path):
    publish(
        "app-b7", "cuda", {"llama-app.zst": builds.zst(builds.program(tmp_path, [builds.DEVICE]))}, ("llama", "serve")
    )
    build = put("cuda")
    assert build.argv == (str(build.folder / "0" / "llama"), "serve")
    assert "--model" in find_runtime("cuda").features


def test_the_wheel_stays_before_a_build_for_the_cpu_and_behind_one_that_sees_a_gpu(publish, tmp_path):
    publish("c-b7", "cpu", {"a.tar.gz": builds.tar(("x/llama-server", builds.program(tmp_path)))})
    publish("g-b7", "cuda", {"b.tar.gz": builds.tar(("x/llama-server", builds.program(tmp_path, [builds.DEVICE])))})
    put("cpu")
    assert find_runtime().kind == "xllamacpp"
    assert find_runtime("cpu").version == "c-b7"
    gpu = put("cuda")
    assert find_runtime().version == "g-b7"
    assert [c.where for c in candidates()] == [
        "llama-server on PATH", "installed: g-b7", "xllamacpp package", "installed: c-b7",
    ]  # fmt: skip
    # The same cache on a machine whose GPU is gone: nothing is recorded as wrong, but the wheel is used.
    (gpu.folder / gpu.program[0]).write_bytes(builds.program(tmp_path))
    assert find_runtime().kind == "xllamacpp"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"broken": "libcuda.so.1: cannot open shared object file"}, "libcuda.so.1"),
        ({"devices": []}, "sees no GPU"),
    ],
)
def test_a_build_that_cannot_run_here_says_so_and_is_never_chosen(publish, tmp_path, given, said, host):
    publish("bad-b7", "cuda", {"a.tar.gz": builds.tar(("x/llama-server", builds.program(tmp_path, **given)))})
    assert said in put("cuda").problem
    assert find_runtime().kind == "xllamacpp"
    with pytest.raises(EngineError, match=said):
        find_runtime("cuda")
    with pytest.raises(EngineError, match="was installed and does not run here"):
        install.plan("cuda", HERE)
    # Once its cause is gone, trying it again is enough.
    build = engines.installed()[0]
    (build.folder / build.program[0]).write_bytes(builds.program(tmp_path, [builds.DEVICE]))
    assert put("bad-b7").problem is None
    assert find_runtime().version == "bad-b7"


def test_a_wrong_hash_a_damaged_and_an_empty_archive_leave_nothing(publish, tmp_path, host):
    good = builds.tar(("x/llama-server", builds.program(tmp_path)))
    publish("c-b7", "cpu", {"a.tar.gz": good})
    host.files["/c-b7/a.tar.gz"].content = good[:-9] + b"different"
    with pytest.raises(FetchError, match="not the file that was expected") as problem:
        put("cpu")
    assert problem.value.hint == "%llama install --engine cpu --from FOLDER"
    for content in (good[: len(good) // 2], b"<html>", builds.tar(("x/readme", b"no server"))):
        publish("u-b7", "vulkan", {"a.tar.gz": content}, known=False)
        with pytest.raises((FetchError, EngineError)):
            put("u-b7")
    assert engines.installed() == ()
    assert not [name for name in in_cache() if not name.startswith(".") and name != "seen.json"]
    host.files["/c-b7/a.tar.gz"].content = good
    assert put("cpu").problem is None


def test_an_unverified_file_is_recorded_and_must_never_change(publish, tmp_path, host):
    first = builds.tar(("x/llama-server", builds.program(tmp_path)))
    publish("u-b7", "cpu", {"a.tar.gz": first}, known=False)
    assert "unverified: no SHA-256 is known" in install.plan("cpu", HERE).describe()
    build = put("cpu")
    assert not build.verified
    assert build.origins[0].sha256 == hashlib.sha256(first).hexdigest()
    assert find_runtime("cpu").version == "u-b7 (unverified)"
    shutil.rmtree(build.folder)
    assert put("cpu").origins == build.origins
    shutil.rmtree(build.folder)
    host.files["/u-b7/a.tar.gz"] = File(builds.tar(("x/llama-server", b"#!/bin/sh\nrm -rf ~\n")), etag='"new"')
    with pytest.raises(FetchError, match="has changed: SHA-256") as problem:
        put("cpu")
    assert "seen.json" in problem.value.hint
    assert engines.installed() == ()


def test_a_killed_install_leaves_nothing_under_the_final_name_and_the_next_goes_on(publish, tmp_path, host):
    content = builds.tar(("x/llama-server", builds.program(tmp_path)), ("x/big.so", os.urandom(3 << 20)))
    publish("c-b7", "cpu", {"a.tar.gz": content})
    for stage in ("downloading", "unpacking"):

        def die(step, stage=stage):
            if step.what.startswith(stage) and step.done:
                os._exit(9)

        if (child := os.fork()) == 0:
            try:
                install.install(install.plan("cpu", HERE), die)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert engines.installed() == ()
        assert [name for name in in_cache() if not name.startswith(".")] == []
    assert put("cpu").problem is None
    assert in_cache() == ["c-b7"]
    assert any(asked for _, _, asked, _ in host.hits)


def test_two_processes_install_it_once(publish, tmp_path, host):
    publish("c-b7", "cpu", {"a.tar.gz": builds.tar(("x/llama-server", builds.program(tmp_path)))})
    children = []
    for _ in range(2):
        if (child := os.fork()) == 0:
            try:
                os._exit(0 if put("cpu").problem is None else 2)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert sum(method == "GET" for method, *_ in host.hits) == 1
    assert in_cache() == ["c-b7"]


# ------------------------------------------------------------------------------------------------- a folder of files


def test_without_a_network_the_files_come_from_a_folder(publish, tmp_path, host):
    content = builds.zst(builds.program(tmp_path, [builds.DEVICE]))
    publish("other-b7", "cuda", {"llama-app.zst": builds.zst(b"for another GPU")}, ("llama", "serve"))
    publish("app-b7", "cuda", {"llama-app.zst": content}, ("llama", "serve"))
    (tmp_path / "input" / "files").mkdir(parents=True)
    (tmp_path / "input" / "files" / "llama-app.zst").write_bytes(content)
    build = put("cuda", local=tmp_path / "input")
    assert (build.id, build.verified, build.problem) == ("app-b7", True, None)  # by the hash: their names are equal
    assert host.hits == []


def test_archives_and_unpacked_builds_of_no_known_release(tmp_path):
    server = builds.program(tmp_path, [builds.DEVICE])
    packed, unpacked = tmp_path / "My builds", tmp_path / "unpacked" / "bin"
    packed.mkdir()
    unpacked.mkdir(parents=True)
    (packed / "llama-b99-bin.tar.gz").write_bytes(builds.tar(("llama-b99/llama-server", server)))
    (unpacked / "llama-server").write_bytes(server)  # a dataset keeps no execute permission
    (unpacked / "libggml.so").write_bytes(b"lib")
    first = put("cuda", local=packed)
    second = put("cuda", local=tmp_path / "unpacked")
    assert first.id.startswith("my-builds-cuda-")
    assert (first.problem, second.problem) == (None, None)
    assert not first.verified
    assert not second.verified
    assert second.origins[0].sha256 == hashlib.sha256(server).hexdigest()
    assert find_runtime(second.id).version == f"{second.id} (unverified)"


def test_folders_that_hold_no_engine(tmp_path):
    for folder, said in ((tmp_path / "none", "not a folder"), (tmp_path, "neither an archive")):
        with pytest.raises(EngineError, match=said) as problem:
            put("cuda", local=folder)
        assert problem.value.hint
    with pytest.raises(EngineError, match=r"does not hold llama-app\.zst"):
        put("llama-app-b9940-sm75", local=tmp_path)


# ------------------------------------------------------------------------------------------------------ it is an engine


@pytest.mark.engine
def test_an_installed_build_serves(publish, tmp_path, model_path):
    from llamatelemetry_jupyter.server.process import ServerManager
    from llamatelemetry_jupyter.server.settings import ServerSettings

    publish("app-b7", "cpu", {"llama-app.zst": builds.zst(builds.program(tmp_path))}, ("llama", "serve"))
    put("cpu")
    manager = ServerManager(name="installed")
    try:
        handle = manager.start(ServerSettings(model=str(model_path), ctx=512), find_runtime("cpu"))
        assert handle.engine == "app-b7"
        assert handle.slots == 1
    finally:
        manager.stop()


def test_the_wheel_is_asked_once_and_by_its_attributes(monkeypatch, tmp_path):
    from llamatelemetry_jupyter.server import wheel
    from llamatelemetry_jupyter.server.settings import ServerSettings

    loaded = "xllamacpp" in sys.modules  # another test of this run may have loaded it here
    found = find_runtime("xllamacpp")
    wanted = ServerSettings(threads=2, batch=64, ubatch=64, seed=1, gpu_layers=1, embeddings=True, warmup=False)
    assert set(wanted.to_params()) <= found.features
    assert ("xllamacpp" in sys.modules) == loaded
    monkeypatch.setattr(wheel, "ask", lambda: pytest.fail("asked again"))
    assert find_runtime("xllamacpp") == found
    monkeypatch.setattr(wheel, "version", lambda: "another")
    with pytest.raises(pytest.fail.Exception):
        find_runtime("xllamacpp")


def test_a_wheel_that_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"libcudart\.so\.12"):
        find_runtime("xllamacpp")

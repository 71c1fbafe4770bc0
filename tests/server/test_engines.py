"""The lock file, which build fits which machine, and what is kept of an installed one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llamatelemetry_jupyter.errors import EngineError
from llamatelemetry_jupyter.server import engines, install
from llamatelemetry_jupyter.server.engines import Build, Origin
from llamatelemetry_jupyter.server.machine import Machine, version_key
from llamatelemetry_jupyter.values import DeviceInfo

DOCS = Path(__file__).resolve().parents[2] / "docs" / "engines.md"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))


def machine(*capabilities, glibc="2.39", driver="570.86", arch="x86_64", vulkan=True):
    gpus = tuple(DeviceInfo(f"GPU-{i}", "GPU", 1, 1, c) for i, c in enumerate(capabilities))
    return Machine("linux", arch, glibc, driver if gpus else None, gpus, vulkan)


KAGGLE = machine("7.5", "7.5", glibc="2.35", driver="535.104.05")


def test_every_entry_of_the_lock_file_is_whole():
    entries = engines.entries()
    assert len({entry.id for entry in entries}) == len(entries)
    assert {entry.backend for entry in entries} == set(engines.BACKENDS)
    for entry in entries:
        assert entry.licence.startswith("MIT")
        assert entry.arch in ("x86_64", "aarch64")
        assert entry.program[0] in ("llama", "llama-server")
        assert entry.glibc and version_key(entry.glibc) >= (2, 17)
        for file in entry.files:
            assert file.url.startswith(("https://github.com/ggml-org/", "https://huggingface.co/buckets/ggml-org/"))
            assert entry.version in file.url
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    hashes = [file.sha256 for entry in entries for file in entry.files]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("name", "here", "chosen"),
    [
        ("cuda", KAGGLE, "llama-app-b9940-sm75"),
        ("cuda", machine("8.9"), "llama-app-b9940-sm89"),
        ("cuda", machine("7.5", "8.6"), "official-b11476-cuda12"),  # code for one kind of GPU does not run on two
        ("cuda", machine("8.7"), "official-b11476-cuda12"),
        ("cpu", machine(), "official-b11476-cpu-x64"),
        ("cpu", machine(arch="aarch64"), "official-b11476-cpu-arm64"),
        ("vulkan", machine(), "official-b11476-vulkan-x64"),
    ],
)
def test_the_build_that_fits_is_chosen(name, here, chosen, monkeypatch):
    monkeypatch.setattr(install, "remote_size", lambda source, hint: 100)
    plan = install.plan(name, here)
    assert plan.entry.id == chosen
    told = plan.describe()
    for file in plan.entry.files:
        assert f"from: {file.url}" in told
        assert file.sha256 in told
    assert f"licence: {plan.entry.licence}" in told
    assert "size: " in told
    assert plan.caution is None


@pytest.mark.parametrize(
    ("name", "here", "said"),
    [
        ("cuda", machine(), "needs an NVIDIA GPU with its driver"),
        ("cuda", machine("7.5", glibc="2.31"), "needs glibc 2.35, here is 2.31"),
        ("cuda", machine("7.5", driver="470.82"), "needs driver 525.60.13, here is 470.82"),
        ("cuda", machine("6.0"), "is for compute capability 7.5"),
        ("cpu", machine(glibc=None), "needs glibc 2.35, here is another C library"),
        ("cpu", replace(machine(), system="darwin"), "is for Linux on x86_64, this is darwin"),
        ("vulkan", machine(vulkan=False), "libvulkan.so.1"),
        ("rocm", machine(), "there is no engine 'rocm'"),
    ],
)
def test_nothing_fits_and_every_reason_is_said(name, here, said):
    with pytest.raises(EngineError, match=re.escape(said)) as problem:
        install.plan(name, here)
    assert problem.value.hint
    assert "\n" not in str(problem.value)


def test_a_build_named_by_its_id_is_taken_with_a_caution(monkeypatch):
    monkeypatch.setattr(install, "remote_size", lambda source, hint: None)
    plan = install.plan("llama-app-b9940-sm75", machine())
    assert "caution: needs an NVIDIA GPU" in plan.describe()
    assert "size unknown" in plan.describe()


def put(id_, backend, version="b1", problem=None, verified=True):
    folder = engines.folder() / id_
    folder.mkdir(parents=True)
    (folder / "llama-server").write_text("")
    origin = Origin("https://github.com/x", "ab" * 32, 5, verified)
    build = Build(id_, backend, version, folder, ("llama-server",), (origin,), ("CUDA0: T4",), problem)
    build.save()
    return build


def test_installed_builds_come_back_as_they_were_saved_gpus_first_newest_first():
    builds = [put("c", "cpu"), put("old", "cuda", "b9"), put("new", "cuda", "b10000", verified=False)]
    assert engines.installed() == (builds[2], builds[1], builds[0])
    assert builds[2].label == "new (unverified)"
    assert engines.named("cuda") == builds[2]
    assert engines.named("old") == builds[1]
    assert engines.named("/usr/bin/llama-server") is None
    with pytest.raises(EngineError, match="no engine 'vulkan'") as problem:
        engines.named("vulkan")
    assert problem.value.hint == "%llama install --engine vulkan"


def test_a_build_with_a_problem_is_passed_over_and_named_with_it():
    put("bad", "cuda", "b2", problem="libcuda.so.1 is not there")
    with pytest.raises(EngineError, match=r"bad does not run here: libcuda\.so\.1"):
        engines.named("cuda")
    good = put("good", "cuda", "b1")
    assert engines.named("cuda") == good


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1}', '{"id": "x", "backend": "quantum"}'])
def test_damaged_builds_are_left_out(text):
    put("c", "cpu")
    (engines.folder() / "c" / engines.MANIFEST).write_text(text)
    assert engines.installed() == ()


def test_the_documentation_lists_every_build():
    table = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    expected = [
        f"| `{e.id}` | {e.backend} | {e.arch} | {e.glibc} | {e.driver or ''} | {e.gpu or ''} | {', '.join(f.filename for f in e.files)} |"
        for e in engines.entries()
    ]
    assert [line for line in table if line.split("`")[1] in {e.id for e in engines.entries()}] == expected

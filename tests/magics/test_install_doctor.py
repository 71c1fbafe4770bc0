"""%llama install and %llama doctor, as they are typed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import builds
import fakellama
import pytest
from downloadhost import File, download_host

from llamatelemetry_jupyter import environment
from llamatelemetry_jupyter.magics import checks, complete
from llamatelemetry_jupyter.server import engines
from llamatelemetry_jupyter.server.machine import Machine
from llamatelemetry_jupyter.values import DeviceInfo

LOAD = "%load_ext llamatelemetry"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def lock(tmp_path):
    """A cell that puts one build for the CPU, on a host of this machine, into the lock file."""
    content = builds.tar(("b7/llama-server", builds.program(tmp_path)))
    with download_host() as host:
        host.files["/llama-b7.tar.gz"] = File(content)
        row = {
            "id": "test-b7", "backend": "cpu", "version": "b7", "program": ["llama-server"], "publisher": "somebody",
            "licence": "MIT", "arch": Machine.here().arch, "glibc": None, "driver": None, "gpu": None,
            "files": [{"url": f"{host.url}/llama-b7.tar.gz", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}],
        }  # fmt: skip
        yield (
            "from llamatelemetry_jupyter.server import engines\n"
            f"_lock = engines.parse({json.dumps({'entries': [row]})!r})\nengines.entries = lambda: _lock"
        )


@pytest.mark.floor
def test_install_says_what_it_would_do_asks_and_does_it(ipython, lock):
    printed = ipython(
        LOAD,
        lock,
        "%llama install",
        "import builtins\nbuiltins.input = lambda prompt: print(prompt) or 'no'",
        "%llama install --engine cpu",
        "print([b.id for b in engines.installed()])",
        "builtins.input = lambda prompt: 'y'",
        "%llama install --engine cpu",
        "%llama install --engine cpu --yes",
        "from llamatelemetry_jupyter.server.runtime import find_runtime\nprint(find_runtime('cpu').version)",
        "%llama install --list",
    )
    lines = printed.splitlines()
    assert any(re.search(r"test-b7 +cpu +[\d.]+ KiB +known +MIT +fits", line) for line in lines)
    asked = next(i for i, line in enumerate(lines) if "Download and install test-b7? [y/N]" in line)
    before = "\n".join(lines[:asked])
    for said in ("from: http://127.0.0.1", "licence: MIT", "size: ", "SHA-256: ", "why: linux", "to: "):
        assert said in before
    assert lines[asked + 1 : asked + 3] == ["nothing was installed", "[]"]
    assert "installed: test-b7 · runs on the CPU · SHA-256 as expected · %llama start --engine cpu" in lines
    assert "already installed: test-b7" in printed
    assert "\ntest-b7\n" in printed
    assert re.search(r"test-b7 .* installed", lines[-1])
    assert "STOPPED" not in printed


@pytest.mark.floor
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama install --engine rocm", ["no engine 'rocm'", "try: %llama install --list"]),
        ("%llama install --engine cpu --from /no/folder", ["/no/folder is not a folder", "try: %llama install --engine cpu --from"]),
        ("%llama install --engin cpu", ["unknown option --engin", "did you mean --engine?"]),
        ("%llama start --engine cuda", ["no engine 'cuda' is installed", "try: %llama install --engine cuda"]),
        ("%llama doctor --on", ["unknown option --on"]),
    ],
)  # fmt: skip
def test_bad_input_is_two_lines(refused, cell, says):
    refused(cell, says)


@pytest.mark.parametrize("batch", [True, False])
def test_nobody_to_ask_is_an_error_that_names_yes(ipython, lock, monkeypatch, batch):
    if batch:
        monkeypatch.setenv("LLAMATELEMETRY_BATCH", "1")
    printed = ipython(LOAD, lock, "%llama install --engine cpu", "print(engines.installed())")
    assert "CommandError: nobody is there to confirm it" in printed
    assert "try: %llama install --engine cpu --yes" in printed
    assert printed.endswith("()\n")


@pytest.mark.floor
def test_doctor_is_a_table_that_loads_nothing_heavy(ipython):
    heavy = "numpy pandas pyarrow plotly graphistry requests httpx anywidget opentelemetry.sdk pynvml xllamacpp".split()
    printed = ipython(
        f"import sys\nbefore = set(sys.modules)\n{LOAD}",
        "%llama doctor",
        f"print([m for m in {heavy} if m in set(sys.modules) - before])",
        "print(_1._repr_html_()[:14] if '_1' in dir() else _._repr_html_()[:14])",
    )
    assert "\n[]\n" in printed
    for topic in (
        "engine",
        "backends",
        "GPU",
        "system",
        "packages",
        "ports",
        "runtime folder",
        "cache",
        "data",
        "sampler",
        "internet",
    ):
        assert re.search(rf"^{topic} +(ok|warn|missing) ", printed, re.MULTILINE), printed
    assert "(used: the first in the order)" in printed
    assert "not asked" in printed
    assert "STOPPED" not in printed


# -------------------------------------------------------------------------------------------------------------- checks


def look(topic, session=None):
    return [(c.status, c.what, c.fix) for c in checks.run_all(session) if c.topic == topic]


def gpu_machine():
    return Machine(
        "linux", "x86_64", "2.39", "570.1", (DeviceInfo("GPU-0", "Tesla T4", 16 << 30, 15 << 30, "7.5"),), True
    )


def test_an_engine_for_the_cpu_beside_a_gpu_is_the_first_thing_to_say(monkeypatch):
    monkeypatch.setattr(checks.Machine, "here", classmethod(lambda cls: gpu_machine()))
    [(status, what, fix)] = look("backends")
    assert (status, fix) == ("warn", "%llama install --engine cuda")
    assert "the GPU would not be used" in what
    assert look("GPU") == [("ok", "Tesla T4, 15.0 GiB free of 16.0 GiB, compute capability 7.5", "")]
    assert look("driver") == [("ok", "NVIDIA 570.1", "")]


def test_without_any_engine_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(checks.runtime.wheel, "version", lambda: None)
    [(status, _, fix)] = look("engine")
    assert (status, fix) == ("missing", "%llama install --engine cpu")


def test_an_engine_that_would_be_chosen_and_cannot_run_is_named_and_nothing_else_is_promised(monkeypatch, tmp_path):
    broken = tmp_path / "llama-server"
    broken.write_bytes(builds.program(tmp_path, broken="libgomp.so.1: cannot open shared object file"))
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [(status, what, fix)] = look("engine")
    assert status == "warn"
    assert "libgomp.so.1" in what
    assert fix == f"!{broken} --help"


def test_every_engine_is_listed_with_what_starts_it(monkeypatch, tmp_path):
    program = fakellama.write(tmp_path / "llama-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    first, second = look("engine")
    assert first[1].startswith("llama-server on PATH: llama-server 0.1.0-dev")
    assert "(used: " in first[1]
    assert "%llama start --engine xllamacpp" in second[1]
    assert str(program) not in second[1]


def test_unverified_and_broken_builds_are_told(tmp_path):
    for name, problem in (("good", None), ("bad", "libcuda.so.1 is not there")):
        folder = engines.folder() / name
        folder.mkdir(parents=True)
        (folder / "llama-server").write_bytes(builds.program(tmp_path))
        (folder / "llama-server").chmod(0o755)
        origin = engines.Origin("https://x", "cd" * 32, 1, False)
        engines.Build(name, "cpu", "b1", folder, ("llama-server",), (origin,), (), problem).save()
    told = look("engine")
    assert ("warn", "bad: libcuda.so.1 is not there", f"!rm -r {engines.folder() / 'bad'}") in told
    assert any("good is unverified: SHA-256 cdcdcdcdcdcdcdcd…" in what for _, what, _ in told)


def test_folders_open_to_others_and_folders_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(checks.environment, "runtime_dir", lambda: tmp_path / "run")
    (tmp_path / "run").chmod(0o755)
    assert look("runtime folder") == [
        ("warn", f"{tmp_path / 'run'} is open to others (0755)", f"!chmod 700 {tmp_path / 'run'}")
    ]
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", "/proc/cache")
    [(status, what, fix)] = look("cache")
    assert (status, fix.split("=")[0]) == ("warn", "%env LLAMATELEMETRY_CACHE")
    assert "cannot be written" in what


def test_a_runtime_folder_of_somebody_else(monkeypatch):
    def refuse():
        raise PermissionError("/tmp/x belongs to another user")

    monkeypatch.setattr(environment, "runtime_dir", refuse)
    [(status, what, fix)] = look("runtime folder")
    assert (status, what) == ("warn", "/tmp/x belongs to another user")
    assert fix.startswith("%env LLAMATELEMETRY_RUNTIME_DIR")


def test_a_server_whose_kernel_is_gone_is_found(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as left:
        start = environment.process_start(left.pid)
        state = {"pid": left.pid, "pid_start": start}
        alive = f"{os.getpid()}-{environment.process_start(os.getpid()):.0f}"
        folder = environment.runtime_dir()
        (folder / f"{alive}.default.server.json").write_text(json.dumps(state))
        assert look("servers") == []  # its kernel is this one
        (folder / "999999999-1.default.server.json").write_text(json.dumps(state))
        (folder / "999999999-1.other.server.json").write_text("not json")
        assert look("servers") == [("warn", f"left by kernels that are gone: pid {left.pid}", "%llama stop --orphans")]
        left.communicate(b"\n")
    assert look("servers") == []


def test_a_check_that_fails_is_a_row(monkeypatch):
    def fail():
        raise OSError("no such thing")

    monkeypatch.setattr(checks, "_loopback", fail)
    assert look("doctor") == [("warn", "a check failed: no such thing", "")]
    assert look("packages")


def test_missing_packages_and_batch_runs(monkeypatch):
    version = checks._version
    monkeypatch.setattr(checks, "_version", lambda name: None if name == "anywidget" else version(name))
    assert ("missing", "anywidget", "%pip install anywidget") in look("packages")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    told = "\n".join(what for _, what, _ in look("environment"))
    assert "kaggle" in told
    assert "batch run" in told
    assert "LLAMA_ARG_CTX_SIZE: kept from the engine" in told
    assert "Settings → Accelerator" in look("GPU")[0][1]


# ---------------------------------------------------------------------------------------------------------------- Tab


@pytest.mark.parametrize(
    ("line", "symbol", "expected"),
    [
        ("%llama do", "do", ["doctor"]),
        ("%llama ins", "ins", ["install"]),
        ("%llama install --engine ", "", list(engines.names())),
        ("%llama install --engine cu", "cu", ["cuda"]),
        ("%llama install --from ", "", []),
        ("%llama install --y", "--y", ["--yes"]),
        ("%llama start --engine x", "x", ["xllamacpp"]),
        ("%llama doctor --o", "--o", ["--online"]),
    ],
)
def test_tab(line, symbol, expected):
    assert complete.complete(None, line, symbol) == expected

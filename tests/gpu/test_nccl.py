"""NCCL's library, compiled here as a file with its one function, and what an engine says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamatelemetry_jupyter.gpu.nccl import Nccl, found, mapped_by, use, version_text, wheels, wish_of


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder of packages with NVIDIA's wheel in it: a real shared library that answers as NCCL 2.21.5."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("site-packages")
    path = folder / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    path.parent.mkdir(parents=True)
    source = folder / "nccl.c"
    source.write_text("int ncclGetVersion(int *version) { *version = 22105; return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def test_a_wheels_library_is_found_and_asked_without_being_loaded_here(library):
    folder = library.parents[3]
    assert wheels([str(folder), str(folder), "/nowhere"]) == [str(library)]
    assert found([str(folder)]) == Nccl(str(library), "2.21.5")
    assert "libnccl" not in Path("/proc/self/maps").read_text()


def test_a_library_that_does_not_load_is_there_without_a_version(tmp_path):
    path = tmp_path / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    path.parent.mkdir(parents=True)
    path.write_text("not a library")
    assert found([str(tmp_path)]) == Nccl(str(path), None)


@pytest.mark.floor
def test_without_a_library_there_is_none():
    assert found(["/nowhere"]) is None


def test_a_process_that_has_loaded_it_is_seen_by_its_maps_with_its_wish(library):
    code = f"import ctypes; ctypes.CDLL({str(library)!r}); print(flush=True); input()"
    environ = {**os.environ, "GGML_CUDA_ALLREDUCE": "internal"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as child:
        child.stdout.readline()
        path = mapped_by(child.pid)
        assert path == str(library)
        assert found([], mapped=path).version == "2.21.5"
        assert wish_of(child.pid) == "internal"
        child.stdin.close()
    assert (mapped_by(os.getpid()), mapped_by(2**22 + 1), wish_of(2**22 + 1), wish_of(os.getpid())) == (None,) * 4


@pytest.mark.parametrize(("number", "text"), [(22105, "2.21.5"), (20908, "2.9.8"), (2804, "2.8.4"), (23203, "2.32.3")])
def test_versions_read_as_people_write_them(number, text):
    assert version_text(number) == text


NOT_COMPILED = "0.01.234.567 W NCCL not compiled in; falling back to internal AllReduce.  Recompile with\n"


@pytest.mark.parametrize(
    ("gpus", "mode", "mapped", "log", "wish", "used", "why"),
    [
        (0, None, None, "", None, False, "no GPU"),
        (1, "tensor", "/lib/libnccl.so.2", "", None, False, "one GPU"),
        (2, None, "/lib/libnccl.so.2", "", None, False, "split mode layer"),
        (2, "row", None, "", None, False, "split mode row"),
        (2, "tensor", None, NOT_COMPILED, None, False, "NCCL not compiled in"),
        (4, "tensor", "/lib/libnccl.so.2", "NCCL init failed (unhandled system error); falling", None, False, "system error"),
        (2, "tensor", "/lib/libnccl.so.2", "", "internal", False, "GGML_CUDA_ALLREDUCE=internal"),
        (2, "tensor", "/lib/libnccl.so.2", "", "nccl", True, "has loaded"),
        (2, "tensor", None, "", None, None, "does not say"),
        # A model's template may hold such a line too.
        (2, "tensor", "/lib/libnccl.so.2", f"chat template, example_format: '{NOT_COMPILED}'", None, True, "has loaded"),
    ],
)  # fmt: skip
def test_whether_an_engine_uses_it(gpus, mode, mapped, log, wish, used, why):
    answer = use(gpus, mode, mapped, log, wish)
    assert answer.used is used
    assert why in answer.why

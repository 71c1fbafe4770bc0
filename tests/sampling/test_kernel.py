"""What a kernel's libraries hold, on its way to the sampler and into the balance of a GPU."""

from __future__ import annotations

import stat
import sys

import pytest
from gpu.faketorch import UUIDS, Torch

from llamatelemetry_jupyter.gpu.owners import Held
from llamatelemetry_jupyter.sampling.kernel import KernelFile, publish

DEVICES = (f"GPU-{UUIDS[0]}", f"GPU-{UUIDS[1]}")


@pytest.fixture
def torch(monkeypatch):
    """A PyTorch in this kernel."""
    made = Torch(0, 0)
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


@pytest.mark.floor
def test_what_the_kernel_writes_its_sampler_reads(torch, tmp_path):
    file = KernelFile(tmp_path, "1-2")
    publish(tmp_path, "1-2")
    assert list(tmp_path.iterdir()) == []  # a kernel that holds nothing leaves no file
    torch.reserved = [700, 300]
    publish(tmp_path, "1-2")
    path = tmp_path / "1-2.kernel.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.held(d, DEVICES) for d in DEVICES] == [(Held("torch", 700),), (Held("torch", 300),)]
    written = path.stat().st_mtime_ns, path.stat().st_ino
    publish(tmp_path, "1-2")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written  # unchanged is not written
    torch.reserved = [0, 0]
    publish(tmp_path, "1-2")
    assert [file.held(d, DEVICES) for d in DEVICES] == [(), ()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"allocations": 5}',
        '{"allocations": [{"x": 1}], "cuda_visible": null}',
        '{"allocations": [{"library": "torch", "bytes": "x", "index": 0, "uuid": null}], "cuda_visible": null}',
        '{"allocations": [{"library": "torch", "bytes": 7, "index": 9, "uuid": null}], "cuda_visible": 5}',
    ],
)
def test_a_file_that_is_not_ours_says_nothing(text, tmp_path):
    (tmp_path / "1-2.kernel.json").write_text(text)
    assert KernelFile(tmp_path, "1-2").held(DEVICES[0], DEVICES) == ()


def test_numbers_follow_the_variable_as_the_notebook_set_it(torch, tmp_path, monkeypatch):
    torch.uuids, torch.reserved = False, [700]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    publish(tmp_path, "1-2")
    assert KernelFile(tmp_path, "1-2").held(DEVICES[1], DEVICES) == (Held("torch", 700),)


def test_a_full_disk_loses_the_reading_and_nothing_else(torch, tmp_path):
    torch.reserved = [700]
    publish(tmp_path / "missing", "1-2")
    tmp_path.joinpath("missing").mkdir()
    publish(tmp_path / "missing", "1-2")
    assert KernelFile(tmp_path / "missing", "1-2").held(DEVICES[0], DEVICES)

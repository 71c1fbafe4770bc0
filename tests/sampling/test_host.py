"""The host's memory, from the real /proc and from control groups as containers have them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.memory import find_limit
from llamatelemetry_jupyter.sampling.host import Host

MIB = 1 << 20


@pytest.mark.floor
def test_this_machine_has_memory_and_we_hold_some_of_it():
    host = Host()
    memory = host.memory()
    assert 0 < memory.available_bytes < memory.total_bytes
    assert host.info().device == "host"
    mine = host.resident(os.getpid(), process_start(os.getpid()))
    assert mine is not None
    assert 5 * MIB < mine.bytes < memory.total_bytes
    assert mine.anon_bytes > 0 < mine.file_bytes


def test_a_process_that_ended_holds_nothing_and_its_pid_means_nobody_else():
    host = Host()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = process_start(child.pid)
        assert host.resident(child.pid, start) is not None
        assert host.resident(child.pid, start + 1) is None
        assert host.resident(child.pid, None) is None
    assert host.resident(child.pid, start) is None
    assert child.pid not in host.watched()


def group(folder, unified, limit, used, stat):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
        (folder / name).write_text(f"{value}\n")


def test_the_tightest_limit_on_the_way_to_the_root_counts(tmp_path):
    cgroups = tmp_path / "cgroup"
    stat = f"anon 1\nactive_file {20 * MIB}\ninactive_file {10 * MIB}\nslab_reclaimable {5 * MIB}"
    group(cgroups / "a", True, 200 * MIB, 100 * MIB, stat)
    group(cgroups / "a" / "b", True, "max", 90 * MIB, stat)
    (tmp_path / "membership").write_text("0::/a/b\n")
    limit = find_limit(tmp_path / "membership", cgroups)
    assert limit.read() == (200 * MIB, 65 * MIB)


def test_version_one_has_other_names_and_a_path_that_may_not_exist_inside(tmp_path):
    cgroups = tmp_path / "cgroup"
    group(cgroups / "memory", False, 300 * MIB, 50 * MIB, f"total_active_file {MIB}\ntotal_inactive_file {MIB}")
    (tmp_path / "membership").write_text("5:devices:/\n4:cpu,memory:/docker/f00\n")
    assert find_limit(tmp_path / "membership", cgroups).read() == (300 * MIB, 48 * MIB)


def test_a_containers_limit_replaces_the_machines_memory(tmp_path):
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 524288 kB\n")
    (proc / "self" / "cgroup").write_text("0::/\n")
    assert Host(proc, cgroups).memory().total_bytes == 1024 * MIB
    group(cgroups, True, 100 * MIB, 60 * MIB, f"active_file {10 * MIB}\ninactive_file {10 * MIB}")
    memory = Host(proc, cgroups).memory()
    assert (memory.total_bytes, memory.available_bytes) == (100 * MIB, 60 * MIB)
    (cgroups / "memory.max").write_text(str(1 << 62))
    assert Host(proc, cgroups).memory().total_bytes == 1024 * MIB

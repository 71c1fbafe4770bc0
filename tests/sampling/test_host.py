"""The host's memory, from the real /proc and from control groups as containers have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.gpu.owners import Engine, host_owners
from llamatelemetry_jupyter.memory import find_limit
from llamatelemetry_jupyter.sampling.host import Host, _apportioned
from llamatelemetry_jupyter.sampling.mappings import Mappings, Rarely, read
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings

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


# --------------------------------------------------------------------------------------- pages of files, by their owners

SMAPS = """\
7f0000000000-7f0000064000 r--s 00000000 08:01 11                         /models/a model.gguf
Size:                400 kB
Rss:                 200 kB
Pss:                 100 kB
Anonymous:             0 kB
VmFlags: rd mr
7f0000100000-7f0000110000 rw-p 00000000 08:01 12                         /lib/libc.so.6
Size:                 64 kB
Rss:                  60 kB
Pss:                  26 kB
Anonymous:            20 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                1000 kB
Pss:                1000 kB
Anonymous:          1000 kB
7ffc00000000-7ffc00010000 rw-p 00000000 00:00 0                          [stack]
Size:                 64 kB
Rss:                  64 kB
Pss:                  64 kB
Anonymous:            64 kB
7f0000400000-7f0000410000 r--s 00000000 08:01 13                         /blobs/sha256-77
Size:                 64 kB
Rss:                  16 kB
Pss:                  16 kB
Anonymous:             0 kB
"""
KIB = 1024


@pytest.mark.floor
def test_pages_of_files_and_of_the_model_are_told_from_a_processs_own(tmp_path):
    (tmp_path / "smaps").write_text(SMAPS)
    assert read(tmp_path / "smaps") == Mappings(256 * KIB, 122 * KIB, 200 * KIB, 100 * KIB, 400 * KIB)
    named = read(tmp_path / "smaps", "/blobs/sha256-77")
    assert (named.weights_resident, named.weights_size) == (216 * KIB, 464 * KIB)
    assert read(tmp_path / "no such process") is None


def test_between_two_looks_new_pages_are_weights_until_those_are_whole():
    seen = Mappings(resident=250, shared=150, weights_resident=200, weights_shared=100, weights_size=400)
    now = _apportioned(1, own=70, files=300, seen=seen)  # 50 more than were seen
    assert (now.anon_bytes, now.weights_bytes, now.file_bytes) == (70, 125, 125 + 50)
    whole = _apportioned(1, own=70, files=1000, seen=seen)
    assert (whole.weights_bytes, whole.file_bytes) == (200, 200 + 600)
    dropped = _apportioned(1, own=70, files=40, seen=seen)
    assert (dropped.weights_bytes, dropped.file_bytes) == (0, 40)
    unread = _apportioned(1, own=70, files=40, seen=None)
    assert (unread.weights_bytes, unread.file_bytes) == (None, 40)


@pytest.fixture(scope="module")
def two_engines(model_path, tmp_path_factory):
    """Two servers of one model, in a file that no other process of this machine maps."""
    path = tmp_path_factory.mktemp("model") / "mine.gguf"
    shutil.copy(model_path, path)
    managers = [ServerManager(name=name) for name in ("first", "second")]
    try:
        yield [manager.start(ServerSettings(model=str(path), ctx=256)) for manager in managers]
    finally:
        for manager in managers:
            manager.stop()


@pytest.mark.engine
def test_weights_of_a_real_engine_stand_apart_from_its_own_memory_as_the_system_says(two_engines):
    one = two_engines[0]
    resident = Host().resident(one.pid, one.pid_start, one.model.path)
    said, name = {"weights": 0, "all": 0}, ""
    for line in Path(f"/proc/{one.pid}/smaps").read_text("utf-8").splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[5] if len(words) > 5 else ""
        elif words[0] == "Pss:":
            said["all"] += int(words[1]) * KIB
            said["weights"] += int(words[1]) * KIB * name.endswith(".gguf")
    assert said["weights"] > 5 * MIB
    assert resident.weights_bytes == pytest.approx(said["weights"], rel=0.01)
    assert resident.weights_mapped == pytest.approx(os.path.getsize(one.model.path), rel=0.05)
    assert resident.bytes == pytest.approx(said["all"], rel=0.05)  # libraries are shared with whoever comes and goes
    rows = host_owners(8 << 30, 4 << 30, [(Engine("first", one.pid, one.buffers), resident)], None)
    mapped, *own = [o for o in rows if o.owner == "weights"]
    assert (mapped.bytes, mapped.source) == (resident.weights_bytes, "measured")
    assert sum(o.bytes for o in rows if o.owner not in ("other", "free")) == resident.bytes
    assert all(o.source == "engine" for o in own)


@pytest.mark.engine
def test_a_file_that_two_engines_map_is_counted_once(two_engines):
    seen = [read(Path(f"/proc/{one.pid}/smaps"), one.model.path) for one in two_engines]
    in_memory = max(one.weights_resident for one in seen)
    assert in_memory > 10 * MIB
    # A system under pressure takes pages back meanwhile; twice the file it is not.
    assert sum(one.weights_shared for one in seen) == pytest.approx(in_memory, rel=0.2)


def test_the_largest_other_processes_are_named_and_known_ones_are_not():
    code = "held = bytearray(200 << 20); held[::4096] = b'x' * len(held[::4096]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        host = Host()
        found = host.others({os.getpid()})
        assert len(found) <= 3
        mine = next(one for one in found if one.pid == child.pid)
        assert 200 * MIB <= mine.bytes < 260 * MIB
        assert mine.name.startswith("python")
        assert child.pid not in [one.pid for one in host.others({child.pid})]
        child.stdin.close()


def test_a_costly_look_is_taken_less_often_than_every_five_seconds(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("llamatelemetry_jupyter.sampling.mappings.time.monotonic", lambda: clock[0])
    due = Rarely()
    for took, then in ((0.001, 5.0), (0.010, 40.0)):
        assert due.begin()
        clock[0] += took
        due.end()
        clock[0] += then - 0.5
        assert not due.begin()
        clock[0] += 0.5
    assert due.begin()

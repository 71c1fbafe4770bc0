"""The sampler as a process: what it measures, what it survives, and when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from llamatelemetry_jupyter.environment import process_start, runtime_dir
from llamatelemetry_jupyter.sampling.process import SamplerProcess
from llamatelemetry_jupyter.sampling.ring import RingReader
from llamatelemetry_jupyter.sampling.sampler import main, remove_stale


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


@pytest.fixture
def sampler(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    made = SamplerProcess(hz=10)
    yield made
    made.stop()


@pytest.mark.floor
def test_without_a_gpu_it_samples_the_host_whose_owners_sum_to_its_total(sampler):
    sampler.start()
    until(lambda: sampler.source.since(0)[0] >= 3)
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a GPU")
    latest = sampler.source.latest()
    assert [d.device for d in latest.devices] == ["host"]
    assert latest.servers == ()
    sample = latest.devices[0].row(0)
    by_owner = {o.owner: o for o in sample.owners}
    assert sum(o.bytes for o in sample.owners) == sample.total_bytes
    assert sample.used_bytes == sample.total_bytes - by_owner["free"].bytes
    assert by_owner["kernel"].pid == os.getpid()
    assert abs(by_owner["kernel"].bytes - psutil.Process().memory_info().rss) < 32 << 20
    assert sampler.source.devices()[0].device == "host"


def test_starting_twice_is_one_process_and_stopping_leaves_the_past(sampler):
    sampler.start()
    first = sampler.pid
    sampler.start()
    assert sampler.pid == first
    until(lambda: sampler.source.latest().devices)
    sampler.stop()
    assert not sampler.alive
    assert sampler.source.latest().devices
    sampler.stop()


def test_after_a_kill_the_ring_is_readable_and_the_next_start_goes_on(sampler):
    sampler.start()
    until(lambda: sampler.source.since(0)[0] >= 3)
    os.kill(sampler.pid, signal.SIGKILL)
    until(lambda: not sampler.alive)
    seq, samples, dropped = RingReader(sampler.source.path).since(0)  # somebody else, afterwards
    assert (len(samples.devices[0].t_ns), dropped) == (seq, 0)
    sampler.start()
    until(lambda: sampler.source.since(seq)[0] > seq)
    assert sampler.source.writer == (sampler.pid, process_start(sampler.pid))


def test_interrupts_do_not_reach_it(sampler):
    sampler.start()
    until(lambda: sampler.source.latest().devices)
    assert os.getsid(sampler.pid) == sampler.pid
    for _ in range(20):
        os.kill(sampler.pid, signal.SIGINT)
    seq, _, _ = sampler.source.since(0)
    until(lambda: sampler.source.since(seq)[0] >= seq + 2)
    assert sampler.alive


def test_the_wanted_rate_counts_from_the_first_moment_and_across_restarts(sampler):
    sampler.start()
    sampler.set_rate(4)
    until(lambda: sampler.source.writer is not None)
    assert sampler.source._current().floats[4] == 4.0
    sampler.stop()
    sampler.start()
    until(lambda: sampler.source.writer == (sampler.pid, process_start(sampler.pid)))
    assert sampler.source._current().floats[4] == 4.0


_KERNEL = """
import sys, time
from llamatelemetry_jupyter.sampling.process import SamplerProcess
made = SamplerProcess()
made.start()
while not made.source.latest().devices: time.sleep(0.02)
print(made.pid, made.source.path, flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_kernel_however_that_died_and_the_ring_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    # A folder with modules that would break it, as a notebook's folder may hold: they must not be imported.
    for name in ("json.py", "struct.py", "http.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    with subprocess.Popen(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", _KERNEL],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path if sys.version_info >= (3, 11) else None,
    ) as kernel:
        pid, path = kernel.stdout.readline().split()
        kernel.kill()
        kernel.wait()
        until(lambda: process_start(int(pid)) is None, 10)
    assert RingReader(type(tmp_path)(path)).latest().devices[0].row(0).owners


def test_a_folder_on_the_kernels_path_reaches_the_sampler(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    made = SamplerProcess()
    made.start()
    try:
        until(lambda: made.source.latest().devices)
    finally:
        made.stop()
    assert made.log_path.read_text() == ""


def test_it_imports_nothing_heavy():
    code = (
        "import sys, llamatelemetry_jupyter.sampling.sampler;"
        "heavy = {'numpy', 'pandas', 'opentelemetry', 'psutil', 'IPython', 'pynvml', 'requests', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_only_old_rings_of_dead_kernels_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path))
    alive = f"{os.getpid()}-{process_start(os.getpid()):.0f}.ring"
    old = time.time() - 2 * 86400
    for name, when in ((alive, old), ("999999-1.ring", old), ("999999-2.ring", time.time()), ("notes.ring", old)):
        (runtime_dir() / name).write_bytes(b"")
        os.utime(tmp_path / name, (when, when))
    assert [p.name for p in remove_stale(tmp_path)] == ["999999-1.ring"]


@pytest.mark.parametrize("arguments", [[], ["--parent", "x"], ["--parent", "1:2", "--hz", "fast"]])
def test_a_wrong_command_line_says_how_it_goes(arguments, capsys):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err

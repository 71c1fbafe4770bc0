"""The sampler as a process: what it measures, what it survives, and when it ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest
from replayed import replayed_gpus

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.environment import process_start, runtime_dir
from llamatelemetry_jupyter.sampling.process import SamplerProcess
from llamatelemetry_jupyter.sampling.ring import RingReader, RingWriter
from llamatelemetry_jupyter.sampling.sampler import main, remove_stale


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


@pytest.fixture
def sampler(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    made = SamplerProcess()
    with made.want(10):
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


def test_a_look_that_is_asked_for_comes_before_the_next_tick(sampler):
    sampler.look()  # before the start: nothing to ask
    sampler.start()
    until(lambda: sampler.source.latest().devices)
    begun = time.monotonic()
    for _ in range(20):
        asked_ns = clock.now_ns()
        sampler.look()
        until(lambda: sampler.source.latest().devices[0].t_ns[-1] > asked_ns)  # noqa: B023
    assert time.monotonic() - begun < 20 * 0.45  # what twenty ticks take
    os.kill(sampler.pid, signal.SIGKILL)
    until(lambda: not sampler.alive)
    sampler.look()


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


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """A sampler of which nobody wants more than the least."""
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path / "run"))
    made = SamplerProcess()
    yield made
    made.stop()


def rate(sampler):
    """What the sampler's ring says it is asked for."""
    return RingWriter.wanted_hz.fget(SimpleNamespace(_map=sampler.source._current()))


def test_wishes_count_while_they_are_held_the_highest_first(idle):
    first = idle.want(4)  # before there is a ring
    idle.start()
    until(lambda: idle.source.writer is not None)
    assert rate(idle) == 4.0
    with idle.want(10), idle.want(2):
        assert rate(idle) == 10.0
    assert rate(idle) == 4.0
    first.close()
    first.close()
    assert rate(idle) == 1.0
    idle.want(9)  # dropped at once
    gc.collect()
    assert rate(idle) == 1.0


def test_a_wish_lingers_and_survives_a_restart(idle):
    idle.start()
    held = idle.want(3)
    until(lambda: idle.source.writer is not None)
    idle.want(10, linger_s=30.0).close()
    idle.want(5, linger_s=0.5).close()  # a lower one does not end the higher
    assert rate(idle) == 10.0
    idle.stop()
    idle.start()
    until(lambda: idle.source.writer == (idle.pid, process_start(idle.pid)))
    assert rate(idle) == 10.0
    held.close()


def test_a_wish_is_met_in_the_middle_of_an_idle_second(idle, tmp_path, monkeypatch):
    for name, value in replayed_gpus("t4", tmp_path).items():
        monkeypatch.setenv(name, value)
    idle.start()
    until(lambda: len(idle.source.latest().devices) == 2)
    seq, _, _ = idle.source.since(0)

    def times():
        return [t for d in idle.source.since(seq)[1].devices if d.device != "host" for t in d.t_ns]

    with idle.want(10):
        until(lambda: len(times()) >= 12)
    assert times()[11] - times()[0] < 6 * 10**9  # at the old rate they take eleven seconds


def test_a_killed_sampler_is_started_again_but_not_over_and_over(sampler, monkeypatch):
    sampler.ensure()
    assert not sampler.alive  # nobody started it yet
    sampler.start()
    first = sampler.pid
    until(lambda: sampler.source.latest().devices)
    os.kill(first, signal.SIGKILL)
    until(lambda: not sampler.alive)
    sampler.ensure()
    assert not sampler.alive  # not within five seconds of the last start
    monkeypatch.setattr(sampler, "_started", time.monotonic() - 5.1)
    sampler.ensure()
    second = sampler.pid
    assert second not in (None, first)
    sampler.ensure()
    assert sampler.pid == second
    sampler.stop()
    monkeypatch.setattr(sampler, "_started", time.monotonic() - 5.1)
    sampler.ensure()
    assert not sampler.alive  # it was stopped


def test_a_deleted_ring_is_back_soon_with_its_past(sampler):
    sampler.start()
    until(lambda: sampler.source.since(0)[0] >= 3)
    oldest = sampler.source.since(0)[1].devices[0].t_ns[0]
    sampler.source.path.unlink()
    until(sampler.source.path.exists, 5)
    seq = sampler.source.since(0)[0]
    until(lambda: sampler.source.since(0)[0] > seq)
    assert RingReader(sampler.source.path).since(0)[1].devices[0].t_ns[0] == oldest


_LATER = """
import sys, time
from pathlib import Path
real = time.time_ns
time.time_ns = lambda: real() + 3600 * 10**9
time.time = lambda: time.time_ns() / 1e9
from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.sampling.ring import RingReader, RingWriter
ring = RingReader(Path(sys.argv[1]))
print(clock.now_ns() - ring.now_ns() > 3500 * 10**9, abs(ring.now_ns() - ring.latest().devices[0].t_ns[0]) < 30 * 10**9, ring.age_s < 30)
"""


def test_a_wall_clock_that_was_set_changes_no_time_in_the_ring(sampler, monkeypatch):
    kernel = clock.Anchor(time.time_ns() - 7200 * 10**9, time.monotonic_ns())  # taken before somebody set the clock
    monkeypatch.setattr(clock, "_anchor", kernel)
    sampler.start()
    until(lambda: sampler.source.latest().devices)
    assert abs(sampler.source.latest().devices[0].t_ns[0] - clock.now_ns()) < 30 * 10**9
    assert abs(sampler.source.now_ns() - clock.now_ns()) < 10**9
    said = subprocess.check_output([sys.executable, "-c", _LATER, str(sampler.source.path)], text=True)
    assert said.split() == ["True", "True", "True"]


def test_two_replayed_gpus_are_sampled_with_the_drivers_own_readings(sampler, tmp_path, monkeypatch):
    for name, value in replayed_gpus("t4x2", tmp_path).items():
        monkeypatch.setenv(name, value)
    sampler.start()
    until(lambda: len(sampler.source.latest().devices) == 3 and len(sampler.source.devices()) == 3)
    until(lambda: len(sampler.source.since(0)[1].activity) == 2)
    latest = {d.device: d.row(0) for d in sampler.source.latest().devices}
    assert next(iter(latest)) == "host"
    assert [i.name for i in sampler.source.devices()[1:]] == ["Tesla T4", "Tesla T4"]
    for info in sampler.source.devices()[1:]:
        sample = latest[info.device]
        assert sum(o.bytes for o in sample.owners) == sample.total_bytes == info.total_bytes
        assert sample.power_w == pytest.approx(9.6)
    (first, _) = sampler.source.since(0)[1].activity
    assert len(first.t_ns) > 5
    assert all(0 <= sampler.source.now_ns() - t < 60 * 10**9 for t in first.t_ns)
    assert sampler.log_path.read_text() == ""


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


def test_rings_of_dead_kernels_beyond_a_total_size_go_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path))
    alive = f"{os.getpid()}-{process_start(os.getpid()):.0f}.ring"
    for age, name in enumerate(
        ("999999-4.sampler.log", "999999-3.ring", "999999-2.ring.7.new", "999999-1.ring", alive)
    ):
        (runtime_dir() / name).write_bytes(bytes(1000))
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    removed = [p.name for p in remove_stale(tmp_path, most_bytes=3000)]
    assert removed == ["999999-1.ring", "999999-2.ring.7.new"]
    assert (tmp_path / alive).exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--parent", "x"], ["--parent", "1:2", "--hz", "fast"], ["--parent", "1:2", "--clock", "9"]]
)
def test_a_wrong_command_line_says_how_it_goes(arguments, capsys):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err

"""Fault campaigns of the store: killed, full, spoilt, shared; spans are there or counted, and nobody's cell fails."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.telemetry.processor import RowProcessor
from llamatelemetry_jupyter.telemetry.recorded import RecordedSpans
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.where import Where
from llamatelemetry_jupyter.values import Samples, SpanRow

pytestmark = pytest.mark.faults


def times(whole: int, scale: float) -> int:
    return max(3, round(whole * scale))


@contextmanager
def counted(id: str, what: str, tried: int, report: Callable[..., None]) -> Iterator[Callable[[bool], None]]:
    """Counts what survived, reports it, and fails when anything was lost."""
    begun, kept = time.monotonic(), [0]

    def count(survived: bool) -> None:
        kept[0] += survived

    yield count
    report(id=id, what=what, tried=tried, survived=kept[0], lost=tried - kept[0], seconds=time.monotonic() - begun)
    assert kept[0] == tried


# A kernel that ends spans in one of three ways and notes, in memory that outlives it, when each had ended.
_KERNEL = """
import mmap, os, struct, sys, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from llamatelemetry_jupyter.telemetry.processor import RowProcessor
from llamatelemetry_jupyter.telemetry.store import SpanStore
path, notes, way = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
shared = mmap.mmap(os.open(notes, os.O_RDWR), 0)
provider = TracerProvider()
RowProcessor.of(provider).store = SpanStore(path)
tracer = provider.get_tracer("kernel")
tracer.start_span("x", attributes={"n": -1}).end()
provider.force_flush()
print("ready", flush=True)
number = 0
while 8 * number < len(shared) - 8:
    span = tracer.start_span("x", attributes={"n": number, "text": "y" * 50})
    span.end()
    struct.pack_into("<q", shared, 8 * number, time.monotonic_ns())
    number += 1
    if way == "paced" and number % 5 == 0:
        time.sleep(0.01)
    if way == "busy" and number % 5 == 0:
        for _ in range(200_000): pass
time.sleep(60)
"""
_OLD_NS = 200_000_000


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a disk that others keep busy stops a write for a second."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def test_a_killed_kernel_has_written_every_span_that_is_a_fifth_of_a_second_old(
    quick_disk: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(1), times(20, scale)
    what = "kill -9 of a kernel that ends spans slowly, beside work that holds the GIL, or as fast as it can: all that ended 0.2 s before are in its file"
    notes = quick_disk / "notes"
    with counted("spans_killed", what, tried, fault_report) as count:
        for turn in range(tried):
            notes.write_bytes(bytes(8 * 400_000))
            path = quick_disk / f"{turn}.sqlite"
            way = ("paced", "busy", "burst")[turn % 3]
            kernel = subprocess.Popen(
                [sys.executable, "-c", _KERNEL, str(path), str(notes), way], stdout=subprocess.PIPE, text=True
            )
            assert kernel.stdout is not None
            assert kernel.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.5, 2.0))  # the moment of the kill
            killed_ns = time.monotonic_ns()
            kernel.send_signal(signal.SIGKILL)
            kernel.wait()
            kernel.stdout.close()
            with notes.open("rb") as file, closing(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)) as shared:
                ended = [one for (one,) in struct.iter_unpack("<q", shared[:]) if one]
            old = sum(one <= killed_ns - _OLD_NS for one in ended)
            there = [one.attributes["n"] for one in RecordedSpans(path).rows()][1:]
            count(old > 0 and there == list(range(len(there))) and len(there) >= old)


# A kernel whose files cannot grow beyond so many bytes until it is given room: what a full disk is.
_FULL = """
import json, logging, resource, sys, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from llamatelemetry_jupyter.telemetry.processor import RowProcessor
from llamatelemetry_jupyter.telemetry import store as store_module
logging.disable(logging.CRITICAL)
store_module._RETRY_NS = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
store = store_module.SpanStore(Path(sys.argv[1]))
provider = TracerProvider()
RowProcessor.of(provider).store = store
tracer = provider.get_tracer("kernel")
def spans(first, count):
    for number in range(first, first + count):
        tracer.start_span("x", attributes={"n": number, "text": "y" * 200}).end()
    store.flush()
spans(0, 2000)
told = store.trouble()
seen = [row.attributes["n"] for row in store.rows()]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spans(2000, 10)
store.close()
print(json.dumps([told, len(seen), store.trouble(), store.totals()["dropped"]]))
"""


def test_a_full_disk_loses_nothing_and_is_told(tmp_path: Path, scale: float, fault_report: Callable[..., None]) -> None:
    chance, tried = random.Random(2), times(20, scale)
    what = "the spans' file cannot grow beyond a random size: no cell fails, the status says so, and all is written once there is room"
    with counted("spans_disk_full", what, tried, fault_report) as count:
        for turn in range(tried):
            path = tmp_path / f"{turn}.sqlite"
            limit = chance.randrange(1, 700_000)
            done = subprocess.run(
                [sys.executable, "-c", _FULL, str(path), str(limit)], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            told, seen, after, dropped = json.loads(done.stdout)
            there = [one.attributes["n"] for one in RecordedSpans(path).rows()]
            said = "spans are kept in memory only" in (told or "")
            count(said and (seen, after, dropped) == (2000, None, 0) and there == list(range(2010)))


# Somebody who may only read the folder; what root is started as becomes nobody once Python has what it needs.
_READ_ONLY = """
import logging, os, sys
from pathlib import Path
from llamatelemetry_jupyter.telemetry import sessions
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.telemetry.where import Where
from llamatelemetry_jupyter.values import Samples, SpanRow
logging.disable(logging.CRITICAL)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
path = sessions.new_path(Path(sys.argv[1]))
store = SpanStore(path, tidy=lambda: sessions.prune(path, max_bytes=0))
for number in range(100):
    store.append(SpanRow("t", str(number), None, "x", "internal", 1, 2))
store.flush()
print(len(store.rows()), store.trouble(), len(sessions.Sessions(path.parent, path).list()))
sessions.prune(path, max_bytes=0)
store.close()
"""


@pytest.mark.parametrize("there", ["before", "never"])
def test_a_folder_that_may_not_be_written_keeps_spans_in_memory_and_its_sessions(
    there: str, fault_report: Callable[..., None]
) -> None:
    what = f"the spans' folder may only be read ({'with a session in it' if there == 'before' else 'and is not there'}): spans stay in memory, the status says so"
    with counted(f"spans_read_only_{there}", what, 1, fault_report) as count, tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spans"
        if there == "before":
            store = SpanStore(folder / "20260101-000000-1.sqlite")
            store.append(SpanRow("t", "1", None, "x", "internal", 1, 2))
            store.close()
            for one in folder.iterdir():
                one.chmod(0o444)
            folder.chmod(0o555)
        Path(name).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", _READ_ONLY, str(folder)], capture_output=True, text=True)
        Path(name).chmod(0o755)
        kept = sorted(one.name for one in folder.iterdir()) if folder.exists() else []
        if folder.exists():
            folder.chmod(0o755)
        said = done.stdout.startswith("100 spans are kept in memory only: ")
        listed = done.stdout.endswith(f" {len(kept) // 2}\n")
        count(said and listed and len(kept) == (2 if there == "before" else 0))


def _killed(path: Path, spans: int) -> None:
    """A session as a killed kernel leaves it: everything is in the log beside the file."""
    code = (
        "import os, sys; from pathlib import Path; from llamatelemetry_jupyter.values import SpanRow\n"
        "from llamatelemetry_jupyter.telemetry.store import SpanStore; store = SpanStore(Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[2])):\n"
        "    store.append(SpanRow('t', str(n), None, 'x', 'internal', n, n + 1, attributes={'n': n}))\n"
        "    if n % 10 == 9: store.flush()\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(spans)], check=True)


def test_a_spoilt_end_of_the_log_costs_the_last_groups_alone(
    tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(3), times(100, scale)
    what = "the last record of a killed kernel's file is cut or spoilt at a random place: what came before it is there, and the session goes on"
    source = tmp_path / "source"
    _killed(source / "s.sqlite", 200)
    with counted("spans_spoilt_end", what, tried, fault_report) as count:
        for turn in range(tried):
            folder = tmp_path / str(turn)
            shutil.copytree(source, folder)
            log = folder / "s.sqlite-wal"
            data = bytearray(log.read_bytes())
            at = chance.randrange(len(data) * 3 // 4, len(data))
            if turn % 2:
                data[at] ^= 1 << chance.randrange(8)
            log.write_bytes(data if turn % 2 else data[:at])
            store = SpanStore(folder / "s.sqlite")
            before = [one.attributes["n"] for one in store.rows()]
            store.append(SpanRow("t", "new", None, "x", "internal", 1, 2, attributes={"n": -1}))
            store.close()
            after = [one.attributes["n"] for one in RecordedSpans(folder / "s.sqlite").rows()]
            count(len(before) > 100 and before == list(range(len(before))) and after == [*before, -1])


def test_a_spoilt_file_is_read_as_far_as_it_goes_or_says_that_it_cannot_be(
    tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(4), times(200, scale)
    what = "bytes of a session's file are changed or its end is cut off: rows or our error when it is read, and a kernel that goes on with it keeps its spans"
    _killed(tmp_path / "s.sqlite", 3000)
    SpanStore(tmp_path / "s.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    whole = (tmp_path / "s.sqlite").read_bytes()
    with counted("spans_spoilt_file", what, tried, fault_report) as count:
        for turn in range(tried):
            data = bytearray(whole)
            if turn % 3 == 2:
                data = data[: chance.randrange(len(data))]
            for _ in range(chance.randrange(1, 300)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path = tmp_path / f"{turn}.sqlite"
            path.write_bytes(data)
            for ask in (
                lambda spans: spans.rows(), lambda spans: spans.rows(trace_id="t"), lambda spans: spans.latencies(),
                lambda spans: spans.roots(), lambda spans: list(spans.values(("name",), Where(name="x"))),
            ):  # fmt: skip
                with suppress(LlamaError):
                    ask(RecordedSpans(path))
            store = SpanStore(path)
            store.append(SpanRow("t", "mine", None, "mine", "internal", 1, 2))
            store.flush()
            kept = [one.name for one in store.rows(last=1)] == ["mine"]
            store.latencies()
            store.close()
            count(kept)


def test_kernels_that_share_a_folder_lose_nothing_to_each_other(
    tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    tried = times(20, scale)
    what = "three kernels on one folder at once, each deleting all sessions that it may: each has all of its own spans"
    code = (
        "import sys; from pathlib import Path; from llamatelemetry_jupyter.telemetry import sessions\n"
        "from llamatelemetry_jupyter.values import SpanRow; from llamatelemetry_jupyter.telemetry.store import SpanStore\n"
        "path = sessions.new_path(Path(sys.argv[1])); store = SpanStore(path)\n"
        "print(path, flush=True)\n"
        "for n in range(300):\n"
        "    store.append(SpanRow('t', str(n), None, 'x', 'internal', n, n + 1))\n"
        "    if n % 10 == 9: store.flush(); sessions.prune(path, max_bytes=0)\n"
        "print(store.problem, flush=True); sys.stdin.read()\n"
    )
    with counted("spans_shared_folder", what, tried, fault_report) as count:
        for turn in range(tried):
            folder = tmp_path / str(turn)
            kernels = [
                subprocess.Popen(
                    [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                for _ in range(3)
            ]
            paths = [Path(one.stdout.readline().strip()) for one in kernels]  # type: ignore[union-attr]
            problems = [one.stdout.readline().strip() for one in kernels]  # type: ignore[union-attr]
            for one in kernels:
                one.communicate()
            count(problems == ["None"] * 3 and [len(RecordedSpans(path).rows()) for path in paths] == [300] * 3)


def test_clocks_that_step_back_and_moments_out_of_this_world(
    tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    chance, tried = random.Random(5), times(100, scale)
    what = "spans that end before they start, before each other, or in another century: all are there, listed, summed up and found"
    store = SpanStore(tmp_path / "s.sqlite", samples=_NoSamples())
    provider = TracerProvider()
    RowProcessor.of(provider).store = store
    tracer, now = provider.get_tracer("x"), time.time_ns()
    with counted("spans_clock", what, tried, fault_report) as count:
        for turn in range(tried):
            start = chance.choice(
                [now, now - 10**18, 0, 1, 2**63 - 1, 2**64, -5, now + chance.randrange(-(10**12), 10**12)]
            )
            end = chance.choice([start, start - 10**9, start + 10**9, 0, 2**63 - 1, -1])
            span = tracer.start_span(f"n{turn}", start_time=start)
            span.end(end_time=end)
            store.flush()
            row = store.rows(last=1)[0]
            old = RecordedSpans(tmp_path / "s.sqlite")
            found = [one.name for one in old.rows(since_ns=row.end_ns)]
            count(
                row.name == f"n{turn}"
                and store.problem is None
                and row.name in found
                and len(old.roots(10**6)) == turn + 1
                and sum(one.count for one in old.latencies()) == turn + 1
            )
        store.close()


class _NoSamples:
    def latest(self) -> Samples:
        return Samples.of([], [])

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        return Samples.of([], [])


def test_a_burst_of_spans_on_several_threads_drops_none(
    tmp_path: Path, scale: float, fault_report: Callable[..., None]
) -> None:
    tried = times(100_000, scale)
    what = "spans in a burst, on four threads as fast as they can: every one is in the file, in the order of its thread"
    store = SpanStore(tmp_path / "s.sqlite")
    provider = TracerProvider()
    RowProcessor.of(provider).store = store
    tracer = provider.get_tracer("burst")

    def burst(thread: int) -> None:
        for number in range(tried // 4):
            tracer.start_span("x", attributes={"thread": thread, "n": number}).end()

    begun = time.monotonic()
    threads = [threading.Thread(target=burst, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    there: dict[object, list[object]] = {}
    for one in RecordedSpans(tmp_path / "s.sqlite").rows():
        there.setdefault(one.attributes["thread"], []).append(one.attributes["n"])
    kept = sum(numbers == list(range(tried // 4)) for numbers in there.values())
    fault_report(
        id="spans_burst", what=what, tried=tried // 4 * 4, survived=sum(map(len, there.values())),
        lost=store.totals()["dropped"], seconds=time.monotonic() - begun,
    )  # fmt: skip
    assert kept == 4
    assert store.trouble() is None


class _Rude:
    """An object whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _odd(chance: random.Random, depth: int = 0) -> object:
    simple: list[Callable[[], object]] = [
        lambda: None, lambda: True, lambda: 10**5000, lambda: -(2**63) - 1, lambda: 2**63, lambda: float("nan"),
        lambda: float("-inf"), lambda: 5e-324, lambda: "x" * chance.randrange(200_000), lambda: "half \ud83d", lambda: "\x00\x1b",
        lambda: b"\xff" * chance.randrange(50_000), lambda: bytearray(b"1"), lambda: 1j, object, _Rude,
        lambda: chance.randrange(-(2**70), 2**70), lambda: range(5), lambda: {1, 2}, time.gmtime,
        lambda: [chance.random()] * chance.randrange(5000),
    ]  # fmt: skip
    nested: list[Callable[[], object]] = [
        lambda: [_odd(chance, depth + 1) for _ in range(3)], lambda: {"k" * chance.randrange(1, 3000): _odd(chance, depth + 1)},
        lambda: {_Hashable(): 1, 2: 3}, lambda: (_odd(chance, depth + 1),),
    ]  # fmt: skip
    return chance.choice(simple + nested * (depth < 12))()


class _Hashable:
    def __str__(self) -> str:
        return "k" * 5000


def test_attributes_of_every_odd_type_and_size(
    tmp_path: Path, scale: float, fault_report: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    chance, tried = random.Random(6), times(2000, scale)
    what = "attribute values of every odd type, depth and size, through OpenTelemetry and past it: no error, valid JSON of a bounded size, or a counted drop"
    caplog.set_level("CRITICAL")
    store = SpanStore(tmp_path / "s.sqlite")
    provider = TracerProvider()
    RowProcessor.of(provider).store = store
    tracer = provider.get_tracer("odd")
    ring: list[object] = []
    ring.append(ring)
    with counted("spans_odd_attributes", what, tried, fault_report) as count:
        for turn in range(tried):
            value = ring if turn == 0 else _odd(chance)
            span = tracer.start_span(f"n{turn}")
            with suppress(RuntimeError, ValueError, RecursionError):  # what OpenTelemetry itself says to it
                span.set_attribute("odd", value)  # type: ignore[arg-type]
            span._attributes._dict["past"] = value  # type: ignore[attr-defined]
            before = store.totals()
            span.end()
            after = store.totals()
            count((after["spans"] + after["dropped"]) - (before["spans"] + before["dropped"]) == 1)
        store.close()
        assert store.problem is None
    totals = store.totals()
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as connection:
        query = "select count(*), sum(json_valid(attributes)), max(length(attributes)) from spans"
        written, valid, longest = connection.execute(query).fetchone()
    assert (written, valid) == (totals["spans"], totals["spans"])
    assert totals["dropped"] < tried / 2
    assert longest < 64 * 1024 * 1024

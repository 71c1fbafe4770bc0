"""The log of a server is bounded, loses no line on its way, and cannot hold the engine up."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from llamatelemetry_jupyter.server import guard
from llamatelemetry_jupyter.server.log import Tail, last_lines


def test_a_log_that_grew_too_large_begins_anew_and_no_line_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "LOG_BYTES", 1000)
    path = tmp_path / "x.log"
    seen, written = [], []
    with open(path, "ab", 0) as engine:  # held open for appending, as an engine does
        tail = Tail(path)
        for number in range(200):
            line = f"line {number} {'x' * (number % 50)}"
            written.append(line)
            engine.write(f"{line}\n".encode())
            if number % 7 == 0:
                seen += tail.read()
            if number % 11 == 0:
                guard.bound(str(path))
                if number % 33 == 0:
                    seen += tail.read()
    seen += tail.rest()
    assert seen == written
    kept = path.stat().st_size + (tmp_path / "x.log.1").stat().st_size
    assert kept < 4000
    assert (tmp_path / "x.log.1").stat().st_mode & 0o777 == 0o600
    assert last_lines(path, 5) == written[-5:]
    assert last_lines(path, 10_000) == written[-len(last_lines(path, 10_000)) :]


def test_without_room_for_the_older_part_only_the_new_one_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "LOG_BYTES", 1000)
    path = tmp_path / "x.log"
    path.write_bytes(b"old line\n" * 500)
    tail = Tail(path)
    tail.read()
    (tmp_path / "x.log.1.part").mkdir()  # stands in the way, as a full disk does
    guard.bound(str(path))
    assert path.stat().st_size == 0
    with path.open("ab") as engine:
        engine.write(b"new line\n")
    assert tail.read() in ([], ["new line"])
    guard.bound(str(tmp_path / "gone.log"))  # the folder was cleaned: nothing to do, and no error


# A kernel whose files cannot grow beyond 12 KiB: what a full disk is to the engine's log.
FULL = """
import resource, sys
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.models.catalogue import resolve
resolve("smollm2-135m")
resource.setrlimit(resource.RLIMIT_FSIZE, (12288, resource.RLIM_INFINITY))
with ServerManager("full") as manager:
    handle = manager.start(ServerSettings(ctx=512, warmup=False))
    print(InferenceEngine(handle).chat("Hi", max_tokens=4).output_tokens, __import__("os").path.getsize(handle.log_path))
"""


def test_a_log_that_cannot_be_written_neither_stalls_nor_ends_the_engine():
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    tokens, size = map(int, done.stdout.split())
    assert tokens == 4
    assert 12288 - 2048 < size <= 12288  # a line is written whole or not at all
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # the limit was the child's alone

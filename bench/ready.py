"""How soon we see that a server is ready, and what our start adds to the bare server's own.

``ready``: another process asks /health as fast as it can and notes the moment of its first 200; our start returns so
much later. ``start``: our whole start (settings, checks, guard, state file) beside a plain script that starts the same
engine with the same parameters, says so the moment that it serves, and is then asked for /health once: a poller on two
cores slows the load that it waits for, so a floor must not poll. Pairs are interleaved, their order alternates.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llamatelemetry_jupyter.models import catalogue, gguf
from llamatelemetry_jupyter.server import probe
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.server.runtime import find_runtime
from llamatelemetry_jupyter.server.settings import ServerSettings

IDS = ("ready", "start")
_PAIRS = 20
_SETTINGS = ServerSettings(ctx=512, warmup=False)
_READY_GOAL_MS, _START_GOAL_MS = 50.0, 100.0

#: Says when /health of the process PID first turned ok, in Unix ns.
_WATCHER = """
import http.client, sys, time
from llamatelemetry_jupyter.server import probe
pid = int(sys.stdin.readline())
while not (ports := probe.ports(pid)):
    time.sleep(0.001)
while True:
    connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=5)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError:
        status = 0
    now = time.time_ns()
    connection.close()
    if status == 200:
        break
    time.sleep(0.001)
print(now, flush=True)
"""

#: What somebody without us would write.
_BARE = """
import json, sys, time, xllamacpp
from llamatelemetry_jupyter.server.embedded import build
server = xllamacpp.Server(build(xllamacpp, json.loads(sys.argv[1]), "key"))
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def run(pairs: int = _PAIRS) -> list[dict[str, object]]:
    """The two rows."""
    with _own_folder():
        model = catalogue.resolve(_SETTINGS.model)
        params = _SETTINGS.resolved(model, gguf.read_header(model.path)).to_params()
        runtime = find_runtime("xllamacpp")
        delays, ours, bare = [], [], []
        for number in range(pairs + 1):
            for which in ("ours", "bare") if number % 2 else ("bare", "ours"):
                if which == "ours":
                    began = time.perf_counter()
                    with ServerManager("bench") as manager:
                        manager.start(_SETTINGS, runtime)
                        ours.append((time.perf_counter() - began) * 1e3)
                else:
                    bare.append(_bare(params))
            delays.append(_delay(runtime))
    ours, bare, delays = ours[1:], bare[1:], delays[1:]  # the first reads the files from disk
    added = [a - b for a, b in zip(ours, bare, strict=True)]
    return [
        {
            "id": "ready",
            "what": "from the first 200 of /health to the end of our start",
            "unit": "ms",
            "ours": round(statistics.median(delays), 1),
            "peers": {},
            "floor": 0.0,
            "ratio": None,
            "goal": f"median ≤ {_READY_GOAL_MS:g} ms",
            "holds": statistics.median(delays) <= _READY_GOAL_MS,
            "method": (
                f"{len(delays)} starts, each watched by another process that asks /health every millisecond; "
                f"{min(delays):.1f}..{max(delays):.1f} ms"
            ),
        },
        {
            "id": "start",
            "what": "our start beside a plain script that starts the same engine and says when it serves",
            "unit": "ms added",
            "ours": round(statistics.median(added), 1),
            "peers": {"plain script, whole start": round(statistics.median(bare), 1)},
            "floor": 0.0,
            "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
            "goal": f"median ≤ {_START_GOAL_MS:g} ms",
            "holds": statistics.median(added) <= _START_GOAL_MS,
            "method": (
                f"{len(added)} interleaved pairs, order alternated, same parameters, SmolLM2-135M without warm-up; ours "
                f"{statistics.median(ours):.0f} ms ({min(ours):.0f}..{max(ours):.0f}), plain "
                f"{statistics.median(bare):.0f} ms ({min(bare):.0f}..{max(bare):.0f})"
            ),
        },
    ]


def _delay(runtime: object) -> float:
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdin is not None
    assert watcher.stdout is not None

    def tell(event: object) -> None:
        if event.kind == "spawned":
            print(event.data["pid"], file=watcher.stdin, flush=True)

    with ServerManager("bench", on_event=tell) as manager:
        manager.start(_SETTINGS, runtime)
        end = time.time_ns()
        seen = int(watcher.stdout.readline())
    watcher.communicate()
    return (end - seen) / 1e6


def _bare(params: dict[str, object]) -> float:
    began = time.perf_counter()
    engine = subprocess.Popen(
        [sys.executable, "-c", _BARE, json.dumps(params)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert engine.stdout is not None
    address = engine.stdout.readline().strip()
    assert probe.get(address, "/health")[0] == 200
    took = (time.perf_counter() - began) * 1e3
    engine.kill()
    engine.communicate()
    return took


@contextlib.contextmanager
def _own_folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("LLAMATELEMETRY_RUNTIME_DIR")
        os.environ["LLAMATELEMETRY_RUNTIME_DIR"] = str(Path(folder))
        try:
            yield
        finally:
            if before is None:
                del os.environ["LLAMATELEMETRY_RUNTIME_DIR"]
            else:
                os.environ["LLAMATELEMETRY_RUNTIME_DIR"] = before

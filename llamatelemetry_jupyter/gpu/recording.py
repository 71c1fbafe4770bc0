"""What NVML answered over time, in a JSON file: recorded on real hardware, replayed in tests on machines without.

A trace holds every call that :class:`.nvml.Nvml` makes, by name and arguments; of its answers only the changes are
kept, so that a minute of two GPUs stays below 300 kB. Layout::

    {"format": "llamatelemetry-nvml", "version": 1, "origin": "recorded on …", "seconds": 60.0,
     "calls":   {"nvmlDeviceGetPowerUsage(gpu0)": {"t_ms": [0, 100], "v": [9800, 9900], "us": [41, 380]}},
     "samples": {"nvmlDeviceGetSamples(gpu0, 0)": {"type": 1, "t_us": [-81000, 20000], "v": [9800, 9810]}}}

``t_ms`` counts from the start, ``us`` is the median and the largest cost of the call. A value is what JSON has; an
object is a struct, but for ``{"error": "GpuIsLost"}`` (``NVMLError_GpuIsLost``, or a builtin exception of that name),
``{"handle": "gpu0.mig1"}``, ``{"bytes": …}`` (latin-1) and ``{"hangs": true}`` (no answer until the next entry).
``samples`` are the driver's buffered ones: the first ``t_us`` counts from the start, each other from the one before.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import statistics
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import LlamaError
from ..progress import Progress, Step, silent
from ..values import JSON
from .card import state
from .nvml import MEMBERS, Gpu, Nvml, load

FORMAT, VERSION = "llamatelemetry-nvml", 1
#: A call that takes longer stands in the trace as one that hangs.
HANGS_S = 2.0
_SAMPLES = "nvmlDeviceGetSamples"


def record(
    path: Path,
    *,
    seconds: float = 60.0,
    hz: float = 10.0,
    module: Any = None,
    on_progress: Progress = silent,
) -> Path:
    """Ask every GPU ``hz`` times a second for ``seconds`` and write the trace to ``path``.

    ``module`` is pynvml (imported when left out). Each GPU is asked by a thread of its own: one that hangs is recorded
    as such. Raises LlamaError when there is no GPU. Interrupted, it writes what it has.
    """
    recorder = Recorder(module if module is not None else load())
    nvml = Nvml(recorder) if recorder.module is not None else None
    if nvml is None or not nvml.gpus:
        raise LlamaError("no NVIDIA GPU answers here: there is nothing to record", hint="!nvidia-smi")
    driver = nvml.driver
    ended = threading.Event()
    for gpu in nvml.gpus:
        threading.Thread(target=_ask, args=(nvml, gpu, 1 / hz, ended), name=f"record {gpu.device}", daemon=True).start()
    start = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while (done := time.monotonic() - start) < seconds:
            on_progress(Step("recording the GPUs", done, seconds, "s"))
            nvml.revive()
            time.sleep(min(0.2, seconds - done))
    ended.set()
    trace = recorder.trace(f"recorded {datetime.now(timezone.utc):%Y-%m-%d} with driver {driver or 'n/a'}")
    path.write_text(json.dumps(trace, separators=(",", ":")) + "\n", "utf-8")
    return path


def _ask(nvml: Nvml, gpu: Gpu, interval_s: float, ended: threading.Event) -> None:
    state(nvml, gpu)  # also what does not change: links, limits
    util_us = power_us = 0
    while not ended.is_set():
        nvml.read(gpu)
        util, power = nvml.activity(gpu, (util_us, power_us))
        util_us, power_us = (max([seen, *(t for t, _ in new)]) for seen, new in ((util_us, util), (power_us, power)))
        ended.wait(interval_s)


class Recorder:
    """pynvml to whoever asks it, and a list of what was asked and answered. Safe from any thread.

    ``now`` gives seconds, ``wall_s`` the Unix time that the driver stamps its samples with.
    """

    def __init__(
        self, module: Any, now: Callable[[], float] = time.monotonic, wall_s: Callable[[], float] = time.time
    ) -> None:
        self.module = module
        self._now = now
        self._start, self._start_us = now(), round(wall_s() * 1e6)
        self._calls: dict[str, tuple[list[int], list[JSON]]] = {}
        self._costs: dict[str, list[float]] = {}
        self._streams: dict[str, tuple[int, dict[int, JSON]]] = {}
        self._pending: dict[str, float] = {}
        self._handles: dict[int, tuple[object, str]] = {}
        self._uuids: dict[object, str] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if not name.startswith("nvml") or not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any) -> Any:
            named = args[:-1] if name == _SAMPLES else args
            key = f"{name}({', '.join(self._named(a) for a in named)})"
            begun = self._now()
            with self._lock:
                self._pending[key] = begun
            try:
                answer = found(*args)
            except Exception as exc:
                self._note(key, begun, {"error": type(exc).__name__.removeprefix("NVMLError_")})
                raise
            if name == _SAMPLES:
                self._note(key, begun, None, stream=answer)
            elif "Handle" in name:
                self._note(key, begun, {"handle": self._name(answer, *args)})
            else:
                if name == "nvmlDeviceGetUUID":
                    self._uuids[answer] = self._named(args[0])
                self._note(key, begun, _plain(answer))
            return answer

        return call

    def _name(self, handle: object, asked: object, instance: object = None) -> str:
        """A new handle's name in the trace, by what it was asked for with: an index, an id, a GPU and an instance."""
        name = f"gpu{asked}" if instance is None else f"{self._named(asked)}.mig{instance}"
        name = self._uuids.get(asked, name)
        with self._lock:
            self._handles[id(handle)] = (handle, name)
        return name

    def trace(self, origin: str) -> dict[str, JSON]:
        """What was heard so far, as the JSON of a trace."""
        now = self._now()
        with self._lock:
            calls: dict[str, JSON] = {}
            for key, heard in self._calls.items():
                times, values = list(heard[0]), list(heard[1])
                if (since := self._pending.get(key)) is not None and now - since > HANGS_S:
                    times.append(self._ms(since))
                    values.append({"hangs": True})
                costs = self._costs[key]
                us: list[JSON] = [round(statistics.median(costs) * 1e6), round(max(costs) * 1e6)]
                calls[key] = {"t_ms": list[JSON](times), "v": values, "us": us}
            samples: dict[str, JSON] = {}
            for key, (kind, found) in self._streams.items():
                order = sorted(found)
                deltas = [b - a for a, b in zip([0, *order], order, strict=False)]
                samples[key] = {"type": kind, "t_us": list[JSON](deltas), "v": [found[t] for t in order]}
        seconds = round(now - self._start, 3)
        return {
            "format": FORMAT,
            "version": VERSION,
            "origin": origin,
            "seconds": seconds,
            "calls": calls,
            "samples": samples,
        }

    def _note(self, key: str, begun: float, answer: JSON, *, stream: Any = None) -> None:
        took = self._now() - begun
        with self._lock:
            self._pending.pop(key, None)
            self._costs.setdefault(key, []).append(took)
            if stream is not None:
                kind, samples = stream
                known = self._streams.setdefault(key, (int(kind), {}))[1]
                for one in samples:
                    known[int(one.timeStamp) - self._start_us] = getattr(one.sampleValue, MEMBERS[int(kind)])
            times, values = self._calls.setdefault(key, ([], []))
            if took > HANGS_S:
                times.append(self._ms(begun))
                values.append({"hangs": True})
                begun += took
            if not values or values[-1] != answer:
                times.append(self._ms(begun))
                values.append(answer)

    def _ms(self, at: float) -> int:
        return round((at - self._start) * 1e3)

    def _named(self, argument: object) -> str:
        known = self._handles.get(id(argument))
        return known[1] if known is not None else str(argument)


def _plain(answer: Any) -> JSON:
    """An answer of pynvml as JSON: structs by their fields, private ones and unions left out."""
    if isinstance(answer, bytes):
        return {"bytes": answer.decode("latin-1")}
    if answer is None or isinstance(answer, (bool, int, float, str)):
        return answer
    if isinstance(answer, (list, tuple, ctypes.Array)):
        return [_plain(one) for one in answer]
    names = [f[0] for f in answer._fields_] if hasattr(answer, "_fields_") else list(vars(answer))
    return {name: _plain(getattr(answer, name)) for name in names if not name.startswith("_")}

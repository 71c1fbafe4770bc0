"""pynvml on a machine that has no GPU: answers from a trace (llamatelemetry_jupyter/gpu/recording.py) by elapsed time.

Errors, constants and signatures are those of the real pynvml. Traces written by hand may say three things more than
recordings: ``"like": NAME`` takes over what another trace has, ``"linear": true`` on a call lets a counter grow between
its entries and on after the last, and ``faults`` are times at which whole GPUs, or the driver (``"gpu": null``), fail:

    {"from_s": 20, "to_s": 35, "gpu": "gpu1", "error": "GpuIsLost"}       error "hangs": no call returns before to_s
    {"from_s": 10, "to_s": 12, "gpu": null, "error": "Uninitialized", "restart": true}    then nvmlInit must be called

``samples`` of a hand-written trace may be ``{"type": 1, "every_ms": 20, "of": "<call>", "member": "gpu", "keep": 119}``.
"""

from __future__ import annotations

import bisect
import builtins
import importlib.machinery
import importlib.util
import inspect
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

TRACES = Path(__file__).with_name("traces")
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_ARGUMENTS = re.compile(r"\((gpu\d+(?:\.mig\d+)?)?")


def names() -> list[str]:
    """The traces in traces/."""
    return sorted(p.stem for p in TRACES.glob("*.json"))


def load_trace(which: str | Path) -> dict[str, Any]:
    """A trace by its name in traces/ or by path, complete with what it takes over from another."""
    path = which if isinstance(which, Path) else TRACES / f"{which}.json"
    trace = json.loads(path.read_text("utf-8"))
    assert (trace["format"], trace["version"]) == ("llamatelemetry-nvml", 1)
    if (like := trace.pop("like", None)) is not None:
        base = load_trace(like)
        calls, samples = base["calls"] | trace.get("calls", {}), base["samples"] | trace.get("samples", {})
        trace = base | trace | {"calls": calls, "samples": samples}
    return trace


@lru_cache
def real_pynvml() -> ModuleType:
    """The real module, also where :mod:`replaymodule.pynvml` hides it; it loads no driver by itself."""
    hiding = str(Path(__file__).with_name("replaymodule"))
    path = [p for p in sys.path if os.path.abspath(p or ".") != hiding]
    spec = importlib.machinery.PathFinder.find_spec("pynvml", path)
    assert spec is not None and spec.loader is not None, "nvidia-ml-py is not installed"
    module = importlib.util.module_from_spec(spec)
    # Its own __init__ looks itself up by name.
    hidden = sys.modules.get("pynvml")
    sys.modules["pynvml"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        if hidden is None:
            del sys.modules["pynvml"]
        else:
            sys.modules["pynvml"] = hidden
    return module


class Handle(str):
    """A GPU's handle: its name in the trace."""

    __slots__ = ()


class Replay:
    """A trace as the module pynvml.

    ``at`` given: time stands still there until :meth:`at` moves it. Otherwise time passes, from ``start`` (seconds of
    CLOCK_MONOTONIC) on, so that several processes see the same moment of the trace.
    """

    def __init__(self, trace: str | Path | dict[str, Any], *, at: float | None = None, start: float | None = None):
        self.trace = trace if isinstance(trace, dict) else load_trace(trace)
        self.calls: Counter[str] = Counter()
        self._real = real_pynvml()
        self._fixed = at
        self._start = time.monotonic() if start is None else start
        self._wall_s = time.time() - (time.monotonic() - self._start)
        self._moved = threading.Condition()
        self._released = False
        self._initialised_s: float | None = None
        self._functions: dict[str, Callable[..., Any]] = {}
        self._faults = self.trace.get("faults", [])

    @property
    def now_s(self) -> float:
        """Seconds since the start of the trace."""
        return time.monotonic() - self._start if self._fixed is None else self._fixed

    @property
    def wall_s(self) -> float:
        """Unix time as the driver has it."""
        return self._wall_s + self.now_s

    def at(self, seconds: float) -> None:
        """Move time; calls that hang until then return."""
        with self._moved:
            self._fixed = seconds
            self._moved.notify_all()

    def release(self) -> None:
        """End of the test: nothing hangs any more."""
        with self._moved:
            self._released = True
            self._moved.notify_all()

    def answer(self, key: str, value: object) -> None:
        """From now on ``key`` (``nvmlDeviceGetName(gpu0)``) answers ``value``, as a trace writes it."""
        entry = self.trace["calls"].get(key, {"t_ms": [], "v": []})
        at = round(self.now_s * 1e3)
        kept = [(t, v) for t, v in zip(entry["t_ms"], entry["v"], strict=True) if t < at]
        times, values = zip(*kept, (at, value), strict=True)
        self.trace["calls"] = {**self.trace["calls"], key: {"t_ms": list(times), "v": list(values)}}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)  # what pynvml lacks is missing here too
        if not name.startswith("nvml") or not callable(found) or isinstance(found, type):
            return found
        if name not in self._functions:
            self._functions[name] = self._function(name, inspect.signature(found))
        return self._functions[name]

    def _function(self, name: str, signature: inspect.Signature) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs).args  # the signature of the real one
            named = bound[:-1] if name == "nvmlDeviceGetSamples" else bound
            key = f"{name}({', '.join(map(str, named))})"
            self.calls[key] += 1
            answer = self._pass_faults(key) or self._entry(key)
            if name == "nvmlInit":
                self._initialised_s = self.now_s
            if name == "nvmlDeviceGetSamples" and key in self.trace["samples"]:
                return self._samples(key, bound[-1])
            return _built(answer)

        return call

    def _pass_faults(self, key: str) -> None:
        gpu = found[1] if (found := _ARGUMENTS.search(key)) else None
        for fault in self._faults:
            inside = fault["from_s"] <= self.now_s < fault["to_s"]
            if fault["gpu"] is None:
                stale = fault.get("restart") and (self._initialised_s or 0.0) < fault["to_s"] <= self.now_s
                if inside or (stale and not key.startswith("nvmlInit")):
                    self._fail(fault["error"] if inside else "Uninitialized", fault["to_s"])
            elif inside and gpu is not None and gpu.split(".")[0] == fault["gpu"] and "Handle" not in key:
                self._fail(fault["error"], fault["to_s"])

    def _fail(self, error: str, until_s: float) -> None:
        if error == "hangs":
            self._wait(until_s)
        else:
            raise self._error(error)

    def _wait(self, until_s: float) -> None:
        with self._moved:
            while not self._released and self.now_s < until_s:
                self._moved.wait(None if self._fixed is not None else min(until_s - self.now_s, 1e6))

    def _error(self, name: str) -> BaseException:
        if name == "UnicodeDecodeError":
            return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        kind = getattr(self._real, f"NVMLError_{name}", None) or getattr(self._real, name, None)
        kind = kind or getattr(builtins, name, None)
        return kind() if kind is not None else self._real.NVMLError(999)

    def _entry(self, key: str) -> object:
        series = self.trace["calls"].get(key)
        if series is None:
            if key in ("nvmlInit()", "nvmlShutdown()") or key in self.trace["samples"]:
                return None
            raise self._error("NotSupported")
        while True:
            index = bisect.bisect_right(series["t_ms"], self.now_s * 1e3) - 1
            value = series["v"][max(index, 0)]
            if not (isinstance(value, dict) and value.get("hangs")) or self._released:
                break
            later = series["t_ms"][index + 1 :]
            self._wait(later[0] / 1e3 if later else float("inf"))
        if isinstance(value, dict) and "error" in value:
            raise self._error(value["error"])
        if series.get("linear"):
            return self._grown(series)
        return value

    def _grown(self, series: dict[str, Any], at_s: float | None = None) -> int:
        times, values = series["t_ms"], series["v"]
        at = (self.now_s if at_s is None else at_s) * 1e3
        left = min(max(bisect.bisect_right(times, at) - 1, 0), len(times) - 2)
        slope = (values[left + 1] - values[left]) / (times[left + 1] - times[left])
        return round(values[left] + slope * (at - times[left]))

    def _samples(self, key: str, last_seen_us: int) -> tuple[int, list[SimpleNamespace]]:
        stream = self.trace["samples"][key]
        start_us = round(self._wall_s * 1e6)
        now_us = round(self.now_s * 1e6)
        if "every_ms" in stream:
            step, keep = stream["every_ms"] * 1000, stream["keep"]
            first = max(now_us // step - keep + 1, (last_seen_us - start_us) // step + 1)
            found = [(n * step, self._sampled(stream, n * step)) for n in range(first, now_us // step + 1)]
        else:
            at, found = 0, []
            for delta, value in zip(stream["t_us"], stream["v"], strict=True):
                at += delta
                if last_seen_us < start_us + at and at <= now_us:
                    found.append((at, value))
        if not found:
            raise self._error("NotFound")
        member = _MEMBERS[stream["type"]]
        return stream["type"], [
            SimpleNamespace(timeStamp=start_us + at, sampleValue=SimpleNamespace(**{member: value}))
            for at, value in found
        ]

    def _sampled(self, stream: dict[str, Any], at_us: int) -> int:
        series = self.trace["calls"][stream["of"]]
        value = series["v"][max(bisect.bisect_right(series["t_ms"], at_us / 1e3) - 1, 0)]
        return value[stream["member"]] if "member" in stream else value


def _built(value: object) -> Any:
    if isinstance(value, list):
        return [_built(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "handle" in value:
        return Handle(value["handle"])
    if "bytes" in value:
        return value["bytes"].encode("latin-1")
    return SimpleNamespace(**{name: _built(one) for name, one in value.items()})

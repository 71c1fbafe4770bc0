"""Reads what an engine writes about itself: how far it is, where its memory went, whether it listens, why it died.

Two forms, told apart line by line: llama.cpp's text and, where the build has it, its JSON lines. A text log also holds
text of the model (its chat template is shown once): lines after that are not believed about memory, and the address is
checked by :mod:`.process` against the sockets that the engine really holds.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..clock import now_ns
from ..values import JSON, EngineBuffer, EventKind, Owner, ServerEvent

#: Stages of a start in their order: the line that begins one, what the user reads, and how far the start has then come,
#: by stages, not by time.
STAGES: tuple[tuple[re.Pattern[str], str, float], ...] = (
    (re.compile(r"load_model: loading model '|: loading model$"), "reading the model file", 0.1),
    (
        re.compile(r"fitting params to device memory|common_params_fit_impl: getting device"),
        "fitting it into memory",
        0.2,
    ),
    (re.compile(r"load_tensors: loading model tensors"), "loading weights", 0.3),
    (re.compile(r"llama_context: constructing llama_context|KV buffer size"), "reserving the KV cache", 0.7),
    (re.compile(r"warming up the model"), "warming up", 0.85),
)

_LINE = re.compile(r"^(?:(\d+)\.(\d\d)\.(\d{3})\.(\d{3})|\s{8,})\s(?:(?P<level>[DTIWE])\s)?(?P<text>.*)$")
_LEVELS = {"error": "E", "warn": "W", "warning": "W", "info": "I"}
_LISTENING = re.compile(r"listening on (https?://\S+)")
_BUFFER = re.compile(r":\s+(\S+)\s+(?:DSV4 \S+ )?(model|output|KV|RS|LoRA|compute|state) buffer size =\s+([\d.]+) MiB")
_OWNER: dict[str, Owner] = {
    "model": "weights",
    "LoRA": "weights",
    "KV": "kv",
    "RS": "kv",
    "state": "kv",
    "output": "output",
    "compute": "compute",
}
#: llama.cpp's table of what it is going to need, printed before it loads: total = free + (self = model + context +
#: compute) + unaccounted, in MiB; the host's row has no total.
_BREAKDOWN = re.compile(
    r"memory_breakdown_print: \|\s+- (\S+)(?: \(.*?\))?\s+\|\s+(?:(\d+) =\s+(\d+) \+ \()?"
    r"\s*\d+ =\s+(\d+) \+\s+(\d+) \+\s+(\d+)"
)
_DEVICE = re.compile(r"_(?:Mapped|Host|Split|REPACK|Aligned)$")
_TIMING = re.compile(
    r"print_timing: id\s+(\d+) \| task (\d+) \|\s+(prompt eval|eval|total) time =\s*([\d.]+) ms /\s*(\d+) tokens"
)
_RELEASE = re.compile(r"release: id\s+(\d+) \| task (\d+) \| stop processing: n_tokens = (\d+), truncated = (\d)")
_PROMPT = re.compile(r"id\s+(\d+) \| task (\d+) \| new prompt, .*\btask\.n_tokens = (\d+)")
_CACHED = re.compile(r"id\s+(\d+) \| task (\d+) \| cached n_tokens = (\d+)")
_SLEEP = re.compile(r"start_loop: (entering|exiting) sleeping state")
_UNFIT = re.compile(r"failed to fit params to (?:free )?device memory: (.*)")
#: What the engine goes on after although the user would want to know: the line, what it means, what to type.
WARNINGS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"ggml_cuda_init: failed to initialize .*?: (.*)|failed to initialize CUDA: (.*)"),
        "CUDA could not be used: {0}",
        "!nvidia-smi",
    ),
    (
        _UNFIT,
        "the model does not fit into free memory ({0}); it is loaded all the same and may fail later",
        "%llama restart --ctx 2048",
    ),
    (
        re.compile(r"compute buffer allocation failed, retrying without pipeline parallelism"),
        "memory was short: it runs without pipeline parallelism",
        "%llama restart --ubatch 256",
    ),
)
_TEMPLATE = re.compile(r"chat template, example_format:")


def device_of(buffer: str) -> str:
    """``CPU_Mapped`` → ``CPU``, ``CUDA0_Split`` → ``CUDA0``, ``CUDA_Host`` → ``CPU`` (pinned host memory)."""
    if buffer.endswith("_Host"):
        return "CPU"
    return _DEVICE.sub("", buffer)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log; ``level`` is ``D T I W E``, or ``None`` for text that the logger did not write."""

    level: str | None
    text: str
    sure: bool = False  # JSON lines can't be forged by text inside of them
    since_us: int | None = None  # since the engine's start, by its own clock

    @classmethod
    def of(cls, raw: str) -> Line | None:
        """The line, ``None`` for one that carries nothing."""
        if raw.startswith("{"):
            try:
                data = json.loads(raw)
            except ValueError:
                return cls(None, raw)
            if isinstance(data, dict) and isinstance(msg := data.get("msg"), str):
                level = str(data.get("level", "info")).lower()
                time = data.get("time")
                since_us = time if isinstance(time, int) and 0 <= time < 2**53 else None
                return cls(_LEVELS.get(level, "D"), msg.rstrip("\n"), sure=True, since_us=since_us)
            return None  # other event types; more are to come
        found = _LINE.match(raw)
        if found is None:
            return cls(None, raw)
        minutes, seconds, ms, us = (int(part) if part else 0 for part in found.groups()[:4])
        since_us = ((minutes * 60 + seconds) * 1000 + ms) * 1000 + us if found[1] else None
        return cls(found["level"] or "I", found["text"], since_us=since_us)


class Parser:
    """Turns the lines of one engine's life into events and a small state."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.stage = -1
        #: Addresses that a line named; which of them is the engine's is for the caller to find out.
        self.urls: list[str] = []
        #: Until the caller sets it to false: later lines about buffers (a model woken from sleep) would count twice.
        self.loading = True
        #: That memory is short was foretold: the engine's word of it is not taken as another warning.
        self.short = False
        self.lines: list[str] = []  # the newest, for a failure's reason
        #: Cause and remedy of what went wrong without ending the start.
        self.warnings: list[tuple[str, str]] = []
        #: What each device was going to need, by the engine's own measurement before it loaded.
        self.fit: dict[str, dict[str, JSON]] = {}
        self._buffers: dict[tuple[str, Owner], float] = {}
        self._believed = True
        self._open: dict[tuple[str, str], dict[str, JSON]] = {}
        self._prompts: dict[tuple[str, str], dict[str, JSON]] = {}
        self._zero_ns: int | None = None  # the engine's start, as far as its lines have told
        self._now_ns = now_ns()

    @property
    def buffers(self) -> tuple[EngineBuffer, ...]:
        """What the engine has allocated, one entry per device and owner."""
        return tuple(EngineBuffer(d, o, round(mib * 2**20)) for (d, o), mib in self._buffers.items())

    def feed(self, raw: str) -> Iterator[ServerEvent]:
        """Events of one more line."""
        line = Line.of(raw)
        if line is None:
            if self.loading and '"fit_memory_breakdown"' in raw:
                for row in _breakdown(raw):
                    yield from self._fitted(*row)
            return
        self.lines.append(line.text)
        del self.lines[:-400]
        text = line.text
        self._now_ns = self._written_ns(line)
        if self.loading and self._believed:
            yield from self._warned(text)
        if line.level is None:
            return
        if not line.sure and _TEMPLATE.search(text):
            self._believed = False
        if self.loading:
            yield from self._loading(text)
        if found := _SLEEP.search(text):
            yield self._event("sleep" if found[1] == "entering" else "wake")
        elif (found := _PROMPT.search(text)) or (found := _CACHED.search(text)):
            name = "cached_tokens" if found.re is _CACHED else "input_tokens"
            self._prompts.setdefault((found[1], found[2]), {})[name] = int(found[3])
        elif found := _TIMING.search(text):
            open_ = self._open.setdefault((found[1], found[2]), {})
            phase = {"prompt eval": "prefill", "eval": "decode", "total": "total"}[found[3]]
            open_ |= {f"{phase}_s": float(found[4]) / 1e3, f"{phase}_tokens": int(found[5])}
        elif found := _RELEASE.search(text):
            timing = self._open.pop((found[1], found[2]), None)
            prompt = self._prompts.pop((found[1], found[2]), {})
            if timing is not None:
                yield self._event(
                    "request",
                    slot=int(found[1]),
                    task=int(found[2]),
                    kv_tokens=int(found[3]),
                    truncated=found[4] == "1",
                    **prompt,
                    **timing,
                )

    def _loading(self, text: str) -> Iterator[ServerEvent]:
        for index in range(self.stage + 1, len(STAGES)):
            if STAGES[index][0].search(text):
                self.stage = index
                yield self._event("load_stage", stage=STAGES[index][1], fraction=STAGES[index][2])
                break
        if self._believed and (found := _BUFFER.search(text)):
            device, owner, mib = device_of(found[1]), _OWNER[found[2]], float(found[3])
            # The same compute buffer is announced again when it is reserved anew; other kinds add up.
            before = 0.0 if owner == "compute" else self._buffers.get((device, owner), 0.0)
            self._buffers[device, owner] = before + mib
            yield self._event("buffer", device=device, owner=owner, bytes=round(mib * 2**20))
        if self._believed and (found := _BREAKDOWN.search(text)):
            yield from self._fitted(*found.groups())
        if found := _LISTENING.search(text):
            self.urls.append(found[1].rstrip("/"))

    def _fitted(self, device: str, total: object, free: object, *parts: object) -> Iterator[ServerEvent]:
        names = ("total_bytes", "free_bytes", "model_bytes", "context_bytes", "compute_bytes")
        row: dict[str, JSON] = {
            name: int(mib) << 20 if isinstance(mib, (int, str)) else None
            for name, mib in zip(names, (total, free, *parts), strict=True)
        }
        if self.fit.get(device) != row:
            self.fit[device] = row
            yield self._event("fit", device=device, **row)

    def _warned(self, text: str) -> Iterator[ServerEvent]:
        for pattern, cause, remedy in WARNINGS:
            if (found := pattern.search(text)) is not None and not (self.short and pattern is _UNFIT):
                said = next((group for group in found.groups() if group), "")
                yield self.warn(cause.format(said[:160]), remedy)

    def warn(self, cause: str, remedy: str) -> ServerEvent:
        """The event of a warning, which is kept in :attr:`warnings`."""
        if (cause, remedy) not in self.warnings:
            self.warnings.append((cause, remedy))
        return self._event("warning", cause=cause, remedy=remedy)

    def _written_ns(self, line: Line) -> int:
        """When a line was written: its own clock, set by the line that was read soonest after it was written."""
        now = now_ns()
        if line.since_us is None:
            return now
        zero = now - line.since_us * 1000
        self._zero_ns = zero if self._zero_ns is None else min(zero, self._zero_ns)
        return self._zero_ns + line.since_us * 1000

    def _event(self, kind: EventKind, **data: JSON) -> ServerEvent:
        return ServerEvent(self._now_ns, self.server, kind, data)


def _breakdown(raw: str) -> Iterator[tuple[str, object, object, object, object, object]]:
    """Rows of ``--log-jsonl``'s memory event: device, total, free, model, context, compute, in MiB."""
    try:
        rows = json.loads(raw)["data"]["rows"]
        for row in rows:
            yield str(row["name"]), row.get("total"), row.get("free"), row["model"], row["context"], row["compute"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return


class Tail:
    """The complete lines that were added to a log since the last look, also when its guard began it anew."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self._old = path.with_name(f"{path.name}.1")
        self._rotated = self._mark()
        self._position = path.stat().st_size if from_end else 0
        self._rest = b""

    def read(self) -> list[str]:
        """New lines; a last line without its end waits for the next call. At most 4 MiB per call and file."""
        data = b""
        if (mark := self._mark()) != self._rotated:
            self._rotated = mark
            if mark is not None:
                data = self._new(self._old)
            self._position = 0
        new = self._new(self.path)
        self._position += len(new)
        if not (data := data + new):
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _new(self, path: Path) -> bytes:
        with path.open("rb") as file:
            file.seek(self._position)
            return file.read(4 << 20)

    def _mark(self) -> tuple[int, int] | None:
        """Which file the older part is; it changes once the log began anew, and never before."""
        try:
            status = self._old.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def rest(self) -> list[str]:
        """Everything that is left once nobody writes any more."""
        lines: list[str] = []
        while more := self.read():
            lines += more
        if self._rest:
            lines.append(self._rest.decode("utf-8", "replace"))
            self._rest = b""
        return lines


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log in readable form, the older part included; of a large file only the last MiB is read."""
    raw = _end(path)
    if len(raw) < count:
        with contextlib.suppress(FileNotFoundError):
            raw = _end(path.with_name(f"{path.name}.1")) + raw
    shown: list[str] = []
    for text in raw[-count:]:
        line = Line.of(text) if text.startswith("{") else None
        shown.append(f"{line.level} {line.text}" if line else text)
    return shown


def _end(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 20)))
        return file.read().decode("utf-8", "replace").splitlines()

"""An engine's log read as it grows: stages of loading, buffers, the address, and the cause when it ends.

Lines are the engine's text, in plain form or as JSON lines; matched by what they say, not by which function said it,
because builds differ in that.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from .. import escape
from ..values import EngineBuffer, Owner

_MIB = 1 << 20
_BUFFER = re.compile(r":\s+(\S+)\s+(?:DSV4 \S+ )?(model|output|KV|RS|LoRA|compute|state) buffer size =\s+([\d.]+) MiB")
_OWNERS: dict[str, Owner] = {
    "model": "weights", "LoRA": "weights", "KV": "kv", "RS": "kv", "state": "kv",
    "compute": "compute", "output": "output",
}  # fmt: skip
_LISTENING = re.compile(r"listening on (https?://\S+)")
# Stages in the order in which a start passes them; the fraction is how far a start has come, by stages, not by time.
_STAGES = (
    ("loading model '", "reading the model file", 0.1),
    ("load_tensors: loading model tensors", "loading weights", 0.3),
    ("KV buffer size", "reserving the KV cache", 0.7),
    ("warming up the model", "warming up", 0.85),
    ("model loaded", "model loaded", 1.0),
)
# What a line says → what it means and what to type. First match wins; the engine's own last line is kept beside it.
_CAUSES = (
    ("invalid magic characters", "the file is not a GGUF model", "%llama start smollm2-135m"),
    ("is not within the file bounds", "the model file is cut off", "fetch the file again"),
    ("unknown model architecture", "this engine does not know the model's architecture", "%pip install -U xllamacpp"),
    ("couldn't bind", "the port is taken", "%llama start   (without --port it takes a free one)"),
    ("invalid argument", "the engine does not know an option", "%llama logs"),
    ("out of memory", "not enough GPU memory", "%llama start --ctx 2048, or a smaller model"),
    ("failed to allocate buffer for kv cache", "not enough memory for the KV cache", "%llama start --ctx 2048"),
    ("insufficient memory", "not enough memory", "%llama start --ctx 2048, or a smaller model"),
    ("failed to open GGUF file", "the model file cannot be opened", "%llama start smollm2-135m"),
)
_SIGNALS = {
    signal.SIGKILL: ("it was killed (kill -9, or the system ran out of memory)", "%llama start --ctx 2048"),
    signal.SIGILL: ("it uses instructions that this CPU lacks", "%llama start --engine /path/to/another/llama-server"),
    signal.SIGABRT: ("the engine aborted", "%llama logs"),
    signal.SIGSEGV: ("the engine crashed", "%llama logs"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an engine ended, and what to type."""

    reason: str
    hint: str


class Log:
    """A log file followed from its start; :meth:`read` returns what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url: str | None = None
        self.buffers: list[EngineBuffer] = []
        self._offset = 0
        self._rest = b""

    def read(self) -> Iterator[tuple[str, float]]:
        """Parse what was written since the last call; yields the stages reached."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for raw in lines:
            line = message(raw.decode("utf-8", "replace"))
            if found := _BUFFER.search(line):
                device = re.sub(r"_(Mapped|Host|Split|REPACK)$", "", found[1])
                self.buffers.append(EngineBuffer(device, _OWNERS[found[2]], round(float(found[3]) * _MIB)))
            if found := _LISTENING.search(line):
                self.url = found[1]
            for text, stage, fraction in _STAGES:
                if text in line:
                    yield stage, fraction

    def tail(self, last: int) -> list[str]:
        """The last ``last`` lines as text."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - last * 400))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return [message(line) for line in lines[-last:]]


def message(line: str) -> str:
    """The text of a log line, out of its JSON when it is one."""
    if line.startswith('{"'):
        try:
            found = json.loads(line)
        except ValueError:
            return line
        if isinstance(found, dict):
            return str(found.get("msg", line)).rstrip("\n")
    return line


def explain(lines: list[str], returncode: int | None) -> Failure:
    """The cause of an engine's end from its last lines and its exit status."""
    for text, reason, hint in _CAUSES:
        for line in reversed(lines):
            if text in line:
                return Failure(f"{reason} ({_short(line)})", hint)
    if returncode is not None and returncode < 0 and -returncode in _SIGNALS:
        return Failure(*_SIGNALS[signal.Signals(-returncode)])
    errors = [line for line in lines if re.search(r"^\S+ E |\berror\b", line)]
    said = f": {_short(errors[-1])}" if errors else ""
    return Failure(f"the engine ended with status {returncode}{said}", "%llama logs")


def _short(line: str) -> str:
    text = re.sub(r"^[\d.]+ [A-Z] ", "", escape.plain(line)).strip()
    return text if len(text) <= 140 else text[:137] + "..."


assert set(_OWNERS.values()) <= set(get_args(Owner))

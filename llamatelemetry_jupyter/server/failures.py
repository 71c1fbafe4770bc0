"""Why an engine died, from its last lines and its exit code, and what to type about it."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..gpu.nvml import Nvml
from ..values import EngineBuffer


@dataclass(frozen=True, slots=True)
class Failure:
    """``cause`` is one clause without a full stop, ``remedy`` the thing to type."""

    cause: str
    remedy: str
    memory: bool = False  # there was too little of it


_LOGS = "%llama logs -n 60"
_DEMO = "%llama start smollm2-135m"
_SMALLER = "%llama start --ctx 2048 --slots 1 --restart"

#: In order: the first that matches any of the last lines is the cause; ``{0}`` is the pattern's first group.
_KNOWN: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), cause, remedy)
    for pattern, cause, remedy in (
        (r"failed to load lora adapter '(.*?)'", "the adapter {0} does not belong to this model", "leave --lora out"),
        (
            r"failed to load multimodal model, '(.*?)'",
            "the projector {0} does not belong to this model",
            "leave --mmproj out",
        ),
        (
            r"failed to load draft model, '(.*?)'|target and draft vocabs are not compatible",
            "the draft model does not fit the model",
            "leave --draft-model out",
        ),
        (
            r"RPC not supported in this build",
            "this engine was built without the RPC backend",
            "%llama start --engine PATH",
        ),
        (r"not a directory: (.*)", "there is no folder {0}", "!mkdir -p {0}"),
        (
            r"common_chat_verify_template: failed to apply template|chat template .* is not supported",
            "the chat template cannot be used",
            "leave --chat-template out",
        ),
        (r"failed to open GGUF file '(.*?)'", "the model file {0} cannot be opened", "!ls -l {0}"),
        (r"invalid magic characters: (.*?), expected", "it is not a GGUF model (it starts with {0})", _DEMO),
        (r"not within the file bounds", "the model file is truncated or damaged", "download it again"),
        (
            r"unknown model architecture: '(.*?)'",
            "this engine is too old for models of the architecture {0}",
            '%pip install -U "llamatelemetry-jupyter[local]"',
        ),
        (r"couldn't bind HTTP server socket, hostname: (\S+?), port: (\d+)", "the port is taken: {1}", "%llama start"),
        (r"invalid argument: (\S+)", "this llama-server does not know {0}", "%llama start --engine xllamacpp"),
        (r'error while handling argument "(.*?)": (.*)', "the engine refused {0}: {1}", "%llama start --help"),
        (
            r"this xllamacpp has no setting '(\S+?)'",
            "this xllamacpp has no {0}: it is too old",
            "%pip install -U xllamacpp",
        ),
        (r"quantized V cache requires flash_attn", "a quantised KV cache needs flash attention", "%llama start"),
        (r"cudaMalloc failed: out of memory|CUDA error: out of memory", "the GPU's memory is not enough", _SMALLER),
        (
            r"insufficient memory \(attempted to allocate ([\d.]+ MB)\)",
            "memory is not enough: the engine asked for {0}",
            _SMALLER,
        ),
        (r"failed to allocate buffer|unable to allocate \S+ buffer|std::bad_alloc", "memory is not enough", _SMALLER),
        (
            r"no kernel image is available|unsupported toolchain|Unsupported \.version",
            "this engine was not built for this GPU or its driver",
            "%llama start --engine PATH",
        ),
        (r"CUDA error: (.*)", "the GPU reported: {0}", "!nvidia-smi"),
        (r"error: cannot run (.*?): (.*)", "{0} cannot be run: {1}", "%llama start --engine PATH"),
        (
            r"error while loading shared libraries: (\S+?):",
            "the engine lacks the library {0}",
            "%llama start --engine PATH",
        ),
        (
            r"No module named '?(xllamacpp[\w.]*)",
            "the wheel {0} is not there",
            '%pip install "llamatelemetry-jupyter[local]"',
        ),
        (r"error loading model: (.*)", "the model cannot be loaded: {0}", _DEMO),
    )
)

_SIGNALS = {
    signal.SIGKILL: "it was killed (kill -9, or the system had no memory left)",
    signal.SIGILL: "this CPU lacks instructions that the engine was built for",
    signal.SIGABRT: "the engine aborted",
    signal.SIGSEGV: "the engine crashed (segmentation fault)",
    signal.SIGBUS: "the model file shrank or its disk failed while it was read",
    signal.SIGTERM: "it was told to end (SIGTERM)",
    signal.SIGINT: "it was interrupted (SIGINT)",
}
_REMEDIES = {
    signal.SIGKILL: _SMALLER,
    signal.SIGILL: "%llama start --engine PATH",
    signal.SIGBUS: "download the model again",
}


def cpu_fallback(
    gpu_layers: int | None, buffers: Sequence[EngineBuffer], lines: Sequence[str], devices: Collection[str] = ()
) -> Failure | None:
    """Why a model runs on the CPU although the driver shows GPUs; ``None`` when it does not, or was asked to.

    llama.cpp says nothing about it and goes on, many times slower. ``devices`` are those that the engine measured.
    """
    if gpu_layers == 0 or not buffers or any(b.device != "CPU" for b in buffers):
        return None
    nvml = Nvml()
    names = [info.name for info in nvml.infos()]
    nvml.close()
    if not names:
        # Layers on a GPU were asked for: llama.cpp ignores that, and says so only here.
        if gpu_layers and any("no usable GPU found" in line for line in lines):
            return Failure("no GPU can be used: the model runs on the CPU", "%llama doctor")
        return None
    there = f"{names[0]} is" if len(names) == 1 else f"{len(names)} GPUs ({names[0]}) are"
    sees = any(device != "Host" for device in devices)
    if sees or any("ggml_cuda_init: found" in line or re.search(r"offloaded \d+/\d+ layers", line) for line in lines):
        return Failure(f"{there} there, but no layer fitted on it: the model runs on the CPU", _SMALLER)
    return Failure(
        f"{there} there, but this engine has no GPU backend: the model runs on the CPU", "%llama install --engine cuda"
    )


def explain(returncode: int | None, lines: Sequence[str]) -> Failure:
    """The most likely cause of an engine's end; ``lines`` are its last ones, without prefix, oldest first."""
    for pattern, cause, remedy in _KNOWN:
        for line in reversed(lines):
            if found := pattern.search(line):
                groups = [str(g) for g in found.groups()]
                return Failure(cause.format(*groups), remedy.format(*groups), memory=remedy == _SMALLER)
    if returncode is not None and returncode < 0:
        number = -returncode
        known = next((s for s in _SIGNALS if s == number), None)
        if known is not None:
            return Failure(_SIGNALS[known], _REMEDIES.get(known, _LOGS), memory=known == signal.SIGKILL)
        return Failure(f"it was ended by signal {number}", _LOGS)
    last = next((line.strip() for line in reversed(lines) if re.search(r"\berror\b|failed", line, re.IGNORECASE)), None)
    said = f": {last[:200]}" if last else ""
    return Failure(f"it ended with code {returncode}{said}", _LOGS)

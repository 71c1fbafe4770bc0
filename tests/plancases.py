"""Models and settings for which the plan is compared with what the real engine then writes into its log."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ggufs import Shape, write
from realengine import model_path

from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.gguf import check
from llamatelemetry_jupyter.models.host import host_device
from llamatelemetry_jupyter.models.plan import Share, plan
from llamatelemetry_jupyter.models.shape import ModelShape, shape_of
from llamatelemetry_jupyter.server.runtime import find_runtime

MIB = 2**20
_DENSE = Shape(embd=512, ff=1536, heads=8, kv_heads=2, head=64, layers=6)
_WINDOWS = replace(_DENSE, arch="gemma3", layers=13, extra={"attention.sliding_window": 512})


@dataclass(frozen=True)
class Case:
    """A model (``None``: SmolLM2) and how it is run."""

    id: str
    shape: Shape | None
    demand: Demand


CASES = (
    Case("SmolLM2, one slot", None, Demand(2048)),
    Case("SmolLM2, two slots", None, Demand(1024, slots=2)),
    Case("SmolLM2, slots that do not divide", None, Demand(333, slots=3)),
    Case("SmolLM2, four slots, one cache", None, Demand(2048, slots=4, unified=True)),
    Case("SmolLM2, q8_0 cache", None, Demand(8192, kv_type="q8_0")),
    Case("SmolLM2, q8_0 keys, f16 values", None, Demand(2048, kv_type="q8_0", value_type="f16")),
    Case("SmolLM2, no flash attention", None, Demand(2048, flash_attention=False)),
    Case("SmolLM2, batches of 2048", None, Demand(4096, ubatch=2048)),
    Case("SmolLM2, embeddings, two slots", None, Demand(512, slots=2, unified=True, ubatch=512, embeddings=True)),
    Case("SmolLM2, file not mapped", None, Demand(2048, mapped=False)),
    Case("llama, GQA 4:1, q4_0 cache", _DENSE, Demand(8192, kv_type="q4_0")),
    Case("llama, output matrix of its own", replace(_DENSE, tied=False, vocab=16384), Demand(4096, slots=2)),
    Case("llama, Q4_0 weights", replace(_DENSE, kind="Q4_0"), Demand(4096)),
    Case("llama, wide feed-forward", replace(_DENSE, ff=4096, layers=4), Demand(2048, ubatch=256)),
    Case("qwen2, biases", replace(_DENSE, arch="qwen2"), Demand(2048, slots=2)),
    Case("qwen3, normed heads", replace(_DENSE, arch="qwen3", heads=16), Demand(16384)),
    Case("qwen3, experts", replace(_DENSE, arch="qwen3moe", ff=256, experts=16, experts_used=4), Demand(4096)),
    Case("mixtral, experts, Q4_K weights", replace(_DENSE, experts=8, experts_used=2, kind="Q4_K", layers=3), Demand(4096)),
    Case("the same, file not mapped", replace(_DENSE, experts=8, experts_used=2, kind="Q4_K", layers=3), Demand(4096, mapped=False)),
    Case("phi3, fused matrices", replace(_DENSE, arch="phi3"), Demand(4096)),
    Case("gemma2, window 4096", replace(_DENSE, arch="gemma2"), Demand(8192)),
    Case("gemma3, window 512", _WINDOWS, Demand(8192)),
    Case("gemma3, window 512, two slots", _WINDOWS, Demand(4096, slots=2)),
    Case("gemma3, window 512, two slots, one cache", _WINDOWS, Demand(4096, slots=2, unified=True)),
    Case("gemma3, window 512, whole caches", _WINDOWS, Demand(4096, whole_windows=True)),
    Case("gemma3, window 512, no flash attention", _WINDOWS, Demand(4096, flash_attention=False)),
    Case("lfm2, convolutions", replace(_DENSE, arch="lfm2", kv_heads=(0, 0, 2, 0, 0, 2), extra={"shortconv.l_cache": 3}), Demand(4096, slots=2)),
)  # fmt: skip

_HOST = """
import json, os, sys, xllamacpp
params, given = xllamacpp.CommonParams(), json.loads(sys.argv[2])
params.model.path = sys.argv[1]
for name, value in given.items():
    setattr(params, name, value)
params.cache_type_k, params.cache_type_v = (getattr(xllamacpp.ggml_type, kind) for kind in sys.argv[3:5])
params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, sys.argv[5])
params.load_mode = getattr(xllamacpp.llama_load_mode, sys.argv[6])
if params.embedding:  # as ours are started where the model names no other
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
os._exit(0)
"""
_BUFFER = re.compile(r":\s+(\S+)\s+(model|output|KV|RS|compute) buffer size =\s+([\d.]+) MiB")


def model_file(case: Case, folder: Path) -> Path:
    """The case's model, written when it is not SmolLM2."""
    if case.shape is None:
        return model_path()
    path = folder / f"{case.shape.arch}.gguf"
    return write(path, case.shape)


def engine_report(path: Path, demand: Demand) -> dict[str, float]:
    """MiB of ``weights``, ``kv``, ``compute`` and ``output`` as the engine's log says them, each to 0.01."""
    given = {
        "n_ctx": demand.ctx * demand.slots, "n_parallel": demand.slots, "n_batch": demand.batch, "n_ubatch": demand.ubatch,
        "kv_unified": demand.unified, "embedding": demand.embeddings, "swa_full": demand.whole_windows, "port": 0,
        "warmup": False, "verbosity": 4, "fit_params": False, "cache_ram_mib": 0,
    }  # fmt: skip
    enums = (
        *(f"GGML_TYPE_{kind.upper()}" for kind in (demand.kv_type, demand.values)),
        f"LLAMA_FLASH_ATTN_TYPE_{'ENABLED' if demand.flash_attention else 'DISABLED'}",
        f"LLAMA_LOAD_MODE_{'MMAP' if demand.mapped else 'NONE'}",
    )
    command = [sys.executable, "-c", _HOST, str(path), json.dumps(given), *enums]
    found: list[tuple[str, str, str]] = []
    # The engine writes its log on a thread of its own, and is ended as soon as it serves: compute buffers come last.
    while not any(kind == "compute" for _, kind, _ in found):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        found = _BUFFER.findall(done.stderr)
    report = dict.fromkeys(("weights", "kv", "compute", "output"), 0.0)
    for _, kind, mib in found:
        report[{"model": "weights", "KV": "kv", "RS": "kv"}.get(kind, kind)] += float(mib)
    return report


def fit_params_tool() -> str | None:
    """llama.cpp's own planner, beside the ``llama-server`` on PATH or on PATH itself; ``None`` where there is none."""
    server = shutil.which("llama-server")
    beside = find_runtime(server).tools.get("llama-fit-params") if server else None
    return beside or shutil.which("llama-fit-params")


def fit_params_report(tool: str, path: Path, demand: Demand) -> dict[str, int] | None:
    """Whole MiB of ``weights``, ``context`` and ``compute`` by llama-fit-params; ``None`` for what it cannot be told."""
    if demand.unified or demand.embeddings:
        return None
    done = subprocess.run(
        [
            tool, "--model", str(path), "--ctx-size", str(demand.ctx * demand.slots), "--parallel", str(demand.slots),
            "--batch-size", str(demand.batch), "--ubatch-size", str(demand.ubatch), "--cache-type-k", demand.kv_type,
            "--cache-type-v", demand.values, "--flash-attn", "on" if demand.flash_attention else "off", "--load-mode",
            "mmap" if demand.mapped else "none", "--fit-print", "on", *(["--swa-full"] if demand.whole_windows else []),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    found = re.search(r"^Host (\d+) (\d+) (\d+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr[-2000:]
    return dict(zip(("weights", "context", "compute"), map(int, found.groups()), strict=True))


def predicted(path: Path, demand: Demand) -> tuple[ModelShape, Share]:
    """The plan for this machine without a GPU."""
    shape = shape_of(check(path))
    return shape, plan(shape, (), host_device(), demand).shares[-1]


def parts(share: Share) -> dict[str, float]:
    """A plan's MiB under the names of :func:`engine_report`."""
    return {name: getattr(share, name) / MIB for name in ("weights", "kv", "compute", "output")}

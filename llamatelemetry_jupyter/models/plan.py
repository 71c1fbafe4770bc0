"""Where a model's bytes would go, before it is started: values in, plan out, nothing is asked or loaded.

Every formula is llama.cpp's own (docs/memory.md names the lines). Weights and caches agree with the engine's log at the
0.01 MiB that it prints; compute buffers do on the CPU (:mod:`.compute`). What concerns CUDA could not be run when this
was written and is marked as unverified: the context of a GPU, the copies of pipeline parallelism.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from .compute import compute_bytes
from .demand import CELLS, MARGIN_BYTES, Demand, kv_bytes
from .ggml import TENSOR_TYPES
from .header import TensorInfo
from .shape import ModelShape

#: CUDA context and kernels per GPU: "unaccounted" in the print of llama.cpp's PR 15860. Unverified on a T4.
CONTEXT_BYTES = 450 << 20
#: With pipeline parallelism inputs are kept so many times (GGML_SCHED_MAX_COPIES). Unverified.
_COPIES = 4
#: Of the host's free memory at most the margin stays free, and at most one part in so many: on a small machine a whole
#: GiB would be more than a small model needs.
_SPARED = 5
_CUDA_ROW = 512  # MATRIX_ROW_PADDING: rows of quantised weights on a GPU are padded at the end of the tensor
_BLOCKS = {name: (block, size) for name, block, size in TENSOR_TYPES.values()}

#: Bits per weight of llama-quantize's types for Llama 3.1 8B (tools/quantize/README.md), the best first.
QUANTS: tuple[tuple[str, float], ...] = (
    ("F16", 16.0005), ("Q8_0", 8.5008), ("Q6_K", 6.5633), ("Q5_K_M", 5.7036), ("Q5_K_S", 5.5704), ("Q4_K_M", 4.8944),
    ("Q4_K_S", 4.6672), ("IQ4_XS", 4.4597), ("Q3_K_M", 3.9960), ("IQ3_M", 3.7628), ("Q3_K_S", 3.6429),
    ("IQ3_XXS", 3.2548), ("Q2_K", 3.1593), ("IQ2_M", 2.9294), ("IQ2_XXS", 2.3824),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """A place for layers; ``repacked`` are the types that a CPU keeps in an order of its own, beside the file."""

    name: str
    free_bytes: int
    kind: Literal["gpu", "host"]
    total_bytes: int | None = None
    repacked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Share:
    """What one device would hold, in bytes; ``mapped`` is the part of ``weights`` that is the file itself in memory."""

    device: Device
    layers: tuple[int, ...]
    weights: int
    mapped: int
    kv: int
    compute: int
    output: int
    context: int
    margin: int

    @property
    def used(self) -> int:
        """Bytes that are taken, without the margin."""
        return self.weights + self.kv + self.compute + self.output + self.context

    @property
    def left(self) -> int:
        """Free bytes that remain behind the margin; negative: so much is missing."""
        return self.device.free_bytes - self.used - self.margin


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement of all layers; ``gpu_layers`` counts as ``--gpu-layers`` does, the output as one more."""

    demand: Demand
    shares: tuple[Share, ...]
    gpu_layers: int
    tensor_split: tuple[float, ...]
    ctx_per_slot: int
    approximate: str | None

    @property
    def fits(self) -> bool:
        """Whether every device keeps its margin."""
        return all(share.left >= 0 for share in self.shares)

    @property
    def total(self) -> int:
        """Bytes on all devices together."""
        return sum(share.used for share in self.shares)


def plan(shape: ModelShape, gpus: Sequence[Device], host: Device, demand: Demand) -> Plan:
    """The plan with as many layers on ``gpus`` as fit there; with none of them everything is on ``host``."""
    most = len(shape.layers) + 1 if gpus else 0
    whole = placed(shape, gpus, host, demand, most)
    if all(share.left >= 0 for share in whole.shares if share.device.kind == "gpu"):
        return whole
    low, high = 0, most  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        tried = placed(shape, gpus, host, demand, middle)
        fits = all(share.left >= 0 for share in tried.shares if share.device.kind == "gpu")
        low, high = (middle, high) if fits else (low, middle)
    return placed(shape, gpus, host, demand, low)


def placed(shape: ModelShape, gpus: Sequence[Device], host: Device, demand: Demand, gpu_layers: int) -> Plan:
    """The plan with exactly ``gpu_layers``, whether it fits or not (llama_model_base::load_tensors)."""
    count = len(shape.layers)
    gpus = gpus[:1] if demand.split == "none" else gpus
    on_gpu = min(gpu_layers, count + 1) if gpus else 0
    start = count + 1 - on_gpu
    parts = demand.tensor_split[: len(gpus)] or [gpu.free_bytes for gpu in gpus]
    parts = [*parts, *[0] * (len(gpus) - len(parts))]
    points = list(accumulate(parts))
    where: list[list[int]] = [[] for _ in gpus]  # layer numbers; `count` is the output
    for index in range(start, count + 1):
        at = (index - start) / on_gpu * points[-1]
        where[min(bisect_right(points, at), len(gpus) - 1)].append(index)
    several = sum(bool(held) for held in where) > 1 and on_gpu == count + 1
    shares = [_on_gpu(shape, gpu, held, demand, several) for gpu, held in zip(gpus, where, strict=True)]
    shares.append(_on_host(shape, host, range(min(start, count)), demand, alone=not on_gpu))
    total = (points[-1] if points else 0) or 1
    return Plan(
        demand=demand,
        shares=tuple(shares),
        gpu_layers=on_gpu,
        tensor_split=tuple(round(part / total, 3) for part in parts) if len(gpus) > 1 else (),
        ctx_per_slot=demand.cells,
        approximate=shape.approximate,
    )


def largest_context(
    shape: ModelShape,
    gpus: Sequence[Device],
    host: Device,
    demand: Demand,
    gpu_layers: int | None = None,
    *,
    whole: bool = True,
) -> int | None:
    """Most tokens per slot that fit, at most what the model was trained for; ``None``: none.

    With all layers on ``gpus``, or with exactly ``gpu_layers``; without ``whole`` some may stay on the host.
    """
    most = len(shape.layers) + 1 if gpu_layers is None else gpu_layers

    def fits(steps: int) -> bool:
        wanted = replace(demand, ctx=steps * CELLS)
        return (placed(shape, gpus, host, wanted, most) if whole else plan(shape, gpus, host, wanted)).fits

    trained = min(shape.context_length or 1 << 17, 1 << 24)
    low, high = 0, max(trained // CELLS, 1) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * CELLS or None


def largest_quant(shape: ModelShape, gpus: Sequence[Device], host: Device, demand: Demand) -> tuple[str, int] | None:
    """The best quantisation of this model that fits whole, and about how many bytes its file would have.

    ``None`` when not even the smallest fits. Sizes are those of an 8B model per weight: some per cent off elsewhere.
    """
    for name, bits in QUANTS:
        scaled = quantised(shape, bits)
        if placed(scaled, gpus, host, demand, len(shape.layers) + 1 if gpus else 0).fits:
            return name, round(shape.parameters * bits / 8)
    return None


def quantised(shape: ModelShape, bits: float) -> ModelShape:
    """The same model with ``bits`` per weight on average."""
    share = shape.parameters * bits / 8 / max(sum(t.bytes or 0 for t in shape.tensors), 1)

    def resized(tensor: TensorInfo) -> TensorInfo:
        return replace(tensor, kind="", bytes=round((tensor.bytes or 0) * share), offset=round(tensor.offset * share))

    layers = (
        replace(x, weight_bytes=round(x.weight_bytes * share), expert_bytes=round(x.expert_bytes * share))
        for x in shape.layers
    )
    return replace(shape, tensors=tuple(map(resized, shape.tensors)), layers=tuple(layers))


def _on_gpu(shape: ModelShape, gpu: Device, held: list[int], demand: Demand, several: bool) -> Share:
    count = len(shape.layers)
    layers = [index for index in held if index < count]
    tensors = [
        t for index in layers for t in shape.layer_tensors(index, False if index < demand.host_experts else None)
    ]
    if count in held:
        tensors += shape.output_tensors
    compute = 0
    if held:
        first, last = (layers[0], layers[-1] + 1) if layers else (count, count)
        compute = compute_bytes(shape, demand, first, None if count in held else last, tokens=False)
        if several:
            compute += (_COPIES - 1) * _input_bytes(shape, demand)
    return Share(
        device=gpu,
        layers=tuple(layers),
        weights=sum(_cuda_bytes(tensor) for tensor in tensors),
        mapped=0,
        kv=0 if demand.host_cache else sum(kv_bytes(shape, demand, shape.layers[index]) for index in layers),
        compute=compute,
        output=0,
        context=CONTEXT_BYTES,
        margin=demand.margin,
    )


def _on_host(shape: ModelShape, host: Device, layers: range, demand: Demand, *, alone: bool) -> Share:
    multiplied = [t for index in layers for t in shape.layer_tensors(index)]
    for index in range(len(layers), min(demand.host_experts, len(shape.layers))):
        multiplied += shape.layer_tensors(index, experts=True)
    if alone:
        multiplied += shape.output_tensors
    repacked = [t for t in multiplied if _is_repacked(t, host.repacked)]
    apart = {t.name for t in repacked}
    # The engine maps the file from the first to the last tensor that it reads in place, whatever lies between.
    in_place = [t for t in multiplied if t.name not in apart] + list(shape.input_tensors)
    mapped = sum(
        max(t.offset + (t.bytes or 0) for t in part) - min(t.offset for t in part)
        for number in {t.part for t in in_place}
        if (part := [t for t in in_place if t.part == number])
    )
    if not demand.mapped:
        mapped, repacked = 0, [*repacked, *{t.name: t for t in in_place}.values()]
    cached = shape.layers if demand.host_cache else shape.layers[: len(layers)]
    return Share(
        device=host,
        layers=tuple(layers),
        weights=mapped + sum(t.bytes or 0 for t in repacked),
        mapped=mapped,
        kv=sum(kv_bytes(shape, demand, layer) for layer in cached),
        compute=compute_bytes(shape, demand, 0, None if alone else len(layers)),
        output=4 * demand.slots * shape.vocabulary,
        context=0,
        margin=min(MARGIN_BYTES, host.free_bytes // _SPARED),
    )


def _input_bytes(shape: ModelShape, demand: Demand) -> int:
    """What is copied to a device for each batch: the hidden state, positions, and the masks of its caches."""
    masks = demand.cells + (demand.window_cells(shape.window) if shape.window else 0)
    return demand.rows * (4 * shape.width + (2 if demand.flash_attention else 4) * masks + 28)


def _cuda_bytes(tensor: TensorInfo) -> int:
    block, size = _BLOCKS.get(tensor.kind, (1, 0))
    row = tensor.dimensions[0] if tensor.dimensions else 1
    padding = (_CUDA_ROW - row % _CUDA_ROW) // block * size if block > 1 and row % _CUDA_ROW else 0
    return (tensor.bytes or 0) + padding


def _is_repacked(tensor: TensorInfo, types: frozenset[str]) -> bool:
    """Weights of matrix products with rows in groups of 8 (ggml-cpu/repack.cpp)."""
    d = tensor.dimensions
    return tensor.kind in types and len(d) in (2, 3) and d[1] % 8 == 0

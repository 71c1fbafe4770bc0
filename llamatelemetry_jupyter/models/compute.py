"""Bytes of the engine's compute buffer: its graph is laid out here as its allocator lays it out there.

No formula fits: the buffer's size is what a best-fit allocator needs for the intermediate results of a graph, holes
included. So the graph of a model (which results, how wide, who reads them) is written down from the tensors in its
file, and ggml's allocator (ggml/src/ggml-alloc.c) is run over it. Sizes agree with the engine's log to 0.01 MiB for
plain, windowed and mixture-of-experts transformers on the CPU (docs/memory.md); recurrent layers are not written
down, so that models with them are estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .demand import Demand, padded, quantised
from .shape import Layer, ModelShape

_F32 = 4
_ALIGNMENT = 32  # TENSOR_ALIGNMENT of the CPU backend; CUDA's 128 makes no difference that shows
#: More layers of one kind than this change nothing: the allocator has reached its cycle.
_REPEATED = 4


@dataclass(eq=False, slots=True)
class _Result:
    """One intermediate result: read ``readers`` more times, at ``offset`` while it is ``held``."""

    size: int
    readers: int = 0
    offset: int = 0
    held: bool = False


@dataclass(eq=False, slots=True)
class _Step:
    result: _Result
    sources: tuple[_Result, ...]
    inplace: bool


class _Allocator:
    """Best fit among the holes, else at the end; what is given back merges with its neighbours."""

    def __init__(self) -> None:
        self.holes: list[list[int]] = []  # [offset, size] by offset
        self.end = 0
        self.peak = 0

    def take(self, size: int) -> int:
        best = min((hole for hole in reversed(self.holes) if hole[1] >= size), key=lambda h: h[1], default=None)
        if best is None:
            offset, self.end = self.end, self.end + size
            self.peak = max(self.peak, self.end)
            return offset
        offset = best[0]
        best[0] += size
        best[1] -= size
        if not best[1]:
            self.holes.remove(best)
        return offset

    def give(self, offset: int, size: int) -> None:
        at = next((i for i, hole in enumerate(self.holes) if hole[0] > offset), len(self.holes))
        self.holes.insert(at, [offset, size])
        for i in (at, at - 1):
            if 0 <= i < len(self.holes) - 1 and sum(self.holes[i]) == self.holes[i + 1][0]:
                self.holes[i][1] += self.holes.pop(i + 1)[1]
        if self.holes and sum(self.holes[-1]) == self.end:
            self.end = self.holes.pop()[0]


@dataclass(eq=False, slots=True)
class _Graph:
    """Steps in the order in which they run; inputs are there before the first."""

    inputs: list[_Result] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)

    def input(self, size: int) -> _Result:
        self.inputs.append(_Result(-(-size // _ALIGNMENT) * _ALIGNMENT))
        return self.inputs[-1]

    def step(self, size: int, *sources: _Result, inplace: bool = False) -> _Result:
        """A result of ``size`` bytes; ``inplace``: may take the place of a source that nobody else reads."""
        result = _Result(-(-size // _ALIGNMENT) * _ALIGNMENT)
        self.steps.append(_Step(result, sources, inplace))
        for source in sources:
            source.readers += 1
        return result

    def peak(self) -> int:
        memory = _Allocator()
        for one in self.inputs:
            one.offset, one.held = memory.take(one.size), True
        for step in self.steps:
            self._place(step, memory)
            for source in step.sources:
                source.readers -= 1
                if source.readers == 0 and source.held:
                    memory.give(source.offset, source.size)
                    source.held = False
        return memory.peak

    @staticmethod
    def _place(step: _Step, memory: _Allocator) -> None:
        result = step.result
        if not result.size:  # written into the cache or a view
            return
        if step.inplace:
            for source in step.sources:
                if source.held and source.readers == 1 and source.size == result.size:
                    result.offset, result.held, source.held = source.offset, True, False
                    return
        result.offset, result.held = memory.take(result.size), True


class _Builder:
    """Writes down the graph of ``layers`` of a model (llama-graph.cpp and src/models/*.cpp)."""

    def __init__(self, shape: ModelShape, demand: Demand, *, tokens: bool, output: bool) -> None:
        self.shape, self.demand = shape, demand
        self.rows = padded(demand.rows, demand.slots)  # graph_reserve: as many tokens for each slot
        self.graph = graph = _Graph()
        self.e = _F32 * shape.width
        self.tensors = {tensor.name: tensor for tensor in shape.tensors}
        rows, e = self.rows, self.e
        ids = graph.input(4 * rows)
        # A batch may also bring embeddings, alone or mixed with tokens; both stay reserved.
        graph.input(e * rows)
        mixed, mixed_ids, mixed_rows = graph.input(e * rows), graph.input(4 * rows), graph.input(8 * rows)
        scale = graph.input(4 * rows) if shape.architecture.startswith("gemma") else None
        self.positions = graph.input(4 * rows)
        self.masks = {kind: self._cache_inputs(kind) for kind in ("full", "window") if self._uses(kind)}
        self.chosen = graph.input(4 * demand.outputs)
        if not tokens:  # on a second device the hidden state comes from the first
            self.x = graph.input(e * rows)
        else:
            self.x = graph.step(e * rows, ids)
            from_ids = graph.step(e * rows, mixed_ids)
            copy = graph.step(e * rows, mixed)
            graph.step(0, from_ids, mixed_rows, copy)
            copy.readers += 1  # its rows are written into a view of it, which nobody reads: never given back
        if scale is not None:
            self.x = graph.step(e * rows, self.x, scale, inplace=True)
        self.output = output

    def _uses(self, kind: str) -> bool:
        windowed = any(layer.attention == "window" for layer in self.shape.layers)
        return windowed if kind == "window" else windowed or any(layer.key_width for layer in self.shape.layers)

    def _cache_inputs(self, kind: str) -> _Result:
        """Where a cache of this kind is written, and its mask: F16 with flash attention, else F32."""
        demand, flash = self.demand, self.demand.flash_attention
        cells = demand.window_cells(self.shape.window or 0) if kind == "window" else demand.cells
        self.graph.input(8 * self.rows)
        widest = max((layer.value_width for layer in self.shape.layers), default=0)
        self.graph.input(8 * self.rows * (1 if flash else widest))
        mask = self.graph.input(self.rows * cells * (2 if flash else 4))
        for kind_of_rows in (demand.kv_type, demand.values):
            if quantised(kind_of_rows):  # a rotation of the keys, and one of the values
                self.graph.input(_F32 * 64 * 64)
        return mask

    def has(self, layer: Layer, name: str) -> bool:
        return f"blk.{layer.index}.{name}" in self.tensors

    def width(self, layer: Layer, name: str, axis: int = 1) -> int:
        tensor = self.tensors.get(f"blk.{layer.index}.{name}.weight")
        return tensor.dimensions[axis] if tensor and len(tensor.dimensions) > axis else 0

    def norm(self, x: _Result, size: int) -> _Result:
        return self.graph.step(size, self.graph.step(size, x, inplace=True), inplace=True)

    def layer(self, layer: Layer, last: bool) -> None:
        graph, e, rows = self.graph, self.e, self.rows
        x, normed = self.x, self.norm(self.x, e * rows)
        attended = self.attention(layer, normed) if layer.key_width else graph.step(e * rows, normed)
        if last:
            rows = self.demand.outputs
            attended, x = graph.step(e * rows, attended, self.chosen), graph.step(e * rows, x, self.chosen)
        if self.has(layer, "post_attention_norm.weight") and self.has(layer, "ffn_norm.weight"):
            attended = self.norm(attended, e * rows)
        hidden = graph.step(e * rows, attended, x, inplace=True)
        fed = self.feed_forward(layer, self.norm(hidden, e * rows), rows)
        if self.has(layer, "post_ffw_norm.weight"):
            fed = self.norm(fed, e * rows)
        self.x = graph.step(e * rows, fed, hidden, inplace=True)

    def attention(self, layer: Layer, normed: _Result) -> _Result:
        graph, rows = self.graph, self.rows
        head = layer.key_width // max(layer.kv_heads, 1)
        value_head = layer.value_width // max(layer.kv_heads, 1) or head
        q, k, v = (_F32 * rows * n for n in (head * layer.heads, layer.key_width, layer.value_width or layer.key_width))
        out = _F32 * rows * value_head * layer.heads
        if self.has(layer, "attn_qkv.weight"):
            fused = graph.step(q + k + v, normed)
            query, value = graph.step(q, fused, self.positions), fused
            key = graph.step(k, fused, self.positions)
        else:
            query = self.projected(layer, "q", q, normed, turned=True)
            if not self.demand.flash_attention:  # measured: a copy of them is made before keys are projected
                query = graph.step(q, query)
            value = self.projected(layer, "v", v, normed, turned=False)
            key = self.projected(layer, "k", k, normed, turned=True)
        graph.step(0, key)
        graph.step(0, value)
        mask = self.masks["window" if layer.attention == "window" else "full"]
        if self.demand.flash_attention:
            attended = graph.step(out, query, mask)
        else:
            scores = _F32 * layer.heads * rows * self.cells(layer)
            weighed = graph.step(scores, graph.step(scores, query), mask, inplace=True)
            attended = graph.step(out, graph.step(out, weighed))
        if quantised(self.demand.values):  # turned back
            attended = graph.step(out, attended)
        return graph.step(self.e * rows, attended)

    def cells(self, layer: Layer) -> int:
        if layer.attention == "window" and self.shape.window:
            return self.demand.window_cells(self.shape.window)
        return self.demand.cells

    def projected(self, layer: Layer, part: str, size: int, normed: _Result, *, turned: bool) -> _Result:
        """Queries, keys or values: normed and turned where the model does so, rotated for quantised caches."""
        found = self.graph.step(size, normed)
        if self.has(layer, f"attn_{part}_norm.weight"):
            found = self.norm(found, size)
        if turned:
            found = self.graph.step(size, found, self.positions, inplace=True)
        kind = self.demand.values if part == "v" else self.demand.kv_type
        return self.graph.step(size, found) if quantised(kind) else found

    def feed_forward(self, layer: Layer, normed: _Result, rows: int) -> _Result:
        graph, e = self.graph, self.e * rows
        if self.has(layer, "ffn_gate_inp.weight"):
            experts = self.experts(layer, normed, rows)
            if self.has(layer, "ffn_up_shexp.weight"):
                wide = _F32 * rows * self.width(layer, "ffn_up_shexp")
                shared = graph.step(wide, graph.step(wide, normed), graph.step(wide, normed))
                experts = graph.step(e, experts, graph.step(e, shared), inplace=True)
            return experts
        up = _F32 * rows * (self.width(layer, "ffn_up") or self.shape.feed_forward)
        inner = _F32 * rows * (self.width(layer, "ffn_down", 0) or self.shape.feed_forward)
        if self.has(layer, "ffn_gate.weight"):
            gate = graph.step(up, normed)
            active = graph.step(inner, gate, graph.step(up, normed))
        else:
            active = graph.step(inner, graph.step(up, normed), inplace=up == inner)
        return graph.step(e, active)

    def experts(self, layer: Layer, normed: _Result, rows: int) -> _Result:
        graph, used = self.graph, max(self.shape.experts_used, 1)
        scores, chosen = _F32 * rows * self.shape.experts, _F32 * rows * used
        probabilities = graph.step(scores, graph.step(scores, normed), inplace=True)
        order = graph.step(scores, probabilities)
        weights = graph.step(chosen, probabilities, order)
        total = graph.step(_F32 * rows, graph.step(_F32 * rows, weights), inplace=True)
        weights = graph.step(chosen, weights, total, inplace=True)
        inner = chosen * (self.width(layer, "ffn_down_exps", 0) or self.shape.feed_forward)
        if self.has(layer, "ffn_gate_up_exps.weight"):
            active = graph.step(inner, graph.step(2 * inner, normed, order))
        else:
            active = graph.step(inner, graph.step(inner, normed, order), graph.step(inner, normed, order))
        wide = self.e * rows * used
        result = graph.step(wide, graph.step(wide, active, order), weights, inplace=True)
        summed = graph.step(self.e * rows, result)
        for _ in range(used - 2):
            summed = graph.step(self.e * rows, summed, result, inplace=True)
        return summed

    def peak(self) -> int:
        if self.output:
            rows = self.demand.outputs
            logits = _F32 * rows * self.shape.vocabulary
            self.graph.step(logits, self.norm(self.x, self.e * rows))
        return self.graph.peak()


@lru_cache(maxsize=256)
def compute_bytes(
    shape: ModelShape, demand: Demand, first: int = 0, last: int | None = None, *, tokens: bool = True
) -> int:
    """Bytes of the compute buffer of a device that holds the layers from ``first`` to before ``last``.

    With ``tokens`` it also looks the tokens up, as the CPU does; else the hidden state is handed to it.
    """
    layers = shape.layers[first:last]
    ends = last is None or last >= len(shape.layers)
    builder = _Builder(shape, demand, tokens=tokens, output=ends)
    kept = _cycle(layers)
    for number, layer in enumerate(kept):
        builder.layer(layer, last=ends and number == len(kept) - 1)
    return builder.peak()


def _cycle(layers: Sequence[Layer]) -> Sequence[Layer]:
    """``layers`` without those in the middle that only repeat: the same peak, sooner."""
    kinds = [(x.attention, x.heads, x.key_width, x.value_width, x.expert_bytes > 0) for x in layers]
    for period in range(1, 9):
        most = period * _REPEATED
        if len(kinds) > 2 * most and all(a == b for a, b in zip(kinds, kinds[period:], strict=False)):
            return [*layers[:most], *layers[-most:]]
    return layers

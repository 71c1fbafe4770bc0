"""What has to be read and computed for one token, by layers: values in, values out.

The least that any engine must do: padding, activations and copies come on top, so that limits made from this are never
too low. With several requests at once weights are read once for all of them; this is for one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..values import Traffic
from .demand import Demand
from .shape import Layer, ModelShape


def traffic(
    shape: ModelShape, demand: Demand, filled: int, layers: Iterable[int] | None = None, *, output: bool = True
) -> Traffic:
    """The traffic of ``layers`` (all of them) when the cache holds ``filled`` tokens; with ``output`` also of the head.

    Of the experts only those that are used count; embeddings are looked up, not read; a layer with a window reads no
    more than that; a recurrent state is read and written.
    """
    chosen = range(len(shape.layers)) if layers is None else layers
    weights = cache = parameters = 0
    for layer in (shape.layers[index] for index in chosen):
        weights += _active(layer.weight_bytes, layer.expert_bytes, shape)
        cache += _cache_bytes(shape, demand, layer, filled)
        tensors = shape.layer_tensors(layer.index)
        experts = sum(t.elements for t in tensors if "_exps." in t.name or "_chexps." in t.name)
        parameters += _active(sum(t.elements for t in tensors), experts, shape)
    head = shape.output_tensors if output else ()
    return Traffic(
        weights + sum(t.bytes or 0 for t in head), cache, parameters + sum(t.elements for t in head), parameters
    )


def _active(whole: int, experts: int, shape: ModelShape) -> int:
    """``whole`` with only the used part of its ``experts``."""
    return whole - experts + (experts * shape.experts_used // shape.experts if shape.experts else experts)


def _cache_bytes(shape: ModelShape, demand: Demand, layer: Layer, filled: int) -> int:
    seen = min(filled, shape.window) if layer.attention == "window" and shape.window else filled
    row = 0
    if layer.key_width:
        row = demand.row_bytes(layer.key_width, demand.kv_type) + demand.row_bytes(layer.value_width, demand.values)
    return seen * row + 2 * layer.state_bytes

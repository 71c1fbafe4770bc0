"""A span in the few values that a list of traces is made of: ten thousand traces are read in hundredths of a second."""

from __future__ import annotations

from typing import NamedTuple


class Outline(NamedTuple):
    """What a list of traces needs of a span: columns of its row, and whether it is one request to a model."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    status: str
    error_type: str | None
    cell_id: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    ttft_s: float | None
    decode_tokens_per_s: float | None
    energy_j: float | None
    call: bool

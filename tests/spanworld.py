"""Spans of every odd form, for the tests of what leaves and what comes back."""

from __future__ import annotations

from hypothesis import strategies as st

from llamatelemetry_jupyter.telemetry import semconv
from llamatelemetry_jupyter.telemetry.wire import KINDS, STATUSES, Event, Link, Wire

OWN = {"service.name": "this notebook", "process.pid": 42}
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"

_hex = "0123456789abcdef"
_text = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    ["", "\x00", "\ud800", "é", "🦙" * 3, "a" * 5000, '"', "\\", "</script>", "\n"]
)
_scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, -(2**63), 2**63, 2**64, 0, -1])
    | st.floats()
    | _text
)
values = st.recursive(
    _scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3), max_leaves=6
)
_names = _text | st.sampled_from(
    [
        semconv.OPERATION_NAME,
        semconv.REQUEST_MODEL,
        semconv.SERVER_ADDRESS,
        semconv.SERVER_PORT,
        semconv.CELL_ID,
        semconv.USAGE_INPUT_TOKENS,
        semconv.DECODE_RATE,
        semconv.ENERGY,
        semconv.PEAK,
        semconv.ERROR_TYPE,
        "llm.token_count.prompt",
        "gen_ai.system",
        "openinference.span.kind",
        semconv.EVENTS,
        semconv.LINKS,
        semconv.RESOURCE,
        semconv.STATUS_MESSAGE,
        semconv.SCOPE_VERSION,
        f"{semconv.COLUMN}model",
        f"{semconv.COLUMN}energy_j",
        f"{semconv.COLUMN}input_tokens",
    ]
)
attributes = st.dictionaries(_names, values, max_size=6)
_ids = st.text(_hex, min_size=32, max_size=32).filter(lambda one: one.strip("0"))
_span_ids = st.text(_hex, min_size=16, max_size=16).filter(lambda one: one.strip("0"))
_times = st.integers(0, 2**63 - 1) | st.integers(0, 2**64)

spans = st.builds(
    Wire,
    _ids,
    _span_ids,
    st.none() | _span_ids,
    _text,
    st.sampled_from(KINDS),
    _times,
    _times,
    attributes,
    st.sampled_from(STATUSES),
    _text,
    _text,
    st.lists(st.builds(Event, _times, _text, attributes), max_size=2),
    st.lists(st.builds(Link, _ids, _span_ids, _text, attributes), max_size=2),
    _text,
    _text,
    st.just(OWN) | attributes,
)

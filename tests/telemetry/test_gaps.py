from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter.clock import now_ns
from llamatelemetry_jupyter.telemetry.gaps import decode, encode
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow


@given(st.lists(st.floats(0, 4000)))
def test_gaps_come_back_to_the_microsecond(gaps):
    assert decode(encode(gaps)) == pytest.approx(tuple(gaps), abs=6e-7)


def test_a_token_costs_two_bytes_and_odd_times_are_kept_within_bounds():
    assert len(encode([0.02] * 100)) == 201
    assert decode(encode([-1.0, 1e9])) == (0.0, (2**32 - 1) / 1e6)
    with pytest.raises(ValueError, match="begin with"):
        decode(b"x12")


def test_a_store_keeps_them_beside_the_row_also_after_a_restart(tmp_path):
    path = tmp_path / "spans.sqlite"
    store = SpanStore(path)
    for number in range(3):
        if number != 1:
            store.keep_gaps(f"{number:016x}", [0.01 * (number + 1)] * 2)
        store.append(SpanRow("a" * 32, f"{number:016x}", None, "chat m", "client", now_ns(), now_ns()))
    assert store.gaps(f"{2:016x}") == (0.03, 0.03)
    store.close()
    again = SpanStore(path)
    assert [again.gaps(f"{number:016x}") for number in range(4)] == [(0.01, 0.01), None, (0.03, 0.03), None]
    again.close()

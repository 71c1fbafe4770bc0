"""Figures of any interval, against functions whose integrals are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamatelemetry_jupyter.telemetry._interval import GAP_NS, highest, increase, integral, mean_level

SECOND = 10**9
NAN = math.nan

#: Gaps between readings in ns (as many as one may be apart), and what the rate was in each.
STEPS = st.lists(st.tuples(st.integers(1, GAP_NS), st.floats(0, 400)), min_size=1, max_size=30)


def rates_of(steps):
    """A rate that is constant between readings, as its readings: each is true of the time before it."""
    t, found = 0, [(0, 0.0)]
    for gap, rate in steps:
        t += gap
        found.append((t, rate))
    return found


def area(steps, upto):
    """∫ of that rate from 0 to ``upto``, by adding pieces."""
    t, total = 0, 0.0
    for gap, rate in steps:
        total += rate * min(gap, max(0, upto - t)) / SECOND
        t += gap
    return total


@st.composite
def steps_and_interval(draw):
    steps = draw(STEPS)
    whole = sum(gap for gap, _ in steps)
    a, b = sorted(draw(st.tuples(st.integers(0, whole), st.integers(0, whole))))
    return steps, a, b


@given(steps_and_interval())
def test_a_rate_is_integrated_over_exactly_the_interval(drawn):
    steps, a, b = drawn
    assert integral(rates_of(steps), a, b) == pytest.approx(area(steps, b) - area(steps, a), rel=1e-9, abs=1e-6)


@given(steps_and_interval())
def test_a_piecewise_linear_counter_is_exact_however_short_or_long_the_interval(drawn):
    steps, a, b = drawn
    counter = [(t, 5000.0 + area(steps, t)) for t, _ in rates_of(steps)]
    assert increase(counter, (), a, b) == pytest.approx(area(steps, b) - area(steps, a), rel=1e-9, abs=1e-6)


@given(steps_and_interval(), st.data())
def test_a_counter_read_seldom_is_exact_where_its_rate_was_read_often(drawn, data):
    steps, a, b = drawn
    rates = rates_of(steps)
    kept = [r for r in rates[1:-1] if data.draw(st.booleans())]
    counter = [(t, 5000.0 + area(steps, t)) for t, _ in (rates[0], *kept, rates[-1])]
    if any(y - x > GAP_NS for (x, _), (y, _) in pairwise(counter) if x < b and y > a):
        return
    assert increase(counter, rates, a, b) == pytest.approx(area(steps, b) - area(steps, a), rel=1e-6, abs=1e-3)


@given(steps_and_interval())
def test_the_mean_of_a_level_is_that_of_its_steps(drawn):
    steps, a, b = drawn
    starts = [t for t, _ in rates_of(steps)][:-1]
    levels = [(t, value) for t, (_, value) in zip(starts, steps, strict=True)]
    found = mean_level(levels, a, b)
    if b > a:
        assert found == pytest.approx((area(steps, b) - area(steps, a)) * SECOND / (b - a), rel=1e-9, abs=1e-6)
    else:
        assert found is not None


TICKS = [(n * SECOND, 10.0 * n) for n in range(6)]


@pytest.mark.floor
def test_a_span_shorter_than_a_tick_has_its_share_of_it():
    assert increase(TICKS, (), 2_300_000_000, 2_400_000_000) == pytest.approx(1.0)
    assert integral(TICKS, 2_300_000_000, 2_400_000_000) == pytest.approx(3.0)  # 30 W were read at 3 s
    assert highest(TICKS, 2_300_000_000, 2_400_000_000) == 30.0
    assert mean_level(TICKS, 2_300_000_000, 2_400_000_000) == 20.0


def test_where_readings_do_not_reach_there_is_no_figure():
    for start, end in ((-1, SECOND), (4 * SECOND, 5 * SECOND + 1)):
        assert integral(TICKS, start, end) is None
        assert increase(TICKS, (), start, end) is None
        assert highest(TICKS, start, end) is None
    assert mean_level(TICKS, -1, SECOND) is None
    assert mean_level(TICKS, SECOND, 9 * SECOND) is None  # the last reading is older than it may be
    for empty in ([], [(0, 1.0)]):
        assert (integral(empty, 0, 1), increase(empty, (), 0, 1), highest(empty, 0, 1)) == (None, None, None)


@pytest.mark.parametrize(
    "missing",
    [
        [t for t in TICKS if t[0] not in (2 * SECOND, 3 * SECOND, 4 * SECOND)],
        [*TICKS[:2], (2 * SECOND, NAN), *TICKS[3:]],
    ],
)
def test_a_missing_reading_is_not_guessed(missing):
    middle = (1_200_000_000, 2_000_000_000)
    assert integral(missing, *middle) is None
    assert increase(missing, (), *middle) is None
    assert highest(missing, *middle) is None
    assert mean_level(missing, 1_200_000_000, 4_900_000_000) is None
    # A counter needs its ends only: what lies between is in it.
    assert increase(missing, (), SECOND, 5 * SECOND) == 40.0


def test_a_counter_that_began_anew_says_nothing_about_the_time_across_it():
    again = [*TICKS[:3], (3 * SECOND, 1.0), (4 * SECOND, 500.0)]
    assert increase(again, (), SECOND, 4 * SECOND) is None
    assert increase(again, (), 2_500_000_000, 2_600_000_000) is None
    assert increase(again, (), SECOND, 2 * SECOND) == 10.0

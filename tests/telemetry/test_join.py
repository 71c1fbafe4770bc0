"""Energy and peak memory, by numbers that can be checked in one's head."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamatelemetry_jupyter.telemetry import semconv
from llamatelemetry_jupyter.telemetry.join import complete_ns, fill
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import ActivitySeries, DeviceSample, OwnerBytes, Samples, SpanRow

pytestmark = pytest.mark.floor
SECOND = 10**9


class Memory:
    def __init__(self, *devices):
        self.samples = Samples.of(devices, [])

    def window(self, t0_ns, t1_ns, max_points=None):
        return self.samples


def sample(t, joules, kv, device="GPU-1"):
    owners = (OwnerBytes(device, "weights", 100), OwnerBytes(device, "kv", kv), OwnerBytes(device, "other", 999))
    return DeviceSample(int(t * SECOND), device, 0, 0, energy_j=joules, owners=owners)


def span(start, end, server="127.0.0.1:8080", parent="c", trace="t"):
    return SpanRow(
        trace, f"{start}-{end}", parent, "chat m", "client", int(start * SECOND), int(end * SECOND), server=server
    )


ONE = Memory(sample(0, 10.0, 1), sample(1, 20.0, 50), sample(2, 40.0, 7), sample(3, 50.0, 80))


def test_energy_is_interpolated_to_exactly_the_interval_and_peak_is_what_was_held_in_it():
    (filled,) = fill([span(0.5, 2.5)], ONE)
    assert filled.energy_j == pytest.approx(45.0 - 15.0)
    assert filled.peak_bytes == 150


def test_a_span_between_two_samples_holds_what_the_last_one_read():
    (filled,) = fill([span(2.2, 2.4)], ONE)
    assert filled.energy_j == pytest.approx(2.0)
    assert filled.peak_bytes == 107


def test_a_counter_that_does_not_reach_the_end_gives_no_energy():
    late, early = fill([span(2, 9), span(-1, 1)], ONE)
    assert (late.energy_j, late.peak_bytes) == (None, 180)
    assert (early.energy_j, early.peak_bytes) == (None, 150)


def test_two_devices_add_up_and_a_missing_counter_is_not_taken_for_zero():
    both = [sample(0, 0.0, 5), sample(0, 100.0, 1, "GPU-2"), sample(2, 20.0, 5), sample(2, 140.0, 9, "GPU-2")]
    (filled,) = fill([span(0, 1)], Memory(*both))
    assert (filled.energy_j, filled.peak_bytes) == (pytest.approx(10.0 + 20.0), 105 + 101)
    (without,) = fill([span(0, 1)], Memory(*both, sample(0, None, 0, "GPU-3"), sample(2, None, 0, "GPU-3")))
    assert without.energy_j is None


def test_memory_without_a_gpu_is_the_hosts():
    (filled,) = fill([span(0, 1)], Memory(sample(0, None, 5, "host"), sample(1, None, 6, "host")))
    assert (filled.energy_j, filled.peak_bytes) == (None, 106)


def test_a_root_has_its_own_energy_and_the_peak_of_its_children():
    cell, chat = fill([span(0, 3, server=None, parent=None), span(1, 2)], ONE)
    assert (cell.energy_j, cell.peak_bytes) == (pytest.approx(40.0), 150)
    assert chat.peak_bytes == 150


def test_other_spans_stay_as_they_are():
    rows = [
        span(0, 1, server=None, parent=None, trace="no call in it"),
        span(0, 1, server="api.example.com:443", trace="elsewhere"),
        span(0, 1, server=None),
    ]
    assert all(new is old for new, old in zip(fill(rows, ONE), rows, strict=True))
    assert fill([span(0, 1)], Memory())[0] == span(0, 1)


# ------------------------------------------------------------------------------------------ utilisation, mean, estimates


def reading(t, device="GPU-1", *, util=None, watts=None, joules=None, held=100, used=500):
    owners = (OwnerBytes(device, "weights", held),) if held else (OwnerBytes(device, "free", 1),)
    return DeviceSample(int(t * SECOND), device, used, 1000, util, None, watts, joules, owners=owners if used else ())


def measured(row, *readings, activity=()):
    source = Memory(*readings)
    source.samples = Samples(source.samples.devices, (), activity)
    (new,) = fill([row], source)
    return new


def fine(*points, device="GPU-1"):
    """The driver's own readings: (seconds, util, watts)."""
    times, utils, watts = zip(*points, strict=True)
    return ActivitySeries(device, [int(t * SECOND) for t in times], list(utils), list(watts))


def test_utilisation_is_the_mean_and_the_maximum_of_exactly_the_interval():
    ticks = [reading(t, util=u) for t, u in ((0, 0.0), (1, 0.2), (2, 0.8), (3, 0.4))]
    new = measured(span(0.5, 2.5), *ticks)
    assert new.attributes[semconv.UTIL_MEAN] == pytest.approx((0.5 * 0.2 + 0.8 + 0.5 * 0.4) / 2)
    assert new.attributes[semconv.UTIL_MAX] == 0.8


def test_the_drivers_own_readings_tell_about_a_call_between_two_ticks():
    ticks = [reading(0, util=0.0, joules=100.0), reading(1, util=0.3, joules=140.0)]
    own = fine(
        (0, None, 10.0),
        (0.0, 0.0, None),
        (0.5, 0.1, None),
        (0.5, None, 10.0),
        (0.7, 0.9, None),
        (0.7, None, 150.0),
        (1, 0.0, None),
        (1, None, 16.0 + 2 / 3),
    )
    new = measured(span(0.5, 0.7), *ticks, activity=(own,))
    assert (new.attributes[semconv.UTIL_MEAN], new.attributes[semconv.UTIL_MAX]) == (pytest.approx(0.9), 0.9)
    assert new.energy_j == pytest.approx(30.0)  # of the counter's 40: 5 + 30 + 5
    assert new.attributes[semconv.ENERGY_SOURCE] == "counter"
    elsewhere = fine((0.6, 0.9, None), (0.6, None, 150.0))  # does not cover the call: the ticks have to do
    coarse = measured(span(0.5, 0.7), *ticks, activity=(elsewhere,))
    assert (coarse.energy_j, coarse.attributes[semconv.UTIL_MAX]) == (pytest.approx(8.0), 0.3)


def test_energy_per_token_is_the_calls_energy_by_its_output():
    row = replace(span(0, 2), output_tokens=20)
    new = measured(row, reading(0, joules=0.0), reading(2, joules=50.0))
    assert new.attributes[semconv.ENERGY_PER_TOKEN] == pytest.approx(2.5)
    assert (
        semconv.ENERGY_PER_TOKEN not in measured(span(0, 2), reading(0, joules=0.0), reading(2, joules=50.0)).attributes
    )


def test_a_card_without_a_counter_has_the_integral_of_its_power_marked_as_such():
    new = measured(span(0.5, 2), reading(0, watts=30.0), reading(1, watts=100.0), reading(2, watts=50.0))
    assert new.energy_j == pytest.approx(0.5 * 100 + 50)
    assert new.attributes[semconv.ENERGY_SOURCE] == "power"
    assert measured(span(0.5, 2), reading(0, watts=30.0), reading(2, watts=None)).energy_j is None


def test_a_card_that_no_engine_uses_is_left_out():
    idle = [reading(t, "GPU-2", util=0.0, joules=1000.0 * t, held=0) for t in range(3)]
    used = [reading(t, util=0.5, joules=10.0 * t) for t in range(3)]
    new = measured(span(0, 2), *used, *idle)
    assert (new.energy_j, new.attributes[semconv.UTIL_MEAN]) == (pytest.approx(20.0), 0.5)
    unknown = [replace(one, owners=(OwnerBytes(one.device, "unknown", 9),)) for one in (*used, *idle)]
    assert measured(span(0, 2), *unknown).energy_j == pytest.approx(2020.0)  # nobody knows which: all


def test_mean_memory_is_weighed_by_time_and_summed_over_devices():
    ticks = [reading(0, held=100), reading(1, held=300), reading(0, "host", held=50), reading(1, "host", held=0)]
    new = measured(span(0.5, 2), *ticks)
    assert new.attributes[semconv.MEMORY_MEAN] == round((0.5 * 100 + 300) / 1.5 + 0.5 * 50 / 1.5)


def test_a_gpu_that_was_lost_meanwhile_has_no_mean_and_no_energy():
    ticks = [reading(0, util=0.1, joules=0.0), reading(1, used=None), reading(2, util=0.1, joules=9.0)]
    new = measured(span(0.2, 1.8), *ticks)
    assert new.energy_j is None
    assert not {semconv.MEMORY_MEAN, semconv.UTIL_MEAN, semconv.ENERGY_SOURCE} & set(new.attributes)


def test_what_was_measured_is_still_there_when_the_file_is_opened_again(tmp_path):
    source = Memory(reading(0, util=0.5, joules=0.0), reading(2, util=0.5, joules=50.0))
    source.latest = lambda: source.samples
    store = SpanStore(tmp_path / "spans.sqlite", samples=source)
    store.append(replace(span(0, 1), attributes={"kept": "yes"}))
    store.flush()
    store.close()
    (row,) = SpanStore(tmp_path / "spans.sqlite").rows()
    assert (row.energy_j, row.attributes["kept"], row.attributes[semconv.UTIL_MAX]) == (25.0, "yes", 0.5)


def test_readings_are_complete_until_the_gpu_that_is_furthest_behind():
    assert complete_ns(Samples()) == 0
    newest = [DeviceSample(9_000_000_000, "host", 1, 2), DeviceSample(9_200_000_000, "GPU-1", 1, 2)]
    assert complete_ns(Samples.of(newest[:1], ())) == 9_000_000_000
    # What its driver has measured until 8.7 s has been read, later points perhaps not.
    assert complete_ns(Samples.of(newest, ())) == 8_700_000_000

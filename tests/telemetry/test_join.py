"""Energy and peak memory, by numbers that can be checked in one's head."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter.telemetry.join import fill
from llamatelemetry_jupyter.values import DeviceSample, OwnerBytes, Samples, SpanRow

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

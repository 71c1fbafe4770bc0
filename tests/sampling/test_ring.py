"""The ring: what is written is read, what was overwritten is counted, what is torn is never shown."""

from __future__ import annotations

import math
import os
import shutil
import stat
import struct
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamatelemetry_jupyter import clock
from llamatelemetry_jupyter.sampling import layout
from llamatelemetry_jupyter.sampling.coarse import BUCKET_NS
from llamatelemetry_jupyter.sampling.layout import HEADER_BYTES, Map, RingError
from llamatelemetry_jupyter.sampling.records import MAX_OWNERS
from llamatelemetry_jupyter.sampling.reduce import kept
from llamatelemetry_jupyter.sampling.ring import RingReader, RingWriter
from llamatelemetry_jupyter.values import (
    OWNERS,
    ActivitySample,
    DeviceInfo,
    DeviceSample,
    OwnerBytes,
    Samples,
    ServerSample,
)

S = 1_000_000_000


def host(t_ns, used=5, **more):
    return DeviceSample(t_ns, "host", used, 10, **more)


def ring(tmp_path, **options):
    return RingWriter(tmp_path / "1-2.ring", **{"coarse": 64, **options}), RingReader(tmp_path / "1-2.ring")


@pytest.mark.floor
def test_there_is_no_ring_yet_then_there_is(tmp_path):
    reader = RingReader(tmp_path / "1-2.ring")
    assert reader.latest() == reader.window(0, 9 * S) == Samples()
    assert reader.since(0) == (0, Samples(), 0)
    assert (reader.writer, reader.devices()) == (None, ())
    writer = RingWriter(tmp_path / "1-2.ring", start=12.0)
    writer.write(host(3))
    assert reader.latest().devices[0].row(0) == host(3)
    assert reader.writer == (os.getpid(), 12.0)
    assert stat.S_IMODE((tmp_path / "1-2.ring").stat().st_mode) == 0o600


_ints = st.none() | st.integers(0, 2**62)
_floats = st.none() | st.floats(0, 1e15)
_owners = st.builds(
    OwnerBytes,
    device=st.just("GPU-x"),
    owner=st.sampled_from(OWNERS),
    bytes=st.integers(0, 2**50),
    filled_bytes=_ints,
    pid=st.none() | st.integers(1, 2**22),
    process=st.none() | st.text("abcdé-", min_size=1, max_size=9),
    source=st.sampled_from(["measured", "engine", "estimate"]),
)
_devices = st.builds(
    DeviceSample,
    st.integers(0, 2**62),
    st.just("GPU-x"),
    _ints,
    _ints,
    _floats,
    _floats,
    _floats,
    _floats,
    _floats,
    st.lists(_owners, max_size=16).map(tuple),
    _ints,
)
_states = st.sampled_from(
    ["starting", "loading", "ready", "generating", "sleeping", "crashed", "stopped", "unreachable"]
)
_servers = st.builds(ServerSample, st.integers(0, 2**62), st.just("default"), _states, *[_ints] * 7)
_points = st.tuples(
    st.integers(0, 4 * 10**6),
    st.none() | st.integers(0, 100).map(lambda n: n / 100),
    st.none() | st.integers(0, 10**6).map(lambda n: n / 1000),
)


def _activity(found):
    points = sorted({ago: (9 * S - ago * 1000, util, power) for ago, util, power in found}.values())
    return ActivitySample(points[-1][0], "GPU-x", tuple(points))


_activities = st.lists(_points, min_size=1, max_size=200).map(_activity)


@settings(max_examples=60, deadline=None)
@given(st.lists(_devices | _servers, min_size=1, max_size=8))
def test_every_sample_comes_back_as_it_was(tmp_path_factory, samples):
    writer, reader = ring(tmp_path_factory.mktemp("ring"), capacity=16)
    for sample in samples:
        writer.write(sample)
    expected = Samples.of(
        [s for s in samples if isinstance(s, DeviceSample)], [s for s in samples if isinstance(s, ServerSample)]
    )
    assert reader.since(0) == (len(samples), expected, 0)


@settings(max_examples=30, deadline=None)
@given(_activities)
def test_the_drivers_own_readings_come_back_however_many(tmp_path_factory, sample):
    writer, reader = ring(tmp_path_factory.mktemp("ring"), capacity=16)
    writer.write(sample)
    (found,) = reader.since(0)[1].activity
    assert list(zip(found.t_ns, found.util, found.power_w, strict=True)) == list(sample.points)
    assert reader.window(0, 9 * S).activity == (found,)
    assert reader.window(0, 9 * S, 100).activity == ()
    assert reader.latest() == Samples()


@settings(max_examples=60, deadline=None)
@given(st.lists(_devices, min_size=1, max_size=12))
def test_a_window_and_a_reading_from_the_start_are_the_same_rows(tmp_path_factory, samples):
    writer, reader = ring(tmp_path_factory.mktemp("ring"), capacity=16)
    for n, sample in enumerate(samples):
        writer.write(replace(sample, t_ns=n * S // 10))
    _, expected, _ = reader.since(0)
    found = reader.window(0, 99 * S)
    assert found == expected
    assert found.devices[0].by_owner() == expected.devices[0].by_owner()
    assert found.devices[0].filled() == expected.devices[0].filled()


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_a_slow_reader_gets_the_newest_and_the_number_it_missed(tmp_path_factory, before, after):
    writer, reader = ring(tmp_path_factory.mktemp("ring"), capacity=16)
    for n in range(before):
        writer.write(host(n))
    seq, _, _ = reader.since(0)
    for n in range(before, before + after):
        writer.write(host(n))
    end, found, dropped = reader.since(seq)
    times = list(found.devices[0].t_ns) if found.devices else []
    assert end == before + after
    assert times == list(range(before + after - min(after, 16), before + after))
    assert dropped == after - len(times)


def test_more_owners_than_fit_keep_their_sum(tmp_path):
    writer, reader = ring(tmp_path)
    others = [OwnerBytes("host", "other", n, pid=n) for n in range(1, 60)]
    writer.write(host(1, owners=(OwnerBytes("host", "kv", 3), *others, OwnerBytes("host", "free", 0))))
    owners = reader.latest().devices[0].owners[0]
    assert len(owners) <= MAX_OWNERS
    assert sum(o.bytes for o in owners) == 3 + sum(range(1, 60))
    assert [o for o in owners if o.owner == "kv"] == [OwnerBytes("host", "kv", 3)]


def test_eight_gpus_with_sixteen_owners_fit(tmp_path):
    writer, reader = ring(tmp_path)
    for n in range(8):
        device = f"MIG-{n}2345678-1234-1234-1234-123456789abc"
        owners = tuple(OwnerBytes(device, "other", i, pid=2**22 + i, process="a" * 20) for i in range(16))
        writer.write(DeviceSample(S, device, 1, 2, owners=owners))
    assert [len(d.owners[0]) for d in reader.latest().devices] == [16] * 8


def test_a_torn_slot_is_dropped_not_shown(tmp_path):
    writer, reader = ring(tmp_path, capacity=16)
    for n in range(3):
        writer.write(host(n))
    with (tmp_path / "1-2.ring").open("r+b") as file:
        file.seek(HEADER_BYTES + 1024 + 100)  # inside the second record's name
        file.write(b"\x7f")
    end, found, dropped = reader.since(0)
    assert (end, list(found.devices[0].t_ns), dropped) == (3, [0, 2], 1)
    assert list(reader.window(0, 9).devices[0].t_ns) == [0, 2]
    with (tmp_path / "1-2.ring").open("r+b") as file:
        file.seek(HEADER_BYTES + 2 * 1024 + 100)  # the newest: the one before it stands in
        file.write(b"\x7f")
    assert list(reader.latest().devices[0].t_ns) == [0]


def test_readers_beside_a_fast_writer_see_whole_records_only(tmp_path):
    writer, reader = ring(tmp_path, capacity=8)
    done = threading.Event()

    def write():
        for n in range(1, 20_000):
            writer.write(DeviceSample(n, "host", n, n, energy_j=float(n), owners=(OwnerBytes("host", "kv", n),)))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seq = got = lost = 0
    while not done.is_set() or seq < 19_999:
        seq, found, dropped = reader.since(seq)
        lost += dropped
        for series in found.devices:
            got += len(series.t_ns)
            for t, used, total, joules, owners in zip(
                series.t_ns, series.used_bytes, series.total_bytes, series.energy_j, series.owners, strict=True
            ):
                assert t == used == total == joules == owners[0].bytes
    thread.join()
    assert got + lost == 19_999


def test_a_window_holds_exactly_what_lies_in_it(tmp_path):
    writer, reader = ring(tmp_path, capacity=64)
    for n in range(100):
        writer.write(host(n * S))
        writer.write(ServerSample(n * S - 300_000_000, "default", "ready"))  # threads write slightly out of order
    found = reader.window(90 * S, 95 * S)
    assert list(found.devices[0].t_ns) == [n * S for n in range(90, 96)]
    assert list(found.servers[0].t_ns) == [n * S - 300_000_000 for n in range(91, 96)]
    assert reader.window(95 * S, 90 * S) == Samples()


def story(n):
    """Ten readings a second of a device with a peak at 123.4 s and a dip at 250.0 s, and of a server."""
    used = 999 if n == 1234 else 1 if n == 2500 else 100
    owners = (OwnerBytes("GPU-x", "weights", used - 1, source="engine"), OwnerBytes("GPU-x", "kv", 1, filled_bytes=1))
    watts = 69.5 if n == 777 else None if n % 2 else 30.25
    device = DeviceSample(n * S // 10, "GPU-x", used, 1000, 0.25, None, watts, n / 10, 50.0, owners)
    state = "generating" if 1000 <= n < 1200 else "ready"
    return device, ServerSample(n * S // 10, "default", state, int(n == 1100), 2, 0, n % 7, 100, n, 2 * n)


def test_what_the_fine_part_no_longer_holds_comes_from_the_coarse_one(tmp_path):
    writer, reader = ring(tmp_path, capacity=1000, coarse=256)
    for n in range(3000):
        for sample in story(n):
            writer.write(sample)
    found = reader.window(0, 300 * S)
    (device,), (server,) = found.devices, found.servers
    assert list(device.t_ns[:4]) == [0, 49 * S // 10, 50 * S // 10, 99 * S // 10]  # first and last of five seconds
    assert list(device.t_ns) == sorted(set(device.t_ns))
    assert list(device.t_ns[-500:]) == [n * S // 10 for n in range(2500, 3000)]  # then all
    assert (min(device.used_bytes), max(device.used_bytes)) == (1, 999)
    assert max(watts for watts in device.power_w if watts is not None) == 69.5
    assert device.mem_util == [None] * len(device.t_ns)
    assert device.util[0] == 0.25
    assert [(t / S, joules) for t, joules in zip(device.t_ns, device.energy_j, strict=True) if joules != t / S] == []
    at = device.used_bytes.index(999)
    assert {o.owner: o.bytes for o in device.owners[at]} == {"weights": 998, "kv": 1}
    assert device.by_owner()["weights"][at] == 998
    assert max(server.slots_busy) == 1
    assert {0, 6} <= set(server.kv_tokens)
    assert "generating" in server.state
    assert all(n == 10 * t // S for t, n in zip(server.t_ns, server.input_tokens_total, strict=True))
    inside = reader.window(7 * S, 20 * S)
    assert 7 * S <= min(inside.devices[0].t_ns) <= 10 * S


def test_a_long_window_of_few_points_is_read_from_the_coarse_part_and_keeps_every_peak(tmp_path):
    writer, reader = ring(tmp_path, capacity=8000, coarse=256)
    for n in range(3003):
        for sample in story(n):
            writer.write(sample)
    for points in (10, 50, 100):
        found = reader.window(0, 301 * S, points)
        (device,), (server,) = found.devices, found.servers
        assert len(device.t_ns) <= max(points, 12)
        assert len(server.t_ns) <= max(points, 12)
        assert (min(device.used_bytes), max(device.used_bytes)) == (1, 999)
        assert max(watts for watts in device.power_w if watts is not None) == 69.5
        assert max(server.slots_busy) == 1
        assert device.t_ns[-1] == server.t_ns[-1] == 3002 * S // 10  # to the newest reading
        assert server.output_tokens_total[-1] == 2 * 3002
        peak = device.owners[device.used_bytes.index(999)]
        assert sum(o.bytes for o in peak) == 999


def test_half_an_hour_later_a_silent_server_is_still_there_as_it_was(tmp_path):
    writer, reader = ring(tmp_path, capacity=100, coarse=1024)
    writer.write(ServerSample(1 * S, "gone", "stopped", None, 2))
    for n in range(1, 1800):
        writer.write(host(n * S))
    found = reader.window(0, 1800 * S)
    assert [(s.server, s.state, list(s.t_ns)) for s in found.servers] == [("gone", ["stopped"], [1 * S])]


def test_the_last_seconds_are_gathered_when_the_writer_ends(tmp_path):
    writer, reader = ring(tmp_path, capacity=4)
    for n in range(30):
        writer.write(host(n * S // 10, used=n + 1))
    assert min(reader.window(0, 9 * S).devices[0].used_bytes) == 27  # the fine part alone
    writer.close()
    assert min(reader.window(0, 9 * S).devices[0].used_bytes) == 1
    assert BUCKET_NS == 5 * S


def test_a_file_of_the_usual_size_is_within_its_limit_and_holds_a_day(tmp_path):
    RingWriter(tmp_path / "1-2.ring")
    assert (tmp_path / "1-2.ring").stat().st_size <= 32_000_000
    series = 4  # two GPUs, host, server
    assert layout.COARSE_CAPACITY * BUCKET_NS / series >= 24 * 3600 * S


def test_latest_forgets_what_stopped_reporting(tmp_path):
    writer, reader = ring(tmp_path)
    writer.write(ServerSample(1 * S, "gone", "stopped"))
    writer.write(ServerSample(58 * S, "default", "ready"))
    writer.write(host(60 * S))
    latest = reader.latest()
    assert [s.server for s in latest.servers] == ["default"]
    assert [d.device for d in latest.devices] == ["host"]


_column = st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=400)


@given(_column, st.integers(1, 100))
def test_reduction_keeps_the_ends_and_the_extremes(values, max_points):
    rows = kept(len(values), [np.array(values, float)], max_points).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) <= max(max_points, 4)
    assert {0, len(values) - 1} <= set(rows)
    present = [v for v in values if v is not None]
    if present:
        shown = [values[i] for i in rows if values[i] is not None]
        assert (min(shown), max(shown)) == (min(present), max(present))


def test_a_reduced_window_shows_every_peak(tmp_path):
    writer, reader = ring(tmp_path)
    for n in range(1000):
        writer.write(DeviceSample(n * S, "host", 10 if n == 123 else 1, 10, power_w=99.0 if n == 777 else 5.0))
    series = reader.window(0, 1000 * S, max_points=40).devices[0]
    assert len(series.t_ns) <= 40
    assert max(series.used_bytes) == 10
    assert max(series.power_w) == 99.0


def test_the_kernel_asks_for_a_rate_within_bounds(tmp_path):
    early = RingReader(tmp_path / "1-2.ring")
    held = early.want(3.0)  # there is no ring yet to write it in
    writer, reader = ring(tmp_path, hz=2.0)
    assert writer.wanted_hz == 2.0
    early.latest()  # it sees the ring
    assert writer.wanted_hz == 3.0
    held.close()
    for wanted, given_ in ((5.0, 5.0), (1000.0, 10.0), (0.0, 1.0), (math.nan, 1.0)):
        with reader.want(wanted):
            assert writer.wanted_hz == given_
    assert writer.wanted_hz == 1.0


def test_a_wish_counts_a_while_longer_where_it_says_so(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(
        "llamatelemetry_jupyter.sampling.ring.time",
        SimpleNamespace(monotonic=lambda: now, monotonic_ns=time.monotonic_ns),
    )
    writer, reader = ring(tmp_path)
    with reader.want(2.0):
        reader.want(8.0, linger_s=1.0).close()
        reader.want(5.0, linger_s=9.0).close()  # a lower one: the higher goes on
        assert writer.wanted_hz == 8.0
        now = 101.1
        assert writer.wanted_hz == 2.0


def test_a_reader_that_may_not_write_wishes_in_vain(tmp_path):
    writer, reader = ring(tmp_path)
    reader._map = Map(reader.path, writable=False)
    with reader.want(5.0):
        assert writer.wanted_hz == 1.0


def test_names_of_devices_come_along(tmp_path):
    writer, reader = ring(tmp_path)
    infos = [DeviceInfo(f"GPU-{n}", "Tesla T4 <script>", 16_000, None, "7.5") for n in range(8)]
    writer.describe(infos)
    assert reader.devices() == tuple(infos)


def test_a_writer_goes_on_where_the_last_one_ended(tmp_path):
    writer, reader = ring(tmp_path)
    writer.write(host(1))
    seq, _, _ = reader.since(0)
    with pytest.raises(RingError, match="another sampler"):
        RingWriter(tmp_path / "1-2.ring", coarse=64)
    writer.close()
    RingWriter(tmp_path / "1-2.ring", coarse=64).write(host(2))
    assert list(reader.since(seq)[1].devices[0].t_ns) == [2]
    assert list(reader.window(0, 9).devices[0].t_ns) == [1, 2]


def test_a_reader_follows_the_path_and_survives_its_end(tmp_path):
    writer, reader = ring(tmp_path)
    writer.write(host(1))
    seq, _, _ = reader.since(0)
    (tmp_path / "1-2.ring").unlink()
    assert list(reader.latest().devices[0].t_ns) == [1]
    RingWriter(tmp_path / "1-2.ring").write(host(7))
    assert list(reader.latest().devices[0].t_ns) == [7]
    assert reader.since(seq)[0] == 1


def test_a_deleted_ring_is_written_anew_with_all_it_held(tmp_path):
    writer, reader = ring(tmp_path)
    assert not writer.keep()
    for n in range(3):
        writer.write(host(n))
    seq, _, _ = reader.since(0)
    wish = reader.want(7.0)
    (tmp_path / "1-2.ring").unlink()
    writer.write(host(3))
    assert writer.keep()
    assert not writer.keep()
    writer.write(host(4))
    assert list(reader.since(seq)[1].devices[0].t_ns) == [3, 4]
    assert list(reader.window(0, 9).devices[0].t_ns) == [0, 1, 2, 3, 4]
    assert writer.wanted_hz == 7.0
    wish.close()
    with pytest.raises(RingError, match="another sampler"):
        RingWriter(tmp_path / "1-2.ring", coarse=64)


def test_a_foreign_file_in_its_place_is_replaced_but_another_samplers_ring_is_not(tmp_path):
    writer, reader = ring(tmp_path)
    writer.write(host(1))
    (tmp_path / "1-2.ring").unlink()
    (tmp_path / "1-2.ring").write_text("a note")
    assert writer.keep()
    assert list(reader.window(0, 9).devices[0].t_ns) == [1]
    (tmp_path / "1-2.ring").unlink()
    other = RingWriter(tmp_path / "1-2.ring", coarse=64)
    with pytest.raises(RingError, match="another sampler"):
        writer.keep()
    other.write(host(8))
    assert list(reader.window(0, 9).devices[0].t_ns) == [8]


def test_a_ring_that_is_cut_short_is_not_read_past_its_end(tmp_path):
    writer, reader = ring(tmp_path)
    writer.write(host(1))
    assert reader.latest().devices
    os.truncate(tmp_path / "1-2.ring", 8192)
    with pytest.raises(RingError, match="not a sampler's ring"):
        reader.latest()


def test_a_ring_of_another_version_says_so(tmp_path):
    ring(tmp_path)[0].write(host(1))
    with (tmp_path / "1-2.ring").open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("=I", layout.VERSION + 1))
    with pytest.raises(RingError, match=f"version {layout.VERSION + 1}, this code reads version {layout.VERSION}"):
        RingReader(tmp_path / "1-2.ring").window(0, 9)


def test_a_writer_that_died_in_the_middle_of_a_record_leaves_the_rest(tmp_path):
    writer, reader = ring(tmp_path)
    for n in range(3):
        writer.write(host(n))
    at = HEADER_BYTES + 3 * 1024
    writer._map.bytes[at : at + 600] = os.urandom(600)  # the next slot, half written; the sequence did not move
    assert [list(found.devices[0].t_ns) for found in (reader.window(0, 9), reader.since(0)[1])] == [[0, 1, 2]] * 2


def test_all_processes_agree_on_the_time_by_the_rings_own_clock(tmp_path, monkeypatch):
    kernel = clock.Anchor(1_700_000_000 * S, time.monotonic_ns())
    monkeypatch.setattr(clock, "_anchor", kernel)  # a sampler that was given its kernel's
    writer, reader = ring(tmp_path)
    writer.write(host(clock.now_ns()))
    # Another process, started after somebody set the wall clock ten years on.
    monkeypatch.setattr(clock, "_anchor", clock.Anchor(2_000_000_000 * S, time.monotonic_ns()))
    assert 0 <= reader.now_ns() - reader.latest().devices[0].t_ns[0] < 5 * S
    assert 0 <= reader.age_s < 5
    assert RingReader(tmp_path / "none.ring").age_s is None
    assert abs(RingReader(tmp_path / "none.ring").now_ns() - 2_000_000_000 * S) < 5 * S


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(8192), b"LLTRING\n" + bytes(9000)])
def test_a_file_that_is_no_ring_is_named(tmp_path, content):
    path = tmp_path / "1-2.ring"
    path.write_bytes(content)
    with pytest.raises(RingError, match="ring"):
        RingReader(path).latest()
    RingWriter(path).write(host(1))  # the sampler replaces it
    assert list(RingReader(path).latest().devices[0].t_ns) == [1]


def test_a_truncated_ring_is_named_before_it_is_mapped(tmp_path):
    ring(tmp_path)[0].write(host(1))
    copy = tmp_path / "copy.ring"
    shutil.copy(tmp_path / "1-2.ring", copy)
    os.truncate(copy, 100_000)
    with pytest.raises(RingError, match="not a sampler's ring"):
        RingReader(copy).latest()

"""The ring: what is written is read, what was overwritten is counted, what is torn is never shown."""

from __future__ import annotations

import math
import os
import shutil
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamatelemetry_jupyter.sampling.records import MAX_OWNERS
from llamatelemetry_jupyter.sampling.reduce import kept
from llamatelemetry_jupyter.sampling.ring import HEADER_BYTES, RingError, RingReader, RingWriter
from llamatelemetry_jupyter.values import OWNERS, DeviceInfo, DeviceSample, OwnerBytes, Samples, ServerSample

S = 1_000_000_000


def host(t_ns, used=5, **more):
    return DeviceSample(t_ns, "host", used, 10, **more)


def ring(tmp_path, **options):
    return RingWriter(tmp_path / "1-2.ring", **options), RingReader(tmp_path / "1-2.ring")


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
)
_states = st.sampled_from(
    ["starting", "loading", "ready", "generating", "sleeping", "crashed", "stopped", "unreachable"]
)
_servers = st.builds(ServerSample, st.integers(0, 2**62), st.just("default"), _states, *[_ints] * 7)


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
    assert reader.window(0, 10 * S) == Samples()  # overwritten
    assert reader.window(95 * S, 90 * S) == Samples()


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
    rows = kept(len(values), [values], max_points)
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
    writer, reader = ring(tmp_path, hz=2.0)
    assert writer.wanted_hz == 2.0
    for wanted, given_ in ((5.0, 5.0), (1000.0, 10.0), (0.0, 1.0), (math.nan, 1.0)):
        reader.set_wanted_hz(wanted)
        assert writer.wanted_hz == given_


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
        RingWriter(tmp_path / "1-2.ring")
    writer.close()
    RingWriter(tmp_path / "1-2.ring").write(host(2))
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

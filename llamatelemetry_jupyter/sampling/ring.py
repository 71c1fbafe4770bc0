"""A ring of samples in a memory-mapped file: written by the sampler, read by anyone, also after both died.

One writer, any number of readers, no lock between them: see layout.py. The only thing that a reader may write is how
often it wants samples.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .. import clock
from ..clock import Anchor
from ..values import ActivitySample, DeviceInfo, DeviceSample, Samples, ServerSample
from . import layout, records
from .coarse import Coarse
from .layout import Map, RingError
from .records import Sample

if TYPE_CHECKING:
    from .columns import Columns

#: Samples per second while nobody wants more, and at most.
MIN_HZ, MAX_HZ = 1.0, 10.0
_DISORDER_NS = 5_000_000_000
#: Who has a sample is in it at least once in so long: at rest there is one a second.
_NEAR_NS = 2_500_000_000


class RingWriter:
    """The writing end; makes the file (0600) or goes on in the one that is there. Safe from several threads.

    A file that is not a ring of this shape is replaced, never overwritten in place: a reader may still map it.
    Raises ``OSError`` when the file's space cannot be reserved, so that a full disk cannot kill the writer later, and
    :class:`RingError` while another writer lives.
    """

    def __init__(
        self,
        path: Path,
        *,
        hz: float = MIN_HZ,
        slot_bytes: int = layout.SLOT_BYTES,
        capacity: int = layout.CAPACITY,
        coarse: int = layout.COARSE_CAPACITY,
        start: float = 0.0,
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        shape = (slot_bytes, capacity, coarse)
        self._map = self._adopt(path, shape) or self._create(path, shape, hz)
        self._locked = self._take(path)
        self._coarse = Coarse(self._map.coarse.put)
        self._map.words[layout.PID] = os.getpid()
        self._map.floats[layout.START] = start
        self._map.words[layout.WALL] = clock.anchor().wall_ns
        self._map.words[layout.MONOTONIC] = clock.anchor().monotonic_ns
        self.beat()

    @staticmethod
    def _adopt(path: Path, shape: tuple[int, int, int]) -> Map | None:
        try:
            found = Map(path, writable=True)
        except (FileNotFoundError, RingError):
            return None
        return found if found.shape == shape else None

    @staticmethod
    def _create(path: Path, shape: tuple[int, int, int], hz: float, content: memoryview | None = None) -> Map:
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        size = layout.size(*shape)
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:  # macOS
                for _ in range(0, size, 1 << 20):
                    os.write(fd, bytes(1 << 20))
                os.ftruncate(fd, size)
            if content is None:
                os.pwrite(fd, layout.FIXED.pack(layout.MAGIC, layout.VERSION, *shape), 0)
            else:
                os.pwrite(fd, content, 0)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        made = Map(fresh, writable=True)
        if content is None:
            made.floats[layout.HZ] = hz
        fresh.replace(path)
        return made

    def _take(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RingError(f"another sampler (process {self._map.words[layout.PID]}) writes {path}") from None
        return fd

    def keep(self) -> bool:
        """Write the file anew, with all that it held, when it is no longer at its path; whether that was so.

        Raises as the constructor does; then nothing has changed and it may be tried again.
        """
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._map.inode:
                return False
            os.close(self._take(self.path))  # another sampler's?
        with self._lock:
            made = self._create(self.path, self._map.shape, 0.0, self._map.bytes)
            taken = self._take(self.path)
            os.close(self._locked)
            self._map, self._locked = made, taken
            self._coarse.put = made.coarse.put
        return True

    def close(self) -> None:
        """Write what is gathered; let another writer go on with this ring."""
        with self._lock:
            self._coarse.flush()
        os.close(self._locked)

    @property
    def wanted_hz(self) -> float:
        """Samples per second that the kernel asks for now, within 1..10."""
        floats = self._map.floats
        wanted, burst = floats[layout.HZ], floats[layout.BURST_HZ]
        if burst > wanted and time.monotonic() < floats[layout.BURST_END]:
            wanted = burst
        return MAX_HZ if wanted > MAX_HZ else wanted if wanted > MIN_HZ else MIN_HZ  # NaN is MIN_HZ

    def beat(self) -> None:
        """Say that the writer lives."""
        self._map.words[layout.BEAT] = time.monotonic_ns()

    def write(self, sample: Sample) -> None:
        """Append one sample; never waits for a reader."""
        room = self._map.fine.slot_bytes - layout.SLOT.size
        parts = records.split(sample, room) if isinstance(sample, ActivitySample) else [sample]
        bodies = [(part.t_ns, records.encode(part, room)) for part in parts]
        with self._lock:
            for t_ns, body in bodies:
                self._map.fine.put(records.KIND[type(sample)], t_ns, body)
            if not isinstance(sample, ActivitySample):
                self._coarse.add(sample)

    def describe(self, devices: Sequence[DeviceInfo]) -> None:
        """Write the table of devices that readers show names from."""
        text = json.dumps([asdict(d) for d in devices]).encode()
        start = layout.TABLE_AT + layout.TABLE.size
        if len(text) > layout.HEADER_BYTES - start:
            text = b"[]"
        with self._lock:
            self._map.bytes[start : start + len(text)] = text
            layout.TABLE.pack_into(self._map.bytes, layout.TABLE_AT, len(text), zlib.crc32(text))


class Wish:
    """Somebody wants more samples, until :meth:`close`, the end of its ``with``, or until nobody holds it any more."""

    def __init__(self, reader: RingReader, hz: float, linger_s: float) -> None:
        self._reader: RingReader | None = reader
        self._hz, self._linger_s = hz, linger_s

    def close(self) -> None:
        """Want it no longer; a second time does nothing."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.unwant(self._hz, self._linger_s)

    __del__ = close

    def __enter__(self) -> Wish:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RingReader:
    """A :class:`~..values.SampleSource` over a ring file, which may not exist yet, or no longer have a writer.

    Follows the path when a new file takes its place; keeps what it has mapped when the path vanishes. All methods are
    safe from any thread and return empty :class:`Samples` while there is no ring. Raises :class:`RingError` on a file
    that is not a ring.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: Map | None = None
        self._columns: Columns | None = None
        # The garbage collector may give a wish up at any moment, in the middle of anything here.
        self._lock, self._wishing = threading.RLock(), threading.RLock()
        self._order: tuple[int, dict[str, int]] = (0, {})
        self._wishes: list[float] = []
        self._burst = (0.0, 0.0)
        #: Whose newest sample was found the last time.
        self._latest: set[tuple[int, str]] = set()

    def _current(self) -> Map | None:
        with self._lock:
            try:
                status = self.path.stat()
            except FileNotFoundError:
                return self._map
            known = self._map
            if known is None or known.inode != (status.st_dev, status.st_ino) or status.st_size != known.size:
                self._map = self._columns = None  # reading past the end of a shortened file would end the process
                with contextlib.suppress(FileNotFoundError):  # replaced between the two calls: the next call sees it
                    self._map = Map(self.path, writable=os.access(self.path, os.W_OK))
                    if self._wishes:
                        self._tell(self._map)
            return self._map

    @property
    def writer(self) -> tuple[int, float] | None:
        """Pid and start time of the newest writer."""
        ring = self._current()
        return (ring.words[layout.PID], ring.floats[layout.START]) if ring else None

    @property
    def age_s(self) -> float | None:
        """Seconds since the writer last said that it lives, whatever the wall clock did; ``None`` without a ring."""
        ring = self._current()
        return (time.monotonic_ns() - ring.words[layout.BEAT]) / 1e9 if ring else None

    def now_ns(self) -> int:
        """The time now by the clock of the ring's kernel, which samples carry; without a ring by our own."""
        ring = self._current()
        if ring is None:
            return clock.now_ns()
        return Anchor(ring.words[layout.WALL], ring.words[layout.MONOTONIC]).now_ns()

    @property
    def wanted_hz(self) -> float:
        """The highest rate that is wished for here."""
        return max([MIN_HZ, *self._wishes])

    def want(self, hz: float, linger_s: float = 0.0) -> Wish:
        """Have ``hz`` samples per second (1..10) until the wish is closed, and ``linger_s`` longer.

        Wishes may overlap: the highest counts. The sampler sees it within 0.1 s. Without a ring it waits for one.
        """
        with self._wishing:
            self._wishes.append(hz)
        self._tell(self._current())
        return Wish(self, hz, linger_s)

    def unwant(self, hz: float, linger_s: float) -> None:
        """What closing a wish does."""
        with self._wishing:
            self._wishes.remove(hz)
            end_s = time.monotonic() + linger_s
            if linger_s and (hz >= self._burst[0] or self._burst[1] < time.monotonic()):
                self._burst = (hz, end_s)
        self._tell(self._current())

    def _tell(self, ring: Map | None) -> None:
        if ring is not None and not ring.bytes.readonly:
            with self._wishing:
                ring.floats[layout.HZ] = self.wanted_hz
                ring.floats[layout.BURST_HZ], ring.floats[layout.BURST_END] = self._burst

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Names and sizes of the devices that are sampled; empty until the sampler wrote them."""
        ring = self._current()
        if ring is None:
            return ()
        length, crc = layout.TABLE.unpack_from(ring.bytes, layout.TABLE_AT)
        start = layout.TABLE_AT + layout.TABLE.size
        text = bytes(ring.bytes[start : min(start + length, layout.HEADER_BYTES)])
        if not length or zlib.crc32(text) != crc:
            return ()
        return tuple(DeviceInfo(**entry) for entry in json.loads(text))

    def latest(self) -> Samples:
        """The newest sample of each device and server seen within 10 s before the newest record."""
        ring = self._current()
        if ring is None:
            return Samples()
        newest: dict[tuple[int, str], Sample] = {}
        horizon: int | None = None
        near = 0
        for number in range(ring.fine.end - 1, ring.fine.first - 1, -1):
            body = ring.fine.slot(number)
            if body is None:
                continue
            kind, t_ns, name = records.peek(body)
            if horizon is None:
                horizon, near = t_ns - 2 * _DISORDER_NS, t_ns - _NEAR_NS
            if t_ns < horizon or (t_ns < near and self._latest <= newest.keys()):
                break
            if (kind, name) not in newest and kind != records.KIND[ActivitySample]:
                newest[kind, name] = records.decode(body)
        self._latest = set(newest)
        return self._ordered(ring, _columns([newest[key] for key in sorted(newest)]))

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        """All samples with ``t0_ns <= t_ns <= t1_ns``; at most about ``max_points`` a series, extremes kept.

        Before the reach of the fine part (minutes to an hour, by the rate), and where ``max_points`` allows, there are
        two rows for each five seconds. ``activity`` comes without ``max_points`` only.
        """
        with self._lock:
            ring = self._current()
            if ring is None or t1_ns < t0_ns:
                return Samples()
            if self._columns is None:
                from .columns import Columns

                self._columns = Columns(ring)
            return self._ordered(ring, self._columns.window(t0_ns, t1_ns, max_points))

    def since(self, seq: int) -> tuple[int, Samples, int]:
        """``(next_seq, samples, dropped)`` after ``seq``; start with 0. One from the future starts again at 0."""
        ring = self._current()
        if ring is None:
            return seq, Samples(), 0
        end = ring.fine.end
        seq = 0 if seq > end or seq < 0 else seq
        first = max(seq, end - ring.fine.capacity)
        found = [records.decode(body) for n in range(first, end) if (body := ring.fine.slot(n)) is not None]
        return end, self._ordered(ring, _columns(found)), end - seq - len(found)

    def _ordered(self, ring: Map, samples: Samples) -> Samples:
        """Devices in the order of the table: GPUs answer in any."""
        _, crc = layout.TABLE.unpack_from(ring.bytes, layout.TABLE_AT)
        if self._order[0] != crc:
            self._order = (crc, {one.device: place for place, one in enumerate(self.devices())})
        places = self._order[1]
        devices = sorted(samples.devices, key=lambda one: places.get(one.device, len(places)))
        return Samples(tuple(devices), samples.servers, samples.activity)


def _columns(found: Sequence[Sample]) -> Samples:
    return Samples.of(
        [one for one in found if isinstance(one, DeviceSample)],
        [one for one in found if isinstance(one, ServerSample)],
        [one for one in found if isinstance(one, ActivitySample)],
    )

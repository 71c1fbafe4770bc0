"""A ring of samples in a memory-mapped file: written by the sampler, read by anyone, also after both died.

One writer, any number of readers, no lock between them. A slot holds its own sequence number and a checksum, and the
header's write sequence moves only after a slot is complete: a reader that was overtaken sees it and counts the record
as dropped, never as data. The only thing a reader may write is ``wanted_hz``.

Layout (native byte order; the file never leaves the machine)::

    0     magic 8 B · version u32 · slot size u32 · capacity u32 · 0 u32
    24    write sequence u64 · wanted_hz f64 · writer pid u64 · writer start f64 · heartbeat (Unix ns) u64
    64    length u32 · crc u32 · JSON table of devices
    4096  slots: sequence u64 · crc u32 · length u16 · kind u8 · 0 u8 · t_ns i64 · record (see records.py)

Record ``n`` (counted from 0) lies in slot ``n % capacity`` with sequence ``n + 1``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from .. import clock
from ..errors import LlamaError
from ..values import DeviceInfo, DeviceSample, Samples, ServerSample
from . import records
from .reduce import reduce_devices, reduce_servers

MAGIC = b"LLTRING\n"
VERSION = 1
SLOT_BYTES = 1024
CAPACITY = 16384
HEADER_BYTES = 4096
MIN_HZ, MAX_HZ = 1.0, 10.0
_FIXED = struct.Struct("=8sIIII")
_SLOT = struct.Struct("=QIHBxq")
_TABLE = struct.Struct("=II")
_TABLE_AT = 64
# Indices of 8-byte words: item assignment of a cast memoryview is one aligned store, struct.pack_into is not.
_SEQ, _HZ, _PID, _START, _BEAT = 3, 4, 5, 6, 7
# Threads write in the order of the lock, not of t_ns; readers look this far around a moment.
_DISORDER_NS = 5_000_000_000
_T = TypeVar("_T", DeviceSample, ServerSample)


class RingError(LlamaError):
    """A file is not a ring of this version."""


class _Map:
    """A mapped ring file and its header fields; raises :class:`RingError` when the file is something else."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            status = os.fstat(fd)
            self.inode = (status.st_dev, status.st_ino)
            if status.st_size < HEADER_BYTES:
                raise _garbage(path)
            self._mm = mmap.mmap(fd, status.st_size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        finally:
            os.close(fd)
        magic, version, self.slot_bytes, self.capacity, _ = _FIXED.unpack_from(self._mm)
        if magic != MAGIC:
            raise _garbage(path)
        if version != VERSION:
            raise RingError(
                f"{path} is a ring of version {version}, this code reads version {VERSION}", hint="restart the kernel"
            )
        if not (_SLOT.size < self.slot_bytes <= 65536 and self.capacity > 0) or status.st_size != (
            HEADER_BYTES + self.slot_bytes * self.capacity
        ):
            raise _garbage(path)
        self.bytes = memoryview(self._mm)
        self.words = self.bytes[:_TABLE_AT].cast("Q")
        self.floats = self.bytes[:_TABLE_AT].cast("d")

    def slot(self, number: int) -> bytes | None:
        """The bytes of record ``number`` without its head, ``None`` when it was overwritten or is torn."""
        at = HEADER_BYTES + number % self.capacity * self.slot_bytes
        raw = bytes(self.bytes[at : at + self.slot_bytes])
        seq, crc, length, _, _ = _SLOT.unpack_from(raw)
        if seq != number + 1 or length > self.slot_bytes - _SLOT.size or crc != _check(raw, length):
            return None
        return raw[12 : _SLOT.size + length]

    def time_ns(self, number: int) -> int:
        """When record ``number`` was taken; 0 when it is no longer there."""
        at = HEADER_BYTES + number % self.capacity * self.slot_bytes
        seq, _, _, _, t_ns = _SLOT.unpack_from(self.bytes, at)
        return int(t_ns) if seq == number + 1 else 0


def _garbage(path: Path) -> RingError:
    return RingError(f"{path} is not a sampler's ring (damaged or foreign file)", hint=f"rm {path}")


def _check(raw: bytes, length: int) -> int:
    # The sequence is part of the sum: a complete record of another lap cannot pass for this one.
    return zlib.crc32(raw[12 : _SLOT.size + length], zlib.crc32(raw[:8]))


class RingWriter:
    """The writing end; makes the file (0600) or goes on in the one that is there. Safe from several threads.

    A file that is not a ring of this shape is replaced, never overwritten in place: a reader may still map it.
    Raises ``OSError`` when the file's space cannot be reserved, so that a full disk cannot kill the writer later, and
    :class:`RingError` while another writer lives.
    """

    def __init__(
        self, path: Path, *, hz: float = 2.0, slot_bytes: int = SLOT_BYTES, capacity: int = CAPACITY, start: float = 0.0
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._map = self._adopt(path, slot_bytes, capacity) or self._create(path, slot_bytes, capacity, hz)
        self._locked = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._locked)
            raise RingError(f"another sampler (process {self._map.words[_PID]}) writes {path}") from None
        self._map.words[_PID] = os.getpid()
        self._map.floats[_START] = start
        self.beat()

    @staticmethod
    def _adopt(path: Path, slot_bytes: int, capacity: int) -> _Map | None:
        try:
            found = _Map(path, writable=True)
        except (FileNotFoundError, RingError):
            return None
        return found if (found.slot_bytes, found.capacity) == (slot_bytes, capacity) else None

    @staticmethod
    def _create(path: Path, slot_bytes: int, capacity: int, hz: float) -> _Map:
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        size = HEADER_BYTES + slot_bytes * capacity
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:  # macOS
                for _ in range(0, size, 1 << 20):
                    os.write(fd, bytes(1 << 20))
                os.ftruncate(fd, size)
            os.pwrite(fd, _FIXED.pack(MAGIC, VERSION, slot_bytes, capacity, 0), 0)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        made = _Map(fresh, writable=True)
        made.floats[_HZ] = hz
        fresh.replace(path)
        return made

    def close(self) -> None:
        """Let another writer go on with this ring."""
        os.close(self._locked)

    @property
    def wanted_hz(self) -> float:
        """Samples per second that the kernel asks for, within 1..10."""
        hz = self._map.floats[_HZ]
        return min(MAX_HZ, max(MIN_HZ, hz)) if hz == hz else MIN_HZ  # noqa: PLR0124 (NaN)

    def beat(self) -> None:
        """Say that the writer lives."""
        self._map.words[_BEAT] = clock.now_ns()

    def write(self, sample: DeviceSample | ServerSample) -> None:
        """Append one sample; never waits for a reader."""
        body = records.encode(sample, self._map.slot_bytes - _SLOT.size)
        with self._lock:
            number = self._map.words[_SEQ]
            at = HEADER_BYTES + number % self._map.capacity * self._map.slot_bytes
            head = _SLOT.pack(number + 1, 0, len(body), records.KIND[type(sample)], sample.t_ns)
            raw = head + body
            raw = raw[:8] + struct.pack("=I", _check(raw, len(body))) + raw[12:]
            # First the sequence is made invalid: a reader between two of these stores sees no record.
            self._map.bytes[at : at + 8] = bytes(8)
            self._map.bytes[at + 8 : at + len(raw)] = raw[8:]
            self._map.bytes[at : at + 8] = raw[:8]
            self._map.words[_SEQ] = number + 1

    def describe(self, devices: Sequence[DeviceInfo]) -> None:
        """Write the table of devices that readers show names from."""
        text = json.dumps([asdict(d) for d in devices]).encode()
        if len(text) > HEADER_BYTES - _TABLE_AT - _TABLE.size:
            text = b"[]"
        with self._lock:
            start = _TABLE_AT + _TABLE.size
            self._map.bytes[start : start + len(text)] = text
            _TABLE.pack_into(self._map.bytes, _TABLE_AT, len(text), zlib.crc32(text))


class RingReader:
    """A :class:`~..values.SampleSource` over a ring file, which may not exist yet, or no longer have a writer.

    Follows the path when a new file takes its place; keeps what it has mapped when the path vanishes. All methods are
    safe from any thread and return empty :class:`Samples` while there is no ring. Raises :class:`RingError` on a file
    that is not a ring.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: _Map | None = None
        self._lock = threading.Lock()

    def _current(self) -> _Map | None:
        with self._lock:
            try:
                status = self.path.stat()
            except FileNotFoundError:
                return self._map
            if self._map is None or self._map.inode != (status.st_dev, status.st_ino):
                with contextlib.suppress(FileNotFoundError):  # replaced between the two calls: the next call sees it
                    self._map = _Map(self.path, writable=os.access(self.path, os.W_OK))
            return self._map

    @property
    def writer(self) -> tuple[int, float] | None:
        """Pid and start time of the newest writer."""
        ring = self._current()
        return (ring.words[_PID], ring.floats[_START]) if ring else None

    @property
    def beat_ns(self) -> int | None:
        """When the writer last said that it lives."""
        ring = self._current()
        return ring.words[_BEAT] if ring else None

    def set_wanted_hz(self, hz: float) -> None:
        """Ask the sampler for a rate (1..10 per second); without effect while there is no ring."""
        if (ring := self._current()) is not None:
            ring.floats[_HZ] = hz

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Names and sizes of the devices that are sampled; empty until the sampler wrote them."""
        ring = self._current()
        if ring is None:
            return ()
        length, crc = _TABLE.unpack_from(ring.bytes, _TABLE_AT)
        start = _TABLE_AT + _TABLE.size
        text = bytes(ring.bytes[start : min(start + length, HEADER_BYTES)])
        if not length or zlib.crc32(text) != crc:
            return ()
        return tuple(DeviceInfo(**entry) for entry in json.loads(text))

    def latest(self) -> Samples:
        """The newest sample of each device and server seen within 10 s before the newest record."""
        ring = self._current()
        newest: dict[tuple[int, str], DeviceSample | ServerSample] = {}
        end = ring.words[_SEQ] if ring else 0
        horizon: int | None = None
        for number in range(end - 1, max(-1, end - 1 - (ring.capacity if ring else 0)), -1):
            assert ring is not None
            body = ring.slot(number)
            if body is None:
                break
            kind, t_ns, name = records.peek(body)
            horizon = t_ns - 2 * _DISORDER_NS if horizon is None else horizon
            if t_ns < horizon:
                break
            if (kind, name) not in newest:
                newest[kind, name] = records.decode(body)
        found = [newest[key] for key in sorted(newest)]
        return _columns(found)

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        """All samples with ``t0_ns <= t_ns <= t1_ns``; at most about ``max_points`` a series, extremes kept."""
        ring = self._current()
        if ring is None or t1_ns < t0_ns:
            return Samples()
        end = ring.words[_SEQ]
        first = self._lower(ring, max(0, end - ring.capacity), end, t0_ns - _DISORDER_NS)
        last = self._lower(ring, first, end, t1_ns + _DISORDER_NS)
        found = [
            records.decode(body)
            for number in range(first, last)
            if (body := ring.slot(number)) is not None and t0_ns <= records.peek(body)[1] <= t1_ns
        ]
        return _columns(found, max_points)

    @staticmethod
    def _lower(ring: _Map, low: int, high: int, t_ns: int) -> int:
        # The first record at or after t_ns. An overwritten one reads as time 0: it is older than all that remain.
        while low < high:
            middle = (low + high) // 2
            if ring.time_ns(middle) < t_ns:
                low = middle + 1
            else:
                high = middle
        return low

    def since(self, seq: int) -> tuple[int, Samples, int]:
        """``(next_seq, samples, dropped)`` after ``seq``; start with 0. One from the future starts again at 0."""
        ring = self._current()
        if ring is None:
            return seq, Samples(), 0
        end = ring.words[_SEQ]
        seq = 0 if seq > end or seq < 0 else seq
        first = max(seq, end - ring.capacity)
        found = [records.decode(body) for number in range(first, end) if (body := ring.slot(number)) is not None]
        return end, _columns(found), end - seq - len(found)


def _columns(found: Iterable[DeviceSample | ServerSample], max_points: int | None = None) -> Samples:
    rows = list(found)
    samples = Samples.of(_of(rows, DeviceSample), _of(rows, ServerSample))
    if max_points is None:
        return samples
    return Samples(
        tuple(reduce_devices(s, max_points) for s in samples.devices),
        tuple(reduce_servers(s, max_points) for s in samples.servers),
    )


def _of(rows: Sequence[DeviceSample | ServerSample], kind: type[_T]) -> list[_T]:
    return [row for row in rows if isinstance(row, kind)]

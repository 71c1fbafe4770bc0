"""The ring's file: where things lie in it, and how a record is written and read without a lock.

Layout (native byte order; the file never leaves the machine)::

    0     magic 8 B · version u32 · slot size u32 · capacity u32 · capacity of the coarse part u32
    24    write sequence u64 · wanted_hz f64 · writer pid u64 · writer start f64 · heartbeat u64 (monotonic ns)
    64    coarse write sequence u64 · burst_hz f64 · burst ends f64 (monotonic s) · anchor u64 wall ns, u64 monotonic ns
    128   length u32 · crc u32 · JSON table of devices
    4096  slots, then coarse slots: sequence u64 · crc u32 · length u16 · kind u8 · 0 u8 · t_ns i64 · record

Record ``n`` (counted from 0) lies in slot ``n % capacity`` with sequence ``n + 1``. The header's sequence moves only
after a slot is complete: a reader that was overtaken sees it and drops the record.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path

from ..errors import LlamaError

MAGIC = b"LLTRING\n"
VERSION = 2
HEADER_BYTES = 4096
#: 32 MB in all: at 10 Hz with two GPUs and a server about four minutes fine, and a day of the coarse part.
SLOT_BYTES, CAPACITY = 1024, 14336
COARSE_BYTES, COARSE_CAPACITY = 248, 69632
FIXED = struct.Struct("=8sIIII")
SLOT = struct.Struct("=QIHBxq")
TABLE = struct.Struct("=II")
TABLE_AT = 128
# Indices of 8-byte words: item assignment of a cast memoryview is one aligned store, struct.pack_into is not.
SEQ, HZ, PID, START, BEAT, COARSE_SEQ, BURST_HZ, BURST_END, WALL, MONOTONIC = range(3, 13)


class RingError(LlamaError):
    """A file is not a ring of this version."""


class Tier:
    """Slots of one size that are written in turn: the fine part of a ring, or the coarse one."""

    def __init__(self, ring: Map, start: int, slot_bytes: int, capacity: int, word: int) -> None:
        self.start, self.slot_bytes, self.capacity = start, slot_bytes, capacity
        self.bytes = ring.bytes
        self._words = ring.words
        self._word = word

    @property
    def end(self) -> int:
        """The number of the next record."""
        return self._words[self._word]

    @property
    def first(self) -> int:
        """The number of the oldest record that may still be there."""
        return max(0, self.end - self.capacity)

    def put(self, kind: int, t_ns: int, body: bytes) -> None:
        """Append a record; one thread at a time."""
        number = self.end
        at = self.start + number % self.capacity * self.slot_bytes
        raw = SLOT.pack(number + 1, 0, len(body), kind, t_ns) + body
        raw = raw[:8] + struct.pack("=I", checksum(raw, len(body))) + raw[12:]
        # First the sequence is made invalid: a reader between two of these stores sees no record.
        self.bytes[at : at + 8] = bytes(8)
        self.bytes[at + 8 : at + len(raw)] = raw[8:]
        self.bytes[at : at + 8] = raw[:8]
        self._words[self._word] = number + 1

    def slot(self, number: int) -> bytes | None:
        """The bytes of record ``number`` without its head, ``None`` when it was overwritten or is torn."""
        at = self.start + number % self.capacity * self.slot_bytes
        raw = bytes(self.bytes[at : at + self.slot_bytes])
        seq, crc, length, _, _ = SLOT.unpack_from(raw)
        if seq != number + 1 or length > self.slot_bytes - SLOT.size or crc != checksum(raw, length):
            return None
        return raw[12 : SLOT.size + length]

    def time_ns(self, number: int) -> int:
        """When record ``number`` was taken; 0 when it is no longer there."""
        at = self.start + number % self.capacity * self.slot_bytes
        seq, _, _, _, t_ns = SLOT.unpack_from(self.bytes, at)
        return int(t_ns) if seq == number + 1 else 0

    def lower(self, t_ns: int, low: int, high: int) -> int:
        """The first record of ``low..high`` at or after ``t_ns``, if they came in order of time."""
        while low < high:
            middle = (low + high) // 2
            # An overwritten one reads as time 0: it is older than all that remain.
            if self.time_ns(middle) < t_ns:
                low = middle + 1
            else:
                high = middle
        return low


class Map:
    """A mapped ring file and its header fields; raises :class:`RingError` when the file is something else."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            status = os.fstat(fd)
            self.inode, self.size = (status.st_dev, status.st_ino), status.st_size
            if self.size < HEADER_BYTES:
                raise _garbage(path)
            self._mm = mmap.mmap(fd, self.size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        finally:
            os.close(fd)
        magic, version, slot_bytes, capacity, coarse = FIXED.unpack_from(self._mm)
        if magic != MAGIC:
            raise _garbage(path)
        if version != VERSION:
            raise RingError(
                f"{path} is a ring of version {version}, this code reads version {VERSION}", hint="restart the kernel"
            )
        if (
            not SLOT.size < slot_bytes <= 65536
            or not capacity
            or not coarse
            or self.size != size(slot_bytes, capacity, coarse)
        ):
            raise _garbage(path)
        self.bytes = memoryview(self._mm)
        self.words = self.bytes[:TABLE_AT].cast("Q")
        self.floats = self.bytes[:TABLE_AT].cast("d")
        self.fine = Tier(self, HEADER_BYTES, slot_bytes, capacity, SEQ)
        self.coarse = Tier(self, HEADER_BYTES + slot_bytes * capacity, COARSE_BYTES, coarse, COARSE_SEQ)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slot size, capacity and capacity of the coarse part."""
        return self.fine.slot_bytes, self.fine.capacity, self.coarse.capacity


def size(slot_bytes: int, capacity: int, coarse: int) -> int:
    """Bytes of a ring's file."""
    return HEADER_BYTES + slot_bytes * capacity + COARSE_BYTES * coarse


def checksum(raw: bytes, length: int) -> int:
    """A record's CRC; the sequence is part of it: a complete record of another lap cannot pass for this one."""
    return zlib.crc32(raw[12 : SLOT.size + length], zlib.crc32(raw[:8]))


def _garbage(path: Path) -> RingError:
    return RingError(f"{path} is not a sampler's ring (damaged or foreign file)", hint=f"rm {path}")

"""Where in a file the rows of a trace lie: eight bytes a row, searched in milliseconds.

An index on random ids would rewrite pages all over the file, at eight times the cost of the rows themselves. So rows
are counted off in blocks, and a block keeps the first four bytes of its rows' trace and span ids in one string each,
which grows at its end as the file does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

#: Rows in a block.
ROWS = 1024
_DIGITS = 8
_BYTES = _DIGITS // 2


def keys(ids: Sequence[str]) -> bytes:
    """Four bytes per id, in order."""
    try:
        found = bytes.fromhex("".join([one[:_DIGITS] for one in ids]))
    except ValueError:
        found = b""
    return found if len(found) == _BYTES * len(ids) else b"".join(map(key, ids))


def key(of: str) -> bytes:
    """The four bytes of an id, or of its beginning of eight digits; ids that are not hex have a checksum's."""
    try:
        found = bytes.fromhex(of[:_DIGITS])
    except ValueError:
        found = b""
    return found if len(found) == _BYTES else zlib.crc32(of.encode("utf-8", "replace")).to_bytes(_BYTES, "big")


def searchable(beginning: str) -> bool:
    """Whether ids that begin so have one key."""
    return len(beginning) >= _DIGITS


def places(block: bytes, wanted: bytes) -> Iterator[int]:
    """The rows of a block whose id has that key, counted from its first."""
    at = block.find(wanted)
    while at >= 0:
        if at % _BYTES == 0:
            yield at // _BYTES
            at += _BYTES - 1
        at = block.find(wanted, at + 1)

"""The times between an answer's tokens, kept beside its span: two bytes a token, whole microseconds."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

_MOST_US = 2**32 - 1
#: One letter before the numbers says how wide they are (array's type codes), little-endian.
_SHORT, _LONG = b"H", b"I"


def encode(gaps_s: Sequence[float]) -> bytes:
    """Seconds as bytes; longer than 71 minutes counts as that, negative (a clock went back) as none."""
    us = [min(_MOST_US, max(0, round(gap * 1e6))) for gap in gaps_s]
    code = _SHORT if max(us, default=0) < 2**16 else _LONG
    return code + _little(array(code.decode(), us)).tobytes()


def decode(data: bytes) -> tuple[float, ...]:
    """The seconds that :func:`encode` was given, to a microsecond; raises ``ValueError`` for other bytes."""
    if data[:1] not in (_SHORT, _LONG):
        raise ValueError(f"no gaps between tokens begin with {data[:1]!r}")
    us = array(data[:1].decode())
    us.frombytes(data[1:])
    return tuple(value / 1e6 for value in _little(us))


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values

"""Bytes as they arrive → the payloads of server-sent events, whatever way the network cut them.

All streaming formats of llama.cpp come through here. The usual case, one whole event per read, is not copied but for
its payload.
"""

from __future__ import annotations

_DATA = b"data: "
_BOM = b"\xef\xbb\xbf"
#: An event larger than this is no token: the peer is not what it seems.
MAX_EVENT_BYTES = 16 << 20


class EventSizeError(ValueError):
    """An event went on for more than :data:`MAX_EVENT_BYTES`."""


class EventParser:
    """``feed(bytes)`` returns the ``data`` payloads of the events that are complete now.

    Comments and other fields are skipped, several ``data`` lines are joined by a newline, CR LF and CR end lines like
    LF does, a byte order mark at the start is dropped
    (`the standard <https://html.spec.whatwg.org/multipage/server-sent-events.html>`_). ``blocks`` counts what was
    complete, comments included; ``held`` is what waits for its end.
    """

    __slots__ = ("_begun", "blocks", "held")

    def __init__(self) -> None:
        self.held = b""
        self.blocks = 0
        self._begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads completed by ``data``, in order; raises :class:`EventSizeError`."""
        if (
            not self.held
            and data.startswith(_DATA)
            and data.endswith(b"\n\n")
            and data.count(b"\n") == 2
            and b"\r" not in data
        ):
            self._begun = True
            self.blocks += 1
            return [data[6:-2]]
        return self._feed(data)

    def _feed(self, data: bytes) -> list[bytes]:
        held = self.held + data
        if not self._begun:
            if _BOM.startswith(held):  # a whole mark at most: what follows tells
                self.held = held
                return []
            held = held.removeprefix(_BOM)
            self._begun = True
        tail = b""
        if b"\r" in held:
            # A CR at the very end may be the first half of CR LF: it waits for its neighbour.
            tail = b"\r" if held.endswith(b"\r") else b""
            held = held.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = held.split(b"\n\n")
        self.blocks += len(blocks)
        self.held = rest + tail
        if len(self.held) > MAX_EVENT_BYTES:
            raise EventSizeError(f"{len(self.held)} bytes without an end of event")
        return [payload for block in blocks if (payload := _payload(block)) is not None]


def _payload(block: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None

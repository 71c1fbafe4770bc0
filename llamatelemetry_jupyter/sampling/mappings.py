"""Which pages of files a process has in memory, its model's apart: from /proc/<pid>/smaps.

The system walks the process's page tables for an answer: 7 ms for an engine with a small model, more for a large one.
So it is asked seldom (:class:`Rarely`), and what happens in between is filled in from cheaper readings by whoever asks.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

#: A mapping of a file: its name, then Size, Rss, Pss and Anonymous in kB among other fields (proc_pid_smaps(5)).
_MAPPING = re.compile(
    rb"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ +(/.*)\n"
    rb"(?:[A-Z]\w*: .*\n)*?Size: +(\d+) kB\n(?:[A-Z]\w*: .*\n)*?Rss: +(\d+) kB\nPss: +(\d+) kB\n"
    rb"(?:[A-Z]\w*: .*\n)*?Anonymous: +(\d+) kB$",
    re.MULTILINE,
)
_EVERY_S = 5.0
#: The largest share of the time that a reading may take.
_SHARE = 1 / 4000


@dataclass(frozen=True, slots=True)
class Mappings:
    """Bytes of file pages: ``resident``, and ``shared`` where each page counts by the share of its mappers.

    ``weights_resident`` and ``weights_shared`` are the model's part of both, ``weights_size`` what is mapped of it.
    """

    resident: int
    shared: int
    weights_resident: int
    weights_shared: int
    weights_size: int


class Rarely:
    """When a costly reading is due: every 5 s at most, and never for more than 1 / 4000 of the time."""

    def __init__(self) -> None:
        self._due = 0.0
        self._began = 0.0

    def begin(self) -> bool:
        """Whether it is due; if so the clock runs until :meth:`end`."""
        self._began = time.monotonic()
        return self._began >= self._due

    def end(self) -> None:
        """The reading has been taken."""
        now = time.monotonic()
        self._due = now + max(_EVERY_S, (now - self._began) / _SHARE)


def read(path: Path, model: str | None = None) -> Mappings | None:
    """The mappings in the file ``path``; ``model`` is the path of its weights, where they are not called ``….gguf``.

    ``None`` when it may not be read, when the process is gone, or where the system has no such file.
    """
    try:
        text = path.read_bytes()
    except OSError:
        return None
    wanted = model.encode() if model else None
    sums = [0, 0, 0, 0, 0]
    for found in _MAPPING.finditer(text):
        name = found[1]
        size, resident, shared, anonymous = (1024 * int(number) for number in found.groups()[1:])
        # A private mapping's changed pages are the process's own: the engine's heap, not the file.
        resident, shared = max(0, resident - anonymous), max(0, shared - anonymous)
        sums[0] += resident
        sums[1] += shared
        if name == wanted or name.removesuffix(b" (deleted)").endswith(b".gguf"):
            sums[2] += resident
            sums[3] += shared
            sums[4] += size
    return Mappings(*sums)

"""What this kernel's libraries hold on GPUs, handed from the kernel to its sampler through a small file.

Only the kernel can ask its own libraries, and only the sampler draws the balance of a GPU: so the kernel writes down
what they hold whenever a cell has ended, and the sampler looks at the file's date.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..gpu.allocators import Allocation, allocations, by_device
from ..gpu.owners import Held

_SUFFIX = ".kernel.json"
_published: dict[Path, str] = {}


def publish(folder: Path, stem: str) -> None:
    """Write what this process's libraries hold now, if that has changed; a disk that is full loses the reading only."""
    found = [asdict(one) for one in allocations()]
    path = folder / f"{stem}{_SUFFIX}"
    if not found and path not in _published:
        return
    text = json.dumps({"cuda_visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "allocations": found})
    if _published.get(path) == text:
        return
    from .._files import write_private  # the sampler, which reads only, does without what it imports

    try:
        write_private(path, text)
        _published[path] = text
    except OSError:
        _published.pop(path, None)


class KernelFile:
    """The sampler's side: reads what the kernel wrote, again only when the file has changed."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._path = folder / f"{stem}{_SUFFIX}"
        self._mark: tuple[int, int] | None = None
        self._read: tuple[tuple[Allocation, ...], str | None] = ((), None)

    def held(self, device: str, devices: Sequence[str]) -> tuple[Held, ...]:
        """What libraries hold on ``device``, of ``devices`` in NVML's order; a file that is not ours says nothing."""
        try:
            status = self._path.stat()
            if self._mark != (mark := (status.st_mtime_ns, status.st_ino)):
                data = json.loads(self._path.read_text("utf-8"))
                self._read = tuple(Allocation(**one) for one in data["allocations"]), data["cuda_visible"]
                self._mark = mark
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, KeyError):
            self._read = ((), None)
        found, cuda_visible = self._read
        return by_device(found, devices, cuda_visible).get(device, ())

"""``%llama gpu``: the cards, who owns their memory, their links; and recording them for tests."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...errors import CommandError
from ...progressline import Line
from ..parser import Parser

if TYPE_CHECKING:
    from ...gpu.card import CardState
    from ...gpu.nvml import Nvml
    from ...session import Session
    from ...values import DeviceSample
    from ...views.gpu import GpuView

ACTIONS = ("show", "record")
_T = TypeVar("_T")
_PATIENCE_S = 3.0  # a driver that hangs, hangs for good
_SAMPLED_S = 3.0


def configure(parser: Parser) -> None:
    """What to do; recording has a file, a length and a rate."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="show", help="show (if none is given) or record")
    parser.add_argument("file", nargs="?", metavar="FILE", help="record: where to, a new .json file")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="record: for how long (60)")
    parser.add_argument("--hz", type=float, default=20.0, metavar="N", help="record: readings per second (20)")


def run(session: Session, args: argparse.Namespace) -> GpuView | None:
    """Cards, links and owners now; without a GPU the host's memory by owner, and one line why."""
    if args.action == "record":
        _record(args)
        return None
    if args.file is not None:
        raise CommandError(f"%llama gpu shows all cards; {args.file!r} is not read", hint="%llama gpu record FILE")
    from ...views.gpu import gpu_view

    session.sampler.start()
    session.sampler.publish()
    states, line = _states()
    samples = _samples(session, {one.device for one in states if one.reading.used_bytes is not None})
    lines = [line, *(_nccl(session) if states else ())]
    return gpu_view(states, samples, lines)


# --------------------------------------------------------------------------------------------------------------- show


def _states() -> tuple[list[CardState], str]:
    """The cards in NVML's order, n/a where one does not answer in time; and a line about the driver."""
    from ...gpu.card import CardState, state
    from ...gpu.nvml import Nvml

    (nvml,) = _within(_PATIENCE_S, [Nvml])
    if nvml is None:
        return [], "no GPU: the driver does not answer; !nvidia-smi tells more"
    if not nvml.gpus:
        line = _why_none(nvml)
        nvml.close()
        return [], line
    gpus = list(nvml.gpus)
    found = _within(_PATIENCE_S, [lambda gpu=gpu: state(nvml, gpu) for gpu in gpus])  # type: ignore[misc]
    (driver,) = _within(_PATIENCE_S, [lambda: nvml.driver])
    if all(one is not None for one in found):
        nvml.close()  # never under a call that hangs
    return [
        one or CardState(gpu.device) for gpu, one in zip(gpus, found, strict=True)
    ], f"NVIDIA driver {driver or 'n/a'}"


def _why_none(nvml: Nvml) -> str:
    from ...environment import detect

    if nvml.present:
        return "no GPU: there is a driver, but it names none; !nvidia-smi tells more"
    where = {"kaggle": "; Settings → Accelerator adds one", "colab": "; Runtime → Change runtime type adds one"}
    return f"no GPU: there is no NVIDIA driver here (libnvidia-ml.so.1){where.get(detect().host, '')}"


def _within(seconds: float, tasks: Sequence[Callable[[], _T]]) -> list[_T | None]:
    """Each task's result, ``None`` where it took longer; all run at once, on threads that nobody waits for at exit."""
    results: list[_T | None] = [None] * len(tasks)

    def call(index: int) -> None:
        results[index] = tasks[index]()

    threads = [threading.Thread(target=call, args=(index,), daemon=True) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return results


def _samples(session: Session, expected: set[str]) -> list[DeviceSample]:
    """The newest sample of every device; waits for a sampler that has only just been started."""
    deadline = time.monotonic() + _SAMPLED_S
    while True:
        found = [series.row(-1) for series in session.samples.latest().devices if len(series.t_ns)]
        if {"host", *expected} <= {one.device for one in found} or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _nccl(session: Session) -> list[str]:
    from ...gpu import nccl
    from ...gpu.owners import gpu_index

    handle = session.handle
    mapped = nccl.mapped_by(handle.pid) if handle is not None and handle.pid is not None else None
    library = nccl.found(mapped=mapped)
    version = "does not load" if library and library.version is None else library.version if library else None
    lines = ["NCCL: not found" if library is None else f"NCCL: {version} ({library.path})"]
    if handle is not None and handle.owned and handle.pid is not None:
        manager = session.managers[handle.name]
        settings = manager.settings
        gpus = {index for buffer in handle.buffers if (index := gpu_index(buffer.device)) is not None}
        log = _beginning(Path(handle.log_path)) if handle.log_path else ""
        use = nccl.use(len(gpus), settings.split_mode if settings else None, mapped, log, nccl.wish_of(handle.pid))
        said = {True: "uses it", False: "does not use it", None: "may use it"}[use.used]
        lines.append(f"NCCL: the engine {said}: {use.why}")
    return lines


def _beginning(log: Path) -> str:
    try:
        with log.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------- record


def _record(args: argparse.Namespace) -> None:
    from ...gpu.recording import record
    from ...views.format import size

    if args.file is None:
        raise CommandError("where shall the recording go?", hint="%llama gpu record gpus.json")
    if not 0 < args.seconds <= 3600:
        raise CommandError(f"--seconds must be more than 0, at most 3600, not {args.seconds:g}", hint="--seconds 60")
    if not 0.1 <= args.hz <= 100:
        raise CommandError(f"--hz must be from 0.1 to 100, not {args.hz:g}", hint="--hz 20")
    path = Path(args.file).expanduser()
    if path.exists():
        raise CommandError(f"{path} exists and is not overwritten", hint=f"!rm {path}")
    if not path.parent.is_dir():
        raise CommandError(f"there is no folder {path.parent}", hint=f"!mkdir -p {path.parent}")
    with Line() as line:
        record(path, seconds=args.seconds, hz=args.hz, on_progress=line)
        line.end(f"wrote {path}: {size(path.stat().st_size)}; it names cards, driver and process ids, and no text")

"""Starts an engine, sees to it that it ends with the kernel, also when the kernel is killed, and bounds its log.

Run as a script: ``python -I -S guard.py KERNEL_PID KERNEL_START LOG -- argv…``, with KERNEL_PID 0 for a server that
stays. It forks a watcher and becomes the engine, so that the pid which the kernel knows is the engine's.
PR_SET_PDEATHSIG would not do: it fires when the *thread* that spawned the process ends, and a cell's thread may.
Standard library only, and small: it lives as long as the engine.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

_POLL_S = 0.5
_GRACE_S = 2.0
#: Beyond it the log becomes ``LOG.1`` and begins anew: at most twice this is kept.
LOG_BYTES = 8 << 20


def alive(pid: int, start: str) -> bool:
    """Whether the process that was started at ``start`` still runs (see environment.process_start)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists() and _answers(pid)
    # Fields are counted after the last ')' (proc(5)): 3 is the state (a zombie is dead for us), 22 the start time.
    rest = stat[stat.rindex(b")") + 2 :].split()
    return rest[0] not in (b"Z", b"X") and rest[19].decode() == start


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def bound(path: str) -> None:
    """Move a log that has grown too large to ``path.1`` and empty it; without room for that, only empty it.

    The engine holds the file open for appending, so it goes on writing at the new end. Emptied before the copy gets its
    name: who sees the new name knows that the file began anew.
    """
    old, part = f"{path}.1", f"{path}.1.part"
    try:
        if Path(path).stat().st_size <= LOG_BYTES:
            return
        with open(path, "rb") as log:
            try:
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", 0) as copy:
                    while block := log.read(1 << 20):
                        copy.write(block)
            except OSError:
                os.truncate(path, 0)
                for name in (part, old):
                    Path(name).unlink(missing_ok=True)
                return
        os.truncate(path, 0)
        Path(part).replace(old)
    except OSError:
        return  # the folder was taken away; the engine goes on


def watch(kernel: int, kernel_start: str, engine: int, log: str) -> None:
    """Return when the engine has ended; end it when the kernel is gone."""
    # The engine is this process's parent: the moment it ends, even as a zombie that nobody has reaped yet, we are
    # handed to somebody else. So a reused pid can't be mistaken for it.
    while os.getppid() == engine:
        bound(log)
        if kernel and not alive(kernel, kernel_start):
            for number in (signal.SIGTERM, signal.SIGKILL):
                if os.getppid() == engine:
                    os.kill(engine, number)
                deadline = time.monotonic() + _GRACE_S
                while os.getppid() == engine and time.monotonic() < deadline:
                    time.sleep(0.05)
            return
        time.sleep(_POLL_S)


def main(arguments: list[str]) -> None:
    """Fork the watcher, become the engine; ends with 127 when that cannot be run."""
    kernel, kernel_start, log, separator, *argv = arguments
    if separator != "--" or not argv:
        raise SystemExit("usage: guard.py KERNEL_PID KERNEL_START LOG -- argv…")
    engine = os.getpid()
    if os.fork() == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)  # the watcher's only end is the engine's
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.closerange(3, 1024)
            os.chdir("/")
            watch(int(kernel), kernel_start, engine, log)
        finally:
            os._exit(0)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        print(f"error: cannot run {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Starts the sampler beside this kernel and hands out what it wrote."""

from __future__ import annotations

import contextlib
import os
import site
import subprocess
import sys
import threading
import time
from pathlib import Path

from .. import clock, environment
from .kernel import publish
from .ring import RingReader, Wish
from .rings import leave_note

_AGAIN_S = 5.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class SamplerProcess:
    """The sampler of this kernel. Safe from any thread; nothing runs before :meth:`start`.

    ``source`` can be read at any time: before the start it is empty, after the sampler's death it still has the past.
    """

    def __init__(self, *, stem: str | None = None) -> None:
        folder = environment.runtime_dir()
        self.stem = stem or environment.kernel_key()
        self.log_path = folder / f"{self.stem}.sampler.log"
        self.source = RingReader(folder / f"{self.stem}.ring")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether the sampler runs."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """The sampler's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the sampler, or start it again when it died; does nothing while it runs. Returns at once."""
        with self._lock:
            if not self.alive:
                self._start()

    def ensure(self) -> None:
        """Start the sampler again when it died without being stopped, at most once in 5 s. Returns at once."""
        with self._lock:
            if self._process is not None and not self.alive and time.monotonic() - self._started > _AGAIN_S:
                self._start()

    def want(self, hz: float, linger_s: float = 0.0) -> Wish:
        """As :meth:`.ring.RingReader.want`: more readings for a while, also across a restart."""
        return self.source.want(hz, linger_s)

    def look(self) -> None:
        """Have servers and the host's memory read at once, not at the sampler's next tick."""
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it has died
                    os.write(self._process.stdin.fileno(), b"\n")

    def _start(self) -> None:
        self._started = time.monotonic()
        _close(self._process)
        leave_note(self.source.path, environment.kernel_id())
        pid, _, start = self.stem.partition("-")
        anchor = clock.anchor()
        options = (
            *("--parent", f"{pid}:{start}"),
            *("--hz", f"{self.source.wanted_hz:g}"),
            *("--clock", f"{anchor.wall_ns}:{anchor.monotonic_ns}"),
        )
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable or "python3", "-m", "llamatelemetry_jupyter.sampling", *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # -m puts the current folder on the path: a folder that holds no code but rings and logs.
                cwd=self._folder,
                env=_environ(self._folder),
            )
        finally:
            os.close(log)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the sampler; its ring stays readable."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            _close(process)
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def publish(self) -> None:
        """Tell the sampler what this kernel's libraries hold on GPUs."""
        publish(self._folder, self.stem)


def _close(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.stdin is not None:
        process.stdin.close()


def _environ(folder: Path) -> dict[str, str]:
    environ = dict(os.environ)
    environ["PYTHONSAFEPATH"] = "1"
    environ["LLAMATELEMETRY_RUNTIME_DIR"] = str(folder.resolve())
    installed = {Path(p).resolve() for p in (*site.getsitepackages(), site.getusersitepackages())}
    if _PACKAGE_ROOT not in installed:
        # A checkout, or a folder that the notebook put on sys.path: the child must run this very package.
        kept = environ.get("PYTHONPATH")
        environ["PYTHONPATH"] = f"{_PACKAGE_ROOT}{os.pathsep}{kept}" if kept else str(_PACKAGE_ROOT)
    return environ

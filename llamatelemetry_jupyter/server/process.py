"""A server's life: started once, found again, watched, stopped, and never left behind.

The engine runs in its own session (a notebook's Stop button signals the kernel's process group), writes to a log file
that is read, never to a pipe that fills, and is ended by its guard when the kernel is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .. import environment
from ..clock import now_ns
from ..errors import CommandError, ServerError
from ..fetch import Progress
from ..models import catalogue, gguf
from ..values import JSON, EventKind, ModelRef, Runtime, ServerEvent, ServerHandle, ServerState
from . import failures, launch, log, probe
from .runtime import find_runtime
from .settings import ServerSettings

_POLL_S = 0.02
_WATCH_S = 0.5


@dataclass(eq=False)
class _Child:
    """One engine from spawn to end."""

    process: subprocess.Popen[bytes]
    key: str
    model: ModelRef
    settings: ServerSettings
    runtime: Runtime
    parser: log.Parser
    tail: log.Tail
    handle: ServerHandle | None = None
    failure: failures.Failure | None = None
    wanted_to_end: bool = False
    closed: bool = False
    watcher: threading.Thread | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class ServerManager:
    """Starts, watches and stops one server; safe to call from any thread.

    ``on_event`` is told of everything that happens to it, on whatever thread noticed it.
    """

    def __init__(self, name: str = "default", on_event: Callable[[ServerEvent], None] | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            raise CommandError(
                f"a server's name is made of letters, digits, - and _, not {name!r}", hint="%llama start"
            )
        self.name = name
        self._on_event = on_event
        self._child: _Child | None = None
        self._asked: tuple[ServerSettings, Runtime] | None = None
        self._crash: str | None = None
        self._lock = threading.RLock()
        self._pid = os.getpid()

    # -------------------------------------------------------------------------------------------------------- asking

    @property
    def handle(self) -> ServerHandle | None:
        """The ready server, ``None`` when there is none (also in a forked child: it is its parent's)."""
        child = self._alive()
        return child.handle if child is not None else None

    @property
    def last_crash(self) -> str | None:
        """Why the server ended by itself or did not start; ``None`` when it did not, or was stopped since."""
        self._alive()
        return self._crash

    def state(self) -> ServerState:
        """``stopped``, ``starting``, ``loading``, ``ready`` or ``crashed``."""
        child = self._alive()
        if child is None:
            return "crashed" if self._crash else "stopped"
        if child.handle is not None:
            return "ready"
        return "loading" if child.parser.stage >= 0 else "starting"

    def log(self, last: int = 40) -> list[str]:
        """The last lines of the newest log, also after the end; empty when there was none."""
        try:
            return log.last_lines(self._path("log"), last)
        except FileNotFoundError:
            return []

    # ------------------------------------------------------------------------------------------------ start and stop

    def start(
        self,
        settings: ServerSettings,
        runtime: Runtime | None = None,
        on_progress: Progress | None = None,
        timeout_s: float = 120.0,
        *,
        replace: bool = False,
    ) -> ServerHandle:
        """The ready server; the running one when its settings are the same.

        ``on_progress(stage, fraction)`` is called while the model is fetched (0..1, ``None`` where nothing measures it)
        and then while the engine starts (0..1). ``timeout_s`` counts from the engine's start. With ``replace`` a
        running server is stopped first, whatever its settings. Raises ModelError, GGUFError or EngineError before
        anything is started, and ServerError with the cause from the engine's log; whatever ends a start early, also
        an interrupt, nothing is left running.
        """
        with self._lock:
            if os.getpid() != self._pid:
                raise ServerError(
                    "the server belongs to the process that this one was forked from", hint="%llama status"
                )
            say = on_progress or (lambda _stage, _fraction: None)
            runtime = runtime or find_runtime()
            model = catalogue.resolve(settings.model, say)
            wanted = settings.resolved(model, gguf.read_header(model.path).context_length)
            running = self._alive()
            if running is not None and running.handle is not None and not replace:
                if running.settings == wanted and running.runtime.argv == runtime.argv:
                    return running.handle
                raise ServerError(
                    f"{running.model.id} is already running with other settings",
                    hint=f"%llama start {settings.model} --restart",
                )
            self.stop()
            launch.remove_stale_files()
            self._asked = (settings, runtime)
            try:
                child = self._spawn(wanted, model, runtime)
                handle = self._wait_until_ready(child, say, timeout_s)
                launch.write_private(self._path("server.json"), handle.to_json())
                self._tell("ready", url=handle.url, slots=handle.slots, ctx_per_slot=handle.ctx_per_slot)
                child.watcher = threading.Thread(
                    target=_watch, args=(weakref.ref(self), child), name="llamatelemetry-server", daemon=True
                )
                child.watcher.start()
            except (
                BaseException
            ):  # also KeyboardInterrupt: a cell that was stopped leaves no half-started engine behind
                if self._child is not None:
                    self._end(self._child, 0.5)
                raise
            return handle

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server: SIGTERM, again after half of ``timeout_s``, then SIGKILL. Does nothing when none runs."""
        if os.getpid() != self._pid:
            return  # a forked child holds a copy of the manager, not the server
        with self._lock:
            if self._child is not None:
                self._end(self._child, timeout_s / 2)
            self._crash = None

    def restart(self, on_progress: Progress | None = None, timeout_s: float = 120.0) -> ServerHandle:
        """Stop the server, or what is left of it, and start it with the settings that were asked for last."""
        if self._asked is None:
            raise ServerError("no server was started in this kernel", hint="%llama start")
        settings, runtime = self._asked
        return self.start(settings, runtime, on_progress, timeout_s, replace=True)

    # ----------------------------------------------------------------------------------------------------- the parts

    def _spawn(self, settings: ServerSettings, model: ModelRef, runtime: Runtime) -> _Child:
        self._crash = None
        self._child = None
        key = secrets.token_urlsafe(32)
        path = self._path("log")
        process = launch.spawn(runtime, settings, key, path)
        child = _Child(process, key, model, settings, runtime, log.Parser(self.name), log.Tail(path))
        self._child = child
        _end_at_exit(self)
        self._tell("spawned", pid=process.pid, engine=runtime.version, model=model.id)
        return child

    def _wait_until_ready(self, child: _Child, say: Progress, timeout_s: float) -> ServerHandle:
        deadline = time.monotonic() + timeout_s
        stage, fraction = "starting the engine", 0.0
        while True:
            ended = child.process.poll() is not None  # asked first: what it wrote until then is read
            self._read_log(child)
            if ended:
                self._close(child)
                assert child.failure is not None
                raise ServerError(
                    f"the server did not start: {child.failure.cause} (log: {child.tail.path})",
                    hint=child.failure.remedy,
                )
            if child.parser.stage >= 0:
                _, stage, reached = log.STAGES[child.parser.stage]
                if stage == "loading weights":
                    reached += 0.4 * launch.weights_mapped(child.process.pid, child.model.file_bytes)
                fraction = max(fraction, reached)
            say(stage, fraction)
            for url in list(child.parser.urls):
                if (handle := self._identify(child, url)) is not None:
                    child.parser.loading = False
                    say("ready", 1.0)
                    return handle
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the server was not ready after {timeout_s:.0f} s (it was at: {stage}; log: {child.tail.path})",
                    hint=f"%llama start --timeout {max(timeout_s * 3, 60):.0f}",
                )
            time.sleep(_POLL_S)

    def _identify(self, child: _Child, url: str) -> ServerHandle | None:
        """The handle, once what answers at ``url`` proved to be our engine and ready."""
        pid = child.process.pid
        if probe.listens(pid, url) is False:
            child.parser.urls.remove(url)  # text of the model that looks like an address
            return None
        try:
            if probe.get(url, "/health")[0] != 200:
                return None
            status, props = probe.get(url, "/props", child.key)
            _, slots = probe.get(url, "/slots", child.key)
        except OSError:
            return None
        alias = props.get("model_alias") if isinstance(props, dict) else None
        if status != 200 or not isinstance(props, dict) or alias != child.settings.alias:
            raise ServerError(f"another server answers at {url} (HTTP {status}, model {alias!r})", hint="%llama start")
        count, first = props.get("total_slots"), slots[0] if isinstance(slots, list) and slots else None
        context = first.get("n_ctx") if isinstance(first, dict) else None
        child.handle = ServerHandle(
            name=self.name,
            url=url,
            api_key=child.key,
            backend="llama.cpp",
            owned=True,
            pid=pid,
            pid_start=environment.process_start(pid),
            model=child.model,
            slots=count if isinstance(count, int) else None,
            ctx_per_slot=context if isinstance(context, int) else None,
            capabilities=probe.capabilities(props) | ({"embeddings"} if child.settings.embeddings else frozenset()),
            buffers=child.parser.buffers,
            settings_hash=child.settings.hash(),
            log_path=str(child.tail.path),
            engine=child.runtime.version,
        )
        return child.handle

    def _read_log(self, child: _Child) -> None:
        with child.lock:
            for line in child.tail.read():
                for event in child.parser.feed(line):
                    self._pass_on(event)

    def _alive(self) -> _Child | None:
        child = self._child
        if child is None or child.closed or os.getpid() != self._pid:
            return None
        if child.process.poll() is not None:
            self._close(child)
            return None
        return child

    def _end(self, child: _Child, grace_s: float) -> None:
        child.wanted_to_end = True
        # A request without streaming keeps the engine up until its client leaves; a second signal does not wait.
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            if child.process.poll() is None:
                child.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(wait_s)
        self._close(child)
        if child.watcher is not None and child.watcher is not threading.current_thread():
            child.watcher.join(5.0)

    def _close(self, child: _Child) -> None:
        """The engine has ended: say so once, and take its state file away."""
        with child.lock:
            if child.closed:
                return
            child.closed = True
            self._path("server.json").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._read_log(child)
            code = child.process.returncode
            if child.wanted_to_end:
                self._tell("stopped", returncode=code)
                return
            child.failure = failures.explain(code, child.parser.lines)
            self._crash = child.failure.cause
            self._tell("crashed", returncode=code, reason=child.failure.cause, hint=child.failure.remedy)

    def _path(self, suffix: str) -> Path:
        return environment.runtime_dir() / f"{environment.kernel_key()}.{self.name}.{suffix}"

    def _tell(self, kind: EventKind, **data: JSON) -> None:
        self._pass_on(ServerEvent(now_ns(), self.name, kind, data))

    def _pass_on(self, event: ServerEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


def _watch(manager: weakref.ref[ServerManager], child: _Child) -> None:
    """Follow the log while the engine lives; its end is noticed at once (pidfd) or within half a second."""
    pidfd: int | None = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # a kernel before 5.3, a sandbox, or it has ended already
            pidfd = os.pidfd_open(child.process.pid)
    try:
        while not child.closed:
            if pidfd is not None:
                select.select([pidfd], [], [], _WATCH_S)
            else:
                time.sleep(_WATCH_S)
            ours = manager()
            if ours is None:
                return
            if child.process.poll() is not None:
                ours._close(child)
                return
            with contextlib.suppress(FileNotFoundError):
                ours._read_log(child)
            del ours
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _end_at_exit(manager: ServerManager) -> None:
    """Stop the engine when the kernel exits in good order; the guard does it in every other case."""
    reference = weakref.ref(manager)

    def end() -> None:
        atexit.unregister(end)
        if (ours := reference()) is not None:
            ours.stop(1.0)

    atexit.register(end)

"""A server's life: started once, found again, watched, stopped, and never left behind unless it was meant to stay.

The engine runs in its own session (a notebook's Stop button signals the kernel's process group), writes to a log file
that is read, never to a pipe that fills, and is ended by its guard when the kernel is gone. Long, because every change
of that life has to hold the same lock.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import environment
from ..clock import now_ns
from ..errors import CommandError, ServerError
from ..models import catalogue, gguf
from ..models.shape import shape_of
from ..progress import Progress, Step, silent
from ..secrets import remember
from ..values import JSON, EventKind, ModelRef, Runtime, ServerEvent, ServerHandle, ServerState, ServerStatus
from . import attach, failures, launch, log, proof, remedy
from .child import Child
from .forecast import Forecast, forecast
from .places import places
from .running import Running
from .runtime import find_runtime
from .settings import ServerSettings
from .state import State, remove_stale_files

_POLL_S = 0.01
_WATCH_S = 0.5
#: How long a request in flight may hold up a stop.
STOP_S = 2.0
#: What the event of a ready server tells of it.
_TOLD = ("url", "slots", "ctx_per_slot", "predicted", "buffers")


class ServerManager:
    """Starts, finds, watches and stops one server; safe to call from any thread.

    ``on_event`` is told of everything that happens to it, on whatever thread noticed it. As a context manager it stops
    the server at the end of the block.
    """

    def __init__(self, name: str = "default", on_event: Callable[[ServerEvent], None] | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            raise CommandError(
                f"a server's name is made of letters, digits, - and _, not {name!r}", hint="%llama start"
            )
        self.name = name
        self._on_event = on_event
        self._now: Running | None = None
        self._asked: tuple[ServerSettings, Runtime, bool] | None = None
        self._crash: failures.Failure | None = None
        self._reached: Step | None = None  # of the start that is under way
        self._unwanted = False  # that start, by a stop that came before there was an engine
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __enter__(self) -> ServerManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -------------------------------------------------------------------------------------------------------- asking

    @property
    def handle(self) -> ServerHandle | None:
        """The ready server, ``None`` when there is none (also in a forked child: it is its parent's)."""
        running = self._alive()
        return running.handle if running is not None else None

    @property
    def last_crash(self) -> str | None:
        """Why the server ended by itself or did not start; ``None`` when it did not, or was stopped since."""
        self._alive()
        return self._crash.cause if self._crash else None

    @property
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """Cause and remedy of what went wrong without ending the start, the silent fallback to the CPU among them."""
        return tuple(self._now.parser.warnings) if self._now is not None else ()

    @property
    def kept(self) -> bool:
        """Whether the running server outlives this kernel."""
        running = self._alive()
        return running is not None and running.kept

    @property
    def settings(self) -> ServerSettings | None:
        """What the running server was started with; ``None`` for one that we did not start."""
        running = self._alive()
        return running.settings if running is not None else None

    @property
    def command(self) -> tuple[str, ...] | None:
        """The engine and its arguments, the wheel's as llama-server's; ``None`` for one that we did not start."""
        running = self._alive()
        if running is None or running.settings is None or running.runtime is None:
            return None
        wheel = running.runtime.kind == "xllamacpp"
        features = ServerSettings.flags() if wheel else running.runtime.features
        return (*(("xllamacpp",) if wheel else running.runtime.argv), *running.settings.to_argv(features))

    def state(self) -> ServerState:
        """``stopped``, ``starting``, ``loading``, ``ready`` or ``crashed``."""
        running = self._alive()
        if running is None:
            return "starting" if self._reached is not None else "crashed" if self._crash else "stopped"
        if running.handle is not None:
            return "ready"
        return "loading" if running.parser.stage >= 0 else "starting"

    @property
    def asked(self) -> ServerSettings | None:
        """The settings asked for last, also of a server that has ended; ``None`` before the first start."""
        return self._asked[0] if self._asked is not None else None

    def status(self) -> ServerStatus:
        """What there is to tell of it now; waits for nothing."""
        state, now, reached = self.state(), self._now, self._reached
        running = now if state in ("starting", "loading", "ready") else None
        handle, coming = (running.handle, running.forecast) if running is not None else (None, None)
        told = now.model if now is not None and (running is not None or state == "crashed") else None
        crash = self._crash if state == "crashed" else None
        at = reached if state != "ready" else None
        return ServerStatus(
            self.name,
            state,
            told.id if told is not None else None,
            at.what if at is not None else None,
            at.fraction if at is not None else None,
            crash.cause if crash is not None else None,
            crash.remedy if crash is not None else None,
            handle.predicted if handle is not None else coming.buffers if coming is not None else (),
        )

    def log(self, last: int = 40) -> list[str]:
        """The last lines of the newest log, also after the end; empty when there was none."""
        tail = self._now.tail if self._now is not None else None
        try:
            return log.last_lines(tail.path, last) if tail is not None else []
        except FileNotFoundError:
            return []

    # ------------------------------------------------------------------------------------------------ start and stop

    def start(
        self,
        settings: ServerSettings,
        runtime: Runtime | None = None,
        on_progress: Progress = silent,
        timeout_s: float = 120.0,
        *,
        replace: bool = False,
        keep: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> ServerHandle:
        """The ready server: the running one when its settings are the same, else a new one in its place.

        ``on_progress(step)`` is told of the model's download and then of the engine's start (a share of 1);
        ``on_notice(text)`` is called before, when a context that nobody asked for is
        lowered to what fits, or memory is likely to be short. ``timeout_s`` counts from the engine's start. ``replace``
        restarts also with the same settings; ``keep`` lets the server outlive this process. Raises ModelError,
        GGUFError, CommandError or EngineError before anything is stopped or started, and ServerError with the cause
        from the engine's log; whatever ends a start early, also an interrupt, nothing is left running.
        """
        with self._lock:
            self._own()
            self._unwanted = False
            self._reached = Step("reading the model")
            try:
                return self._start(settings, runtime, self._telling(on_progress), timeout_s, replace, keep, on_notice)
            finally:
                self._reached = None

    def restart(
        self,
        on_progress: Progress = silent,
        timeout_s: float = 120.0,
        *,
        on_notice: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> ServerHandle:
        """Stop the server, or what is left of it, and start it with the settings asked for last and ``changes``."""
        if self._asked is None:
            raise ServerError("no server was started in this kernel", hint="%llama start")
        settings, runtime, keep = self._asked
        changed = replace(settings, **changes)
        return self.start(changed, runtime, on_progress, timeout_s, replace=True, keep=keep, on_notice=on_notice)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End the server, also while it starts: one SIGTERM, SIGKILL after ``timeout_s``; an attached one is let go."""
        if os.getpid() != self._pid:
            return  # a forked child holds a copy of the manager, not the server
        starting = self._now
        if starting is not None and starting.child is not None and starting.handle is None and not starting.closed:
            # Another thread holds the lock until its start is through: it sees the end, and gives up.
            starting.wanted_to_end = True
            starting.child.end(timeout_s)
        self._unwanted = self._reached is not None
        with self._lock:
            if self._now is not None:
                self._end(self._now, timeout_s)
            self._crash = None

    def close(self) -> None:
        """End the server when this process ends; one that is kept goes on, and can be found again."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            running = self._alive()
            if running is None or not running.kept:
                self.stop(1.0)
                return
            running.closed = True
            self._join(running)

    # --------------------------------------------------------------------------------------------------- found again

    def attach(self, url: str, api_key: str | None = None, timeout_s: float = 10.0) -> ServerHandle:
        """A server that somebody else runs, at ``url``; what it is and can do is found out (see :mod:`.attach`).

        Raises ServerError when nothing that speaks OpenAI's protocol answers there within ``timeout_s``, or the key is
        refused, or a server of our own has this name.
        """
        with self._lock:
            self._own()
            self._free()
            if api_key:
                remember(api_key)
            handle = attach.detect(url, api_key, self.name, timeout_s)
            self.stop()
            self._now = running = Running(None, api_key, log.Parser(self.name), self._pass_on, handle.model)
            self._settle(running, handle)
            self._tell("attached", url=handle.url, backend=handle.backend)
            return handle

    def adopt(self, state: State) -> ServerHandle:
        """Take over a server whose kernel has gone; from now on it is this kernel's, and still kept.

        Raises ServerError when it is no longer what its state file says.
        """
        with self._lock:
            self._own()
            self._free()
            known = state.handle
            if not state.verified() or known.pid is None:
                raise ServerError(f"the server at {known.url} is not the one that was kept", hint="%llama start")
            if known.api_key:
                remember(known.api_key)
            self.stop()
            mine = self._path("server.json")
            try:  # of several kernels that want it, one gets the file
                if state.path is not None and state.path != mine:
                    state.path.rename(mine)
            except FileNotFoundError as error:
                raise ServerError(f"another notebook has just taken {known.url} over", hint="%llama start") from error
            path = Path(known.log_path or "")
            tail = log.Tail(path, from_end=True) if path.is_file() else None
            running = Running(
                Child(known.pid, known.pid_start), known.api_key, log.Parser(self.name), self._pass_on, known.model,
                state.settings, state.runtime, tail, kept=True,
            )  # fmt: skip
            running.parser.loading = False
            self._now = running
            if state.settings is not None and state.runtime is not None:
                self._asked = (state.settings, state.runtime, True)
            handle = replace(known, name=self.name)
            self._settle(running, handle)
            _end_at_exit(self)
            self._tell("attached", url=handle.url, backend=handle.backend)
            return handle

    # ----------------------------------------------------------------------------------------------------- the parts

    def _start(
        self,
        settings: ServerSettings,
        runtime: Runtime | None,
        say: Progress,
        timeout_s: float,
        replace: bool,
        keep: bool,
        on_notice: Callable[[str], None] | None,
    ) -> ServerHandle:
        tell = on_notice or (lambda _text: None)
        runtime = runtime or find_runtime()
        model = catalogue.resolve(settings.model, say)
        header = gguf.read_header(model.path)
        wanted = settings.resolved(model, header)
        _ = wanted.to_argv(runtime.features) if runtime.kind == "binary" else wanted.to_params()
        running = self._alive()
        if running is not None and running.handle is not None and not replace:
            same_engine = running.runtime is not None and running.runtime.argv == runtime.argv
            if running.serves(settings, wanted) and same_engine and (running.kept or not keep):
                return running.handle
        gpus, host = places(wanted, runtime, running.handle if running is not None else None)
        found = forecast(wanted, shape_of(header), gpus, host, lower=settings.ctx is None)
        for text in remedy.notices(found, settings.model, self.name):
            tell(text)
        if self._now is not None:
            self._end(self._now, STOP_S)
        self._crash = None
        remove_stale_files()
        self._asked = (settings, runtime, keep)
        try:
            running = self._spawn(found, model, runtime, keep=keep)
            handle = self._wait_until_ready(running, say, timeout_s)
            self._settle(running, handle)
        except BaseException:  # also an interrupt: a cell that was stopped leaves no half-started engine behind
            if self._now is not None:
                self._end(self._now, 0.5)
            raise
        known = asdict(handle)
        self._tell("ready", **{name: known[name] for name in _TOLD})
        return handle

    def _telling(self, say: Progress) -> Progress:
        """``say``, remembered for :meth:`status`; where a stop came before the engine, the start ends here."""

        def tell(step: Step) -> None:
            self._reached = step
            if self._unwanted:
                raise ServerError("the server was stopped while it started", hint="%llama start")
            say(step)

        return tell

    def _own(self) -> None:
        if os.getpid() != self._pid:
            raise ServerError("the server belongs to the process that this one was forked from", hint="%llama status")

    def _free(self) -> None:
        running = self._alive()
        if running is not None and running.child is not None:
            raise ServerError(f"server {self.name!r} is running", hint="%llama attach … --name other")

    def _spawn(self, found: Forecast, model: ModelRef, runtime: Runtime, *, keep: bool) -> Running:
        settings, asked = found.settings, self._asked[0].model if self._asked else ""
        self._crash = None
        self._now = None
        key = remember(secrets.token_urlsafe(32))
        path = self._path("log")
        rendered = launch.with_slots(settings, self._path("slots"))
        before = proof.Before.now()
        process = launch.spawn(runtime, rendered, key, path, keep=keep)
        child = Child(process.pid, environment.process_start(process.pid), process)
        running = Running(
            child, key, log.Parser(self.name), self._pass_on, model, settings, runtime, log.Tail(path), kept=keep,
            forecast=found, asked=asked, before=before,
        )  # fmt: skip
        self._now = running
        _end_at_exit(self)
        self._tell("spawned", pid=process.pid, engine=runtime.version, model=model.id)
        running.foretell()
        return running

    def _wait_until_ready(self, running: Running, say: Progress, timeout_s: float) -> ServerHandle:
        child, tail = running.child, running.tail
        assert child is not None
        assert tail is not None
        deadline = time.monotonic() + timeout_s
        while True:
            ended = child.ended()  # asked first: what it wrote until then is read
            running.read_log()
            if ended:
                self._close(running)
                if running.failure is None:
                    raise ServerError("the server was stopped while it started", hint="%llama start")
                raise ServerError(
                    f"the server did not start: {running.failure.cause} (log: {tail.path})",
                    hint=running.failure.remedy,
                )
            step = running.reached()
            say(step)
            for url in running.addresses():
                if (handle := running.identify(self.name, url)) is not None:
                    say(Step("ready", 1.0, 1.0))
                    return handle
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the server was not ready after {timeout_s:.0f} s (it was at: {step.what}; log: {tail.path})",
                    hint=f"%llama start --timeout {max(timeout_s * 3, 60):.0f}",
                )
            time.sleep(_POLL_S)

    def _settle(self, running: Running, handle: ServerHandle) -> None:
        """The server is known: write its state file, and watch it."""
        path = self._path("server.json")
        try:
            State(handle, running.settings, running.runtime, running.kept).write(path)
        except OSError as error:
            raise ServerError(f"{path} cannot be written: {error.strerror}", hint=f"!df -h {path.parent}") from error
        running.handle = handle
        if running.child is not None:
            running.watcher = threading.Thread(
                target=self._watch, args=(running,), name="llamatelemetry-server", daemon=True
            )
            running.watcher.start()

    def _watch(self, running: Running) -> None:
        """Follow the log while the engine lives; its end is noticed at once (pidfd) or within half a second."""
        assert running.child is not None
        while not running.closed:
            ended = running.child.wait(_WATCH_S)
            if running.closed:
                return
            if ended:
                self._close(running)
                return
            with contextlib.suppress(FileNotFoundError):
                running.read_log()

    def _alive(self) -> Running | None:
        running = self._now
        if running is None or running.closed or os.getpid() != self._pid:
            return None
        if running.child is not None and running.child.ended():
            self._close(running)
            return None
        return running

    def _end(self, running: Running, grace_s: float) -> None:
        running.wanted_to_end = True
        if running.child is not None:
            self._tell("stopping")
            running.child.end(grace_s)
        self._close(running)
        self._join(running)

    def _join(self, running: Running) -> None:
        if running.watcher is not None and running.watcher is not threading.current_thread():
            running.watcher.join(5.0)
        if running.child is not None:
            running.child.close()

    def _close(self, running: Running) -> None:
        """The server has ended or was let go: say so once, and take its state file away."""
        with running.lock:
            if running.closed:
                return
            running.closed = True
            self._path("server.json").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                running.read_log()
            code = running.child.returncode if running.child is not None else None
            if running.wanted_to_end:
                self._tell("stopped", returncode=code)
                return
            running.failure = self._crash = running.explain()
            self._tell("crashed", returncode=code, reason=self._crash.cause, hint=self._crash.remedy)

    def _path(self, suffix: str) -> Path:
        return environment.runtime_dir() / f"{environment.kernel_key()}.{self.name}.{suffix}"

    def _tell(self, kind: EventKind, **data: JSON) -> None:
        self._pass_on(ServerEvent(now_ns(), self.name, kind, data))

    def _pass_on(self, event: ServerEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


def _end_at_exit(manager: ServerManager) -> None:
    """Stop the engine when the kernel exits in good order; the guard does it in every other case."""
    reference = weakref.ref(manager)

    def end() -> None:
        atexit.unregister(end)
        if (ours := reference()) is not None:
            ours.close()

    atexit.register(end)

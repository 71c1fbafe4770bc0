"""A server's life: started once, found again, watched, stopped, and never left behind.

The engine runs in its own session (a notebook's Stop button signals the kernel's process group), writes to a log file
that is read, never to a pipe that fills, and is ended by its guard when the kernel is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import environment
from ..clock import now_ns
from ..errors import ServerError
from ..fetch import Progress
from ..models.catalogue import resolve
from ..models.gguf import read_header
from ..values import JSON, EventKind, ModelRef, Runtime, ServerEvent, ServerHandle, ServerState
from .log import Failure, Log, explain
from .runtime import find_runtime
from .settings import ServerSettings

_DEFAULT_CTX = 8192
_POLL_S = 0.05
_GUARD = Path(__file__).with_name("guard.py")
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_FOREIGN = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class ServerManager:
    """Starts, watches and stops one server; safe to call from any thread."""

    def __init__(self, name: str = "default", on_event: Callable[[ServerEvent], None] | None = None) -> None:
        self.name = name
        self._on_event = on_event
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._handle: ServerHandle | None = None
        self._state: ServerState = "stopped"
        self._failure: Failure | None = None
        self._stopping = False
        self._settings: tuple[ServerSettings, Runtime] | None = None

    @property
    def handle(self) -> ServerHandle | None:
        """The running server, ``None`` when there is none (also in a forked child: it is its parent's)."""
        process = self._process
        mine = process is not None and process.poll() is None and _parent_is_me(process.pid)
        return self._handle if mine else None

    @property
    def last_crash(self) -> str | None:
        """Why the server ended by itself, ``None`` when it did not."""
        return self._failure.reason if self._failure else None

    def state(self) -> ServerState:
        """``stopped``, ``starting``, ``loading``, ``ready`` or ``crashed``."""
        return self._state

    def log(self, last: int = 40) -> list[str]:
        """The last lines of the newest log, also after a crash."""
        return Log(self._path("log")).tail(last)

    def start(
        self,
        settings: ServerSettings,
        runtime: Runtime | None = None,
        *,
        on_progress: Progress | None = None,
        timeout_s: float = 120.0,
        replace: bool = False,
    ) -> ServerHandle:
        """The ready server; the running one when its settings are the same.

        Raises :class:`ServerError` when another server runs (and ``replace`` is false), or when the engine does not
        become ready: with the cause from its log, and nothing left running.
        """
        report = on_progress or (lambda _stage, _fraction: None)
        with self._lock:
            model = resolve(settings.model, report)
            wanted = _complete(settings, model)
            running = self.handle
            if running is not None and running.settings_hash == wanted.hash() and not replace:
                return running
            if running is not None and not replace:
                name = running.model.id if running.model else running.url
                raise ServerError(
                    f"{name} is already running with other settings", hint=f"%llama start {settings.model} --restart"
                )
            self.stop()
            self._settings = (settings, runtime or find_runtime())
            return self._launch(wanted, model, self._settings[1], report, timeout_s)

    def restart(self, **options: Any) -> ServerHandle:
        """Stop the server and start it with the same settings."""
        if self._settings is None:
            raise ServerError("no server was started in this kernel", hint="%llama start")
        settings, runtime = self._settings
        return self.start(settings, runtime, replace=True, **options)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server; does nothing when none runs."""
        with self._lock:
            process, self._process = self._process, None
            self._handle = None
            self._path("server.json").unlink(missing_ok=True)
            if process is None or process.poll() is not None or not _parent_is_me(process.pid):
                return
            self._stopping = True
            # A request without streaming keeps the engine up until its client leaves; a second signal does not wait.
            for end, wait_s in ((process.terminate, timeout_s), (process.terminate, 1.0), (process.kill, 5.0)):
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait_s)
                    break
            self._state = "stopped"
            self._tell("stopped")

    # ------------------------------------------------------------------------------------------------------- starting

    def _launch(
        self, settings: ServerSettings, model: ModelRef, runtime: Runtime, report: Progress, timeout_s: float
    ) -> ServerHandle:
        _remove_stale()
        key = secrets.token_urlsafe(24)
        log = Log(self._path("log"))
        log.path.touch(mode=0o600)
        log.path.write_bytes(b"")
        self._failure, self._stopping, self._state = None, False, "starting"
        with log.path.open("ab") as sink:
            process = subprocess.Popen(
                _command(runtime, settings), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, close_fds=True,
                start_new_session=True, env=_environment(runtime, settings, key),
            )  # fmt: skip
        self._process = process
        self._tell("spawned", pid=process.pid)
        try:
            url = self._wait(process, log, report, timeout_s)
            handle = _describe(self.name, url, key, process.pid, model, settings, runtime, log)
        except BaseException:
            # Also on KeyboardInterrupt: a cell that was stopped leaves no half-started engine behind.
            self._stopping = True
            process.kill()
            process.wait()
            self._process, self._state = None, "crashed" if self._failure else "stopped"
            raise
        self._handle, self._state = handle, "ready"
        state_file = self._path("server.json")
        with open(os.open(state_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(handle.to_json())
        self._tell("ready", url=url)
        threading.Thread(target=self._watch, args=(process,), name="llamatelemetry-server", daemon=True).start()
        return handle

    def _wait(self, process: subprocess.Popen[bytes], log: Log, report: Progress, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        report("starting the engine", 0.0)
        while True:
            ended = process.poll() is not None  # asked before reading: what it wrote until then is read
            for stage, fraction in log.read():
                self._state = "loading"
                report(stage, fraction)
                self._tell("load_stage", stage=stage, fraction=fraction)
            if ended:
                self._failure = explain(log.tail(60), process.returncode)
                raise ServerError(f"the server did not start: {self._failure.reason}", hint=self._failure.hint)
            if log.url and _ready(log.url):
                return log.url
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the server was not ready after {timeout_s:.0f} s", hint="%llama start --timeout 600"
                )
            time.sleep(_POLL_S)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        returncode = process.wait()
        if self._stopping or self._process is not process:
            return
        self._failure = explain(self.log(60), returncode)
        self._state = "crashed"
        self._path("server.json").unlink(missing_ok=True)
        self._tell("crashed", reason=self._failure.reason, returncode=returncode)

    def _path(self, suffix: str) -> Path:
        return environment.runtime_dir() / f"{environment.kernel_key()}.{self.name}.{suffix}"

    def _tell(self, kind: EventKind, **data: JSON) -> None:
        if self._on_event is not None:
            self._on_event(ServerEvent(now_ns(), self.name, kind, data))


def _complete(settings: ServerSettings, model: ModelRef) -> ServerSettings:
    context = settings.ctx or min(read_header(model.path).context_length or _DEFAULT_CTX, _DEFAULT_CTX)
    return dataclasses.replace(settings, model=model.path, alias=settings.alias or model.id, ctx=context)


def _command(runtime: Runtime, settings: ServerSettings) -> list[str]:
    options = settings.to_argv(runtime.features) if runtime.kind == "binary" else []
    start = environment.process_start(os.getpid())
    guard = [sys.executable, "-I", str(_GUARD), str(os.getpid()), f"{start:.0f}", "--"]
    return [*guard, *runtime.argv, *options]


def _environment(runtime: Runtime, settings: ServerSettings, key: str) -> dict[str, str]:
    # Inherited LLAMA_ARG_* would silently change the server; a proxy has nothing to do on loopback.
    child = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LLAMA_ARG_") and name.lower() not in _FOREIGN
    }
    child["LLAMA_API_KEY"] = key
    if runtime.kind == "xllamacpp":
        child["LLAMATELEMETRY_PARAMS"] = json.dumps(settings.to_params())
        # The kernel may have found the package by a path of its own (an editable install, a notebook's folder).
        child["PYTHONPATH"] = os.pathsep.join(filter(None, [_PACKAGE_PARENT, os.environ.get("PYTHONPATH")]))
    return child


def _describe(
    name: str, url: str, key: str, pid: int, model: ModelRef, settings: ServerSettings, runtime: Runtime, log: Log
) -> ServerHandle:
    props = _get(url, "/props", key)
    if not isinstance(props, dict) or props.get("model_alias") != settings.alias:
        raise ServerError(f"another server answers at {url}", hint="%llama start")
    generation = props.get("default_generation_settings")
    context = generation.get("n_ctx") if isinstance(generation, dict) else None
    slots = props.get("total_slots")
    return ServerHandle(
        name=name, url=url, api_key=key, backend="llama.cpp", owned=True, pid=pid,
        pid_start=environment.process_start(pid), model=model,
        slots=slots if isinstance(slots, int) else None, ctx_per_slot=context if isinstance(context, int) else None,
        capabilities=frozenset({"chat", "slots", "metrics"}), buffers=tuple(log.buffers), settings_hash=settings.hash(),
        log_path=str(log.path), engine=runtime.version,
    )  # fmt: skip


def _ready(url: str) -> bool:
    try:
        return _get(url, "/health", None) is not None
    except OSError:
        return False


def _get(url: str, path: str, key: str | None) -> JSON:
    """The JSON of a GET, ``None`` for any status but 200. No proxy is asked: http.client knows none."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise ServerError(f"{url} does not speak HTTP: {error}", hint="%llama logs") from error
    finally:
        connection.close()
    found: JSON = json.loads(body) if answer.status == 200 else None
    return found


def _parent_is_me(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()
    return int(stat[stat.rindex(b")") + 2 :].split()[1]) == os.getpid()


def _remove_stale() -> None:
    """State files, logs and rings of kernels that are gone."""
    for path in environment.runtime_dir().iterdir():
        pid, _, start = path.name.partition(".")[0].partition("-")
        if pid.isdigit() and start.isdigit() and environment.process_start(int(pid)) != float(start):
            path.unlink(missing_ok=True)

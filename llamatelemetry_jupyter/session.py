"""What one kernel holds: its server, its spans, its samples, its views. No formatting, no decisions of the rooms below.

Everything is made when first needed, so that a session costs nothing until a command is run; :meth:`Session.close`
gives all of it back.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import described, environment
from .clock import now_ns
from .errors import CommandError, ServerError
from .observer import CallObserver
from .progress import Progress, silent
from .values import SampleSource, ServerEvent, ServerHandle, ServerStatus, SpanRow

if TYPE_CHECKING:
    from .cells import CellHooks
    from .inference.engine import InferenceEngine
    from .sampling.process import SamplerProcess
    from .server.process import ServerManager
    from .telemetry.lifecycle import Lifecycle
    from .telemetry.metrics import Metrics, Point
    from .telemetry.recorded import RecordedSpans
    from .telemetry.sessions import Sessions
    from .telemetry.store import SpanStore
    from .telemetry.tracer import Telemetry

#: The server that a command means when it names none.
DEFAULT = "default"

_current: Session | None = None
_lock = threading.Lock()
_SETTLE_S, _FIRST_S = 1.2, 5.0


class Closeable(Protocol):
    """What a session closes with itself."""

    def close(self) -> None:
        """End threads and comms."""
        ...


class Session:
    """The rooms of one kernel, wired together."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.shell: Any = None
        self.cells: CellHooks | None = None
        self.events: deque[ServerEvent] = deque(maxlen=10_000)
        self._on_refresh: list[Callable[[], None]] = []
        self._described = False
        self._held: dict[str, Closeable] = {}
        #: What the user has agreed to send: address, and whether everything.
        self.agreed: set[tuple[str, bool]] = set()
        self._engines: dict[str, InferenceEngine] = {}
        #: By name; made when a name is first used (:meth:`manager_of`).
        self.managers: dict[str, ServerManager] = {}

    @property
    def manager(self) -> ServerManager:
        """The manager of the server that commands mean when they name none."""
        return self.manager_of(DEFAULT)

    def manager_of(self, name: str) -> ServerManager:
        """The manager of the server ``name``; its events are kept in :attr:`events`."""
        from .server.process import ServerManager

        with _lock:  # a button of the dashboard asks on a thread of its own
            if name not in self.managers:
                self.managers[name] = ServerManager(name, on_event=self._on_event)
            return self.managers[name]

    def _names(self) -> list[str]:
        """The default one first; a copy, because other threads may add one."""
        return sorted([*self.managers], key=lambda name: name != DEFAULT)

    def statuses(self) -> tuple[ServerStatus, ...]:
        """What the managers know of their servers, the default one first; waits for nothing."""
        return tuple(self.managers[name].status() for name in self._names())

    def _on_event(self, event: ServerEvent) -> None:
        self.events.append(event)
        if event.kind == "spawned":
            self.tracing()  # a start is the running cell's doing
        self.lifecycle.tell(event)
        if event.kind == "request":
            self.metrics.served(event, self.manager_of(event.server).handle)
        elif event.kind in ("stopping", "crashed") and "metrics" in self.__dict__:
            self.metrics.observed.settle()

    @cached_property
    def lifecycle(self) -> Lifecycle:
        """Makes spans of what happens to servers."""
        from .telemetry.lifecycle import Lifecycle

        return Lifecycle(lambda: self.telemetry, lambda name: described.server(self.spans, self.manager_of(name)))

    @cached_property
    def spans(self) -> SpanStore:
        """The ended spans of this kernel, kept in a file of their own."""
        from .telemetry import sessions
        from .telemetry.store import SpanStore

        path = sessions.new_path(environment.data_dir() / "spans")
        return SpanStore(path, samples=self.samples, on_rows=self._on_rows, tidy=lambda: sessions.prune(path))

    @property
    def sessions(self) -> Sessions:
        """This session and those of before."""
        from .telemetry.sessions import Sessions

        return Sessions(environment.data_dir() / "spans", self.spans.path)

    def recorded(self, named: str | None) -> RecordedSpans:
        """The spans of this session, of one before by its id or the beginning of that; raises CommandError."""
        return self.spans if named in (None, "this") else self.sessions.open(named)

    @cached_property
    def telemetry(self) -> Telemetry:
        """The tracer, attached to whatever provider is set."""
        from .telemetry.tracer import Telemetry

        made = Telemetry(self.spans)
        made.attach()
        return made

    def _on_rows(self, rows: Sequence[SpanRow]) -> None:
        """On the store's thread: what would hold up a caller is done here."""
        from .telemetry import semconv

        if not self._described:
            self._described = True
            described.kernel(self.spans)
        # What came from a file or another process is not this one's doing.
        self.metrics.record([row for row in rows if semconv.RESOURCE not in row.attributes])

    @cached_property
    def metrics(self) -> Metrics:
        """Counts and times of this process's requests, of its servers and GPUs."""
        from .telemetry.metrics import Metrics

        made = Metrics(self.samples, self.spans.gaps)
        made.attach()
        return made

    def read_metrics(self) -> list[Point]:
        """The metrics now, with what ended a moment ago."""
        self.spans.flush()
        return self.metrics.read()

    def tracing(self) -> Telemetry:
        """The tracer, with a span for the running cell that a span started now is a child of."""
        if self.cells is not None:
            self.cells.ensure(self.telemetry)
        return self.telemetry

    @cached_property
    def sampler(self) -> SamplerProcess:
        """The process that reads memory, devices and servers."""
        from .sampling.process import SamplerProcess

        return SamplerProcess()

    @property
    def samples(self) -> SampleSource:
        """What the sampler has read; empty until it runs."""
        return self.sampler.source

    @property
    def handle(self) -> ServerHandle | None:
        """The default server, if it runs."""
        return self.manager.handle if DEFAULT in self.managers else None

    def handles(self) -> tuple[ServerHandle, ...]:
        """All running servers, the default one first."""
        return tuple(handle for name in self._names() if (handle := self.managers[name].handle) is not None)

    def start(
        self,
        model: str,
        *,
        name: str = DEFAULT,
        engine: str | Path | None = None,
        replace: bool = False,
        keep: bool = False,
        on_progress: Progress = silent,
        on_notice: Callable[[str], None] | None = None,
        timeout_s: float = 120.0,
        **settings: Any,
    ) -> ServerHandle:
        """Serve ``model`` as server ``name`` and sample it; the same settings again return the running server."""
        from .server.runtime import find_runtime
        from .server.settings import ServerSettings

        runtime = find_runtime(engine)
        wanted = ServerSettings(model=model, **settings)
        self.sampler.start()
        manager = self.manager_of(name)
        handle = manager.start(wanted, runtime, on_progress, timeout_s, replace=replace, keep=keep, on_notice=on_notice)
        self._sampled()
        return handle

    def _sampled(self) -> None:
        """Wait for a reading of each device that knows the server, 5 s at most.

        A call has memory and energy only with a reading from before it.
        """
        from .gpu.nvml import Nvml

        nvml = Nvml()
        expected = 1 + len(nvml.gpus)  # and the host
        nvml.close()
        asked_ns, deadline = now_ns(), time.monotonic() + _FIRST_S
        self.sampler.look()
        while self.sampler.alive and time.monotonic() < deadline:
            devices = self.samples.latest().devices
            if len(devices) >= expected and all(d.t_ns[-1] > asked_ns for d in devices if d.device == "host"):
                return
            time.sleep(0.02)

    def attach(
        self, url: str | None = None, api_key: str | None = None, *, name: str = DEFAULT, timeout_s: float = 10.0
    ) -> ServerHandle:
        """Use the server at ``url``, or take over one that was kept when its kernel ended; sample it.

        Raises ServerError when there is none, or several and ``url`` names none of them.
        """
        from .server.state import abandoned

        kept = abandoned()
        mine = [state for state in kept if url is None or state.handle.url == url.rstrip("/")]
        if url is None and len(mine) != 1:
            said = ", ".join(f"{s.handle.model.id if s.handle.model else '?'} at {s.handle.url}" for s in mine)
            raise ServerError(
                f"several servers were kept: {said}" if mine else "no server was kept",
                hint=f"%llama attach {mine[-1].handle.url if mine else 'http://HOST:PORT'}",
            )
        self.sampler.start()
        manager = self.manager_of(name)
        handle = manager.attach(url, api_key, timeout_s) if url is not None and not mine else manager.adopt(mine[0])
        self._sampled()
        return handle

    def stop(self, name: str | None = DEFAULT) -> tuple[ServerHandle, ...]:
        """Stop the server ``name``, with ``None`` all of them; returns those that were running."""
        running = tuple(h for h in self.handles() if name in (None, h.name))
        for one, manager in list(self.managers.items()):
            if name in (None, one):
                self._engines.pop(one, None)
                manager.stop()
        return running

    def engine(self, model: str | None = None, *, server: str | None = None) -> InferenceEngine:
        """An engine on the server of that name, else on one that runs ``model``, else on the default one.

        Raises ServerError when there is no such server, CommandError when none has ``model``.
        """
        from .inference.engine import InferenceEngine

        handle = self._find(model, server)
        made = self._engines.get(handle.name)
        if made is None or made.handle != handle:
            made = self._engines[handle.name] = InferenceEngine(handle, observer=CallObserver(self))
        return made

    def _find(self, model: str | None, server: str | None) -> ServerHandle:
        running = self.handles()
        if server is not None:
            found = [h for h in running if h.name == server]
        else:
            # Without the default one, a single other is what is meant.
            found = [h for h in running if h.name == DEFAULT] or list(running[: len(running) == 1])
            if model is not None:
                found = [h for h in running if _runs(h, model)] or found
        if not found:
            manager = self.managers.get(server or DEFAULT)
            crash = manager.last_crash if manager else None
            others = f"; running: {', '.join(h.name for h in running)}" if running else ""
            which = "the server" if server is None else f"server {server!r}"
            idle = (
                f"no server is running{others}" if server is None and not running else f"{which} is not running{others}"
            )
            name = f" --name {server}" if server else ""
            raise ServerError(f"{which} has crashed: {crash}" if crash else idle, hint=f"%llama start{name}")
        handle = found[0]
        if model is not None and not _runs(handle, model):
            said = ", ".join(repr(h.model.id if h.model else h.url) for h in running)
            raise CommandError(
                f"model {model!r} is not running; {said} {'is' if len(running) == 1 else 'are'}",
                hint=f"%llama start {model} --restart",
            )
        return handle

    def chosen(self, server: str | None = None) -> ServerHandle | None:
        """The running server of that name; without one the default, else the first."""
        running = self.handles()  # the default one first
        return next((h for h in running if server in (None, h.name)), None)

    def snapshot(self, width_px: int = 900, window_s: float = 120.0, *, server: str | None = None) -> dict[str, Any]:
        """The one dict that every picture is drawn from; ``server`` names one of several."""
        from .views.model import snapshot

        return snapshot(self.spans, self.samples, now_ns(), width_px, window_s=window_s, **self._told(server))

    def state(self, most_spans: int) -> dict[str, Any]:
        """What a snapshot says of now, with the newest ``most_spans`` spans, without the points."""
        from .views.model import state

        return state(self.spans, self.samples, now_ns(), most_spans=most_spans, **self._told(None))

    def _told(self, server: str | None) -> dict[str, Any]:
        """What a picture of ``server`` needs to know from the managers."""
        if "sampler" in self.__dict__:
            self.sampler.ensure()
        handle, statuses = self.chosen(server), self.statuses()
        named = handle.name if handle else server
        return {
            "handle": handle,
            "status": _liveliest([one for one in statuses if named in (None, one.name)]),
            "planned": [buffer for one in statuses for buffer in one.predicted],
        }

    def settle(self) -> None:
        """Wait for readings from after the last call's end, 1.2 s at most, and let its spans have them.

        In an older one its slot looks busy, and what the call took is not known yet.
        """
        from .telemetry.join import complete_ns

        last = self.spans.rows(last=1)
        deadline = time.monotonic() + _SETTLE_S
        while last and self.handles() and self.sampler.alive and time.monotonic() < deadline:
            latest = self.samples.latest()
            if latest.servers and min(complete_ns(latest), *(s.t_ns[-1] for s in latest.servers)) > last[0].end_ns:
                self.spans.flush()
                return
            time.sleep(0.05)

    def on_refresh(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` at the end of each cell; returns the function that ends it."""
        self._on_refresh.append(fn)
        return lambda: self._on_refresh.remove(fn) if fn in self._on_refresh else None

    @property
    def request(self) -> Mapping[str, Any]:
        """The front end's message that asked for the running cell; empty where there is none."""
        found = self.shell.get_parent() if hasattr(self.shell, "get_parent") else None
        return found if isinstance(found, Mapping) else {}

    @property
    def cell_id(self) -> str:
        """Id of the notebook's cell that runs; empty where the host does not tell."""
        return str(self.request.get("metadata", {}).get("cellId", ""))

    def hold(self, name: str, thing: Closeable) -> None:
        """Close ``thing`` with the session; what was held under that name is closed now."""
        self.release(name)
        self._held[name] = thing

    def held(self, name: str) -> Any:
        """What is held under ``name``, ``None`` for nothing."""
        return self._held.get(name)

    def release(self, name: str) -> None:
        """Close what is held under ``name``, if anything is."""
        if (thing := self._held.pop(name, None)) is not None:
            thing.close()

    def refresh(self) -> None:
        """A cell has ended: tell the sampler what it holds now, bring the saved pictures up to date."""
        if "sampler" in self.__dict__:
            self.sampler.publish()
        for fn in list(self._on_refresh):
            fn()

    def close(self) -> None:
        """Stop the servers, the sampler and the views; detach from tracing; write what is not yet written."""
        global _current  # noqa: PLW0603 (one session per process)
        from .telemetry import privacy

        self.refresh()
        for name in [name for name in self._held if name != "otlp"]:
            self.release(name)
        for manager in self.managers.values():
            manager.close()
        for name, method in (("telemetry", "detach"), ("sampler", "stop"), ("spans", "close")):
            if name in self.__dict__:
                getattr(self.__dict__[name], method)()
        self.release("otlp")  # sends what ended last, which is joined with samples now
        if "metrics" in self.__dict__:
            self.metrics.detach()
        privacy.capture(None)
        self._on_refresh.clear()
        with _lock:
            if _current is self:
                _current = None


def _liveliest(statuses: Sequence[ServerStatus]) -> ServerStatus | None:
    """One that starts, else the first."""
    starting = (one for one in statuses if one.stage is not None)
    return next(starting, statuses[0] if statuses else None)


def _runs(handle: ServerHandle, model: str) -> bool:
    known = handle.model
    # A name without its form means the form that is running: qwen2.5-7b is qwen2.5-7b:Q4_K_M.
    return known is not None and model in (known.id, known.id.partition(":")[0], known.path, Path(known.path).name)


def current_session() -> Session:
    """The session of this process; made at the first call, and anew in a forked child."""
    global _current  # noqa: PLW0603 (one session per process)
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Session()
        return _current


def existing() -> Session | None:
    """The session of this process if one was made."""
    return _current if _current is not None and _current.pid == os.getpid() else None

"""What one kernel holds: its server, its spans, its samples, its views. No formatting, no decisions of the rooms below.

Everything is made when first needed, so that a session costs nothing until a command is run; :meth:`Session.close`
gives all of it back.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import environment
from .clock import now_ns
from .errors import CommandError, ServerError
from .values import JSON, Call, SampleSource, ServerEvent, ServerHandle

if TYPE_CHECKING:
    from .cells import CellHooks
    from .inference.engine import InferenceEngine
    from .sampling.process import SamplerProcess
    from .server.process import ServerManager
    from .telemetry.store import SpanStore
    from .telemetry.tracer import Telemetry

_current: Session | None = None
_lock = threading.Lock()


class Closeable(Protocol):
    """What a session closes with itself."""

    def close(self) -> None:
        """End threads and comms."""
        ...


class _CellObserver:
    """Sees to it that the running cell has a span before a call's span is started under it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def start(self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]) -> Call:
        telemetry = self._session.telemetry
        if self._session.cells is not None:
            self._session.cells.ensure(telemetry)
        return telemetry.observer.start(operation, model, address, port, request)


class Session:
    """The rooms of one kernel, wired together."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.shell: Any = None
        self.cells: CellHooks | None = None
        self.events: deque[ServerEvent] = deque(maxlen=10_000)
        self._on_refresh: list[Callable[[], None]] = []
        self._dashboard: Closeable | None = None
        self._engine: InferenceEngine | None = None

    @cached_property
    def manager(self) -> ServerManager:
        """Starts and stops the engine; its events are kept in :attr:`events`."""
        from .server.process import ServerManager

        return ServerManager(on_event=self.events.append)

    @cached_property
    def spans(self) -> SpanStore:
        """The ended spans of this kernel, kept in a file of their own."""
        from .telemetry.store import SpanStore

        return SpanStore(environment.data_dir() / "spans" / f"{environment.kernel_key()}.sqlite", samples=self.samples)

    @cached_property
    def telemetry(self) -> Telemetry:
        """The tracer, attached to whatever provider is set."""
        from .telemetry.tracer import Telemetry

        made = Telemetry(self.spans)
        made.attach()
        return made

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
        """The running server, if any."""
        return self.manager.handle

    def start(
        self,
        model: str,
        *,
        engine: str | Path | None = None,
        replace: bool = False,
        on_progress: Callable[[str, float | None], None] | None = None,
        timeout_s: float = 120.0,
        **settings: Any,
    ) -> ServerHandle:
        """Serve ``model`` and sample it; the same settings again return the running server."""
        from .server.runtime import find_runtime
        from .server.settings import ServerSettings

        runtime = find_runtime(engine)
        wanted = ServerSettings(model=model, **settings)
        self.sampler.start()
        return self.manager.start(wanted, runtime, on_progress=on_progress, timeout_s=timeout_s, replace=replace)

    def stop(self) -> ServerHandle | None:
        """Stop the server; returns what was running."""
        handle = self.handle
        self._engine = None
        self.manager.stop()
        return handle

    def engine(self, model: str | None = None) -> InferenceEngine:
        """An engine on the running server; raises ServerError when none runs, CommandError when it has no ``model``."""
        from .inference.engine import InferenceEngine

        handle = self.handle
        if handle is None:
            crash = self.manager.last_crash
            said = f"the server has crashed: {crash}" if crash else "no server is running"
            raise ServerError(said, hint="%llama start")
        known = {handle.model.id, Path(handle.model.path).name, handle.model.path} if handle.model else set()
        if model is not None and model not in known:
            running = handle.model.id if handle.model else handle.url
            raise CommandError(
                f"model {model!r} is not running; {running!r} is", hint=f"%llama start {model} --restart"
            )
        if self._engine is None or self._engine.handle != handle:
            self._engine = InferenceEngine(handle, observer=_CellObserver(self))
        return self._engine

    def snapshot(self, width_px: int = 900, window_s: float = 120.0) -> dict[str, Any]:
        """The one dict that every picture is drawn from."""
        from .views.model import snapshot

        return snapshot(
            self.spans,
            self.samples,
            now_ns(),
            width_px,
            handle=self.handle,
            state=self.manager.state(),
            window_s=window_s,
        )

    def on_refresh(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` at the end of each cell; returns the function that ends it."""
        self._on_refresh.append(fn)
        return lambda: self._on_refresh.remove(fn) if fn in self._on_refresh else None

    def show_dashboard(self, dashboard: Closeable) -> None:
        """Take over a live dashboard; the one before is closed, so that a cell run again leaves no second feed."""
        before, self._dashboard = self._dashboard, dashboard
        if before is not None:
            before.close()

    def refresh(self) -> None:
        """A cell has ended: bring the saved pictures up to date."""
        for fn in list(self._on_refresh):
            fn()

    def close(self) -> None:
        """Stop the server, the sampler and the views; detach from tracing; write what is not yet written."""
        global _current  # noqa: PLW0603 (one session per process)
        self.refresh()
        if self._dashboard is not None:
            self._dashboard.close()
        for name, method in (("manager", "stop"), ("telemetry", "detach"), ("sampler", "stop"), ("spans", "close")):
            if name in self.__dict__:
                getattr(self.__dict__[name], method)()
        self._on_refresh.clear()
        with _lock:
            if _current is self:
                _current = None


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

"""One server from start, or attach, to end: its process, its log, and the proof that it is ours and ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..errors import ServerError
from ..progress import Step
from ..units import size
from ..values import EngineBuffer, ModelRef, Runtime, ServerEvent, ServerHandle
from . import failures, launch, log, probe, proof, remedy
from .child import Child
from .forecast import Forecast
from .settings import ServerSettings

_POLL_S = 0.01
_LOG_S = 0.2


@dataclass(eq=False)
class Running:
    """What is known of one server; an attached one has no ``child``. ``tell`` is told of what its log says."""

    child: Child | None
    key: str | None
    parser: log.Parser
    tell: Callable[[ServerEvent], None]
    model: ModelRef | None = None
    settings: ServerSettings | None = None
    runtime: Runtime | None = None
    tail: log.Tail | None = None
    kept: bool = False
    forecast: Forecast | None = None
    #: How the model was named.
    asked: str = ""
    before: proof.Before | None = None
    handle: ServerHandle | None = None
    failure: failures.Failure | None = None
    wanted_to_end: bool = False
    closed: bool = False
    watcher: threading.Thread | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _ports: list[int] = field(default_factory=list)
    _fraction: float = 0.0

    def read_log(self) -> None:
        """Tell of what was added to the log since the last time."""
        with self.lock:
            if self.tail is None:
                return
            for line in self.tail.read():
                for event in self.parser.feed(line):
                    self.tell(event)

    def addresses(self) -> list[str]:
        """Where the engine listens: by its own sockets; where the system doesn't tell, by what its log says."""
        assert self.child is not None
        assert self.settings is not None
        if not self._ports:
            found = probe.ports(self.child.pid)
            if found is None:
                return list(self.parser.urls)
            self._ports = found
        host = self.settings.host
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for port in self._ports]

    def identify(self, name: str, url: str) -> ServerHandle | None:
        """The handle, once what answers at ``url`` proved to be our engine and ready."""
        child, settings, runtime, tail = self.child, self.settings, self.runtime, self.tail
        assert child is not None
        assert settings is not None
        assert runtime is not None
        try:
            if probe.get(url, "/health")[0] != 200:
                return None
            status, props = probe.get(url, "/props", self.key)
            _, slots = probe.get(url, "/slots", self.key)
        except OSError:
            return None
        alias = props.get("model_alias") if isinstance(props, dict) else None
        if status != 200 or not isinstance(props, dict) or alias != settings.alias:
            raise ServerError(f"another server answers at {url} (HTTP {status}, model {alias!r})", hint="%llama start")
        count, first = props.get("total_slots"), slots[0] if isinstance(slots, list) and slots else None
        context = first.get("n_ctx") if isinstance(first, dict) else None
        self._read_buffers()
        buffers = self._proven(self.parser.buffers)
        more = {"embeddings": settings.embeddings, "rerank": settings.reranking, "kv_unified": settings.kv_unified}
        return ServerHandle(
            name=name,
            url=url,
            api_key=self.key,
            backend="llama.cpp",
            owned=True,
            pid=child.pid,
            pid_start=child.start,
            model=self.model,
            slots=count if isinstance(count, int) else None,
            ctx_per_slot=context if isinstance(context, int) else None,
            capabilities=probe.capabilities(props) | {one for one, there in more.items() if there},
            buffers=buffers,
            settings_hash=settings.hash(),
            log_path=str(tail.path) if tail is not None else None,
            engine=runtime.version,
            predicted=self.forecast.buffers if self.forecast is not None else (),
        )

    def serves(self, asked: ServerSettings, wanted: ServerSettings) -> bool:
        """Whether it runs with ``wanted``, which ``asked`` stands for; a context that was lowered to fit will do."""
        if self.settings is not None and asked.ctx is None and self.forecast is not None and self.forecast.usual:
            wanted = replace(wanted, ctx=self.settings.ctx)
        return self.settings == wanted

    def reached(self) -> Step:
        """The stage of the start, and how far it has come, 0..1; never less than before."""
        stage = "starting the engine"
        if self.parser.stage >= 0:
            _, stage, reached = log.STAGES[self.parser.stage]
            if stage == "loading weights" and self.child is not None and self.model is not None:
                reached += 0.4 * launch.weights_mapped(self.child.pid, self.model.file_bytes)
            self._fraction = max(self._fraction, reached)
        return Step(stage, self._fraction, 1.0)

    def foretell(self) -> None:
        """Warn where the forecast says that memory will be short; what the engine says of that is then no news."""
        if self.forecast is None:
            return
        problem = remedy.warning(self.forecast, self.asked, self.parser.server)
        self.parser.short = problem is not None or self.forecast.usual is not None
        if problem is not None:
            self.warn(problem)

    def warn(self, problem: failures.Failure) -> None:
        """Tell of something that the user would want to know although the start goes on."""
        self.tell(self.parser.warn(problem.cause, problem.remedy))

    def explain(self) -> failures.Failure:
        """Why the engine ended; where memory was too little, how much there is, and what would fit."""
        found = failures.explain(self.child.returncode if self.child is not None else None, self.parser.lines)
        if self.forecast is None:
            return found
        return remedy.explained(found, self.forecast, self.asked, self.parser.server)

    def _proven(self, buffers: tuple[EngineBuffer, ...]) -> tuple[EngineBuffer, ...]:
        """``buffers`` without those of GPUs of which the driver says otherwise; a warning names each."""
        doubts = self.before.doubts(buffers) if self.before is not None else []
        for one in doubts:
            said = f"{size(one.announced_bytes)} by its log, {size(max(one.taken_bytes, 0))} by the driver"
            cause = f"{one.device}: what the engine took is not shown by owner, its figures do not agree ({said})"
            self.warn(failures.Failure(cause, "%llama restart"))
        return tuple(buffer for buffer in buffers if buffer.device not in {one.device for one in doubts})

    def _read_buffers(self) -> None:
        """Read the log of the start to its end; warn when the model is not where it should be."""
        assert self.settings is not None
        # The engine's log is written by a thread of its own, which may be a moment behind.
        deadline = time.monotonic() + _LOG_S
        self.read_log()
        while not self.parser.buffers and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            self.read_log()
        self.parser.loading = False
        warning = failures.cpu_fallback(
            self.settings.gpu_layers, self.parser.buffers, self.parser.lines, self.parser.fit
        )
        if warning is not None:
            self.warn(warning)

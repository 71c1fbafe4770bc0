"""One server from start, or attach, to end: its process, its log, and the proof that it is ours and ready."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from .._files import size
from ..errors import ServerError
from ..gpu.owners import visible
from ..values import ModelRef, Runtime, ServerEvent, ServerHandle
from . import failures, log, probe, proof
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
    #: Used bytes of each GPU just before the start; empty without a driver.
    gpu_used: Mapping[str, int] = field(default_factory=dict)
    cuda_visible: str | None = None
    handle: ServerHandle | None = None
    failure: failures.Failure | None = None
    wanted_to_end: bool = False
    closed: bool = False
    watcher: threading.Thread | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _ports: list[int] = field(default_factory=list)

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
            buffers=self.parser.buffers,
            settings_hash=settings.hash(),
            log_path=str(tail.path) if tail is not None else None,
            engine=runtime.version,
            predicted=self.forecast.buffers if self.forecast is not None else (),
        )

    def proven(self, handle: ServerHandle) -> ServerHandle:
        """The handle without the buffers of GPUs of which the driver says otherwise; a warning names them."""
        if not self.gpu_used:
            return handle
        order = visible(tuple(self.gpu_used), self.cuda_visible)
        doubtful = proof.doubts(handle.buffers, self.gpu_used, proof.used(), order)
        for one in doubtful:
            said = f"{size(one.announced_bytes)} by the engine, {size(one.taken_bytes)} by the driver"
            self.warn(f"{one.device}: its memory is not shown by owner ({said})", "%llama logs -n 60")
        names = {one.device for one in doubtful}
        return replace(handle, buffers=tuple(buffer for buffer in handle.buffers if buffer.device not in names))

    def serves(self, asked: ServerSettings, wanted: ServerSettings) -> bool:
        """Whether it runs with ``wanted``, which ``asked`` stands for; a context that it was narrowed to will do."""
        if (
            self.settings is not None
            and asked.ctx is None
            and self.forecast is not None
            and self.forecast.usual is not None
        ):
            wanted = replace(wanted, ctx=self.settings.ctx)
        return self.settings == wanted

    def explain(self) -> failures.Failure:
        """Why the engine ended; where memory was too little, how much there is, and what would fit."""
        assert self.child is not None
        found = failures.explain(self.child.returncode, self.parser.lines)
        if not found.memory or self.forecast is None or self.handle is not None:
            return found
        if self.child.returncode == -signal.SIGKILL and self.forecast.fits:  # somebody did it, not the system
            return found
        return failures.Failure(f"{found.cause}: {self.forecast.needs()}", self.forecast.remedy(), memory=True)

    def warn(self, cause: str, remedy: str) -> None:
        """Tell of something that the user would want to know although the start goes on."""
        self.tell(self.parser.warn(cause, remedy))

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
            self.warn(warning.cause, warning.remedy)

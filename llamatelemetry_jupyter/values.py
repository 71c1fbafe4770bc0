"""The values that rooms hand to each other.

They exist in one place, free of any third-party import, so that a room can be read, tested and replaced without its
neighbours; and in one module, long as it is, so that every interface between two rooms has the same address. Rules for
all of them: frozen; ``*_ns`` is Unix time in nanoseconds from :mod:`.clock`; ``None`` means *not available* and is
never written as 0; a field's unit is its suffix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from . import escape

if TYPE_CHECKING:
    from pandas import DataFrame

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Attribute: TypeAlias = "str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]"

Owner = Literal["weights", "kv", "compute", "output", "context", "kernel", "other", "unknown", "free"]
#: Owners in the order in which every picture stacks them, bottom first.
OWNERS: tuple[Owner, ...] = ("weights", "kv", "compute", "output", "context", "kernel", "other", "unknown", "free")
ServerState = Literal["starting", "loading", "ready", "generating", "sleeping", "crashed", "stopped", "unreachable"]
TokenKind = Literal["progress", "text", "reasoning", "tool_call", "finish", "usage", "error"]
EventKind = Literal[
    "spawned",
    "load_stage",
    "fit",
    "buffer",
    "warning",
    "ready",
    "request",
    "sleep",
    "wake",
    "stopping",
    "crashed",
    "stopped",
    "attached",
]
FinishReason = Literal["stop", "length", "tool_calls", "interrupted", "error"]


# ---------------------------------------------------------------------------------------------------- memory, samples


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A place where model memory lives: ``GPU-<uuid>``, ``MIG-<uuid>`` or ``host``."""

    device: str
    name: str
    total_bytes: int
    free_bytes: int | None
    compute_capability: str | None = None


@dataclass(frozen=True, slots=True)
class EngineBuffer:
    """One allocation that the engine announced in its log; ``device`` is the engine's own name (``CPU``, ``CUDA0``)."""

    device: str
    owner: Owner
    bytes: int


@dataclass(frozen=True, slots=True)
class OwnerBytes:
    """Bytes of one owner on one device at one moment; ``filled_bytes`` is the part of a KV cache that holds tokens."""

    device: str
    owner: Owner
    bytes: int
    filled_bytes: int | None = None
    pid: int | None = None
    process: str | None = None
    source: Literal["measured", "engine", "estimate"] = "measured"


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One reading of one device. ``util`` and ``mem_util`` are 0..1; ``energy_j`` is cumulative since boot.

    A device that does not answer has a sample without figures, whose ``since_ns`` is when it last answered.
    """

    t_ns: int
    device: str
    used_bytes: int | None
    total_bytes: int | None
    util: float | None = None
    mem_util: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temp_c: float | None = None
    owners: tuple[OwnerBytes, ...] = ()
    since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ActivitySample:
    """What a GPU's driver measured by itself since the sample before: points ``(t_ns, util, power_w)``, by time.

    ``util`` is 0..1; a point has one of both, the other is ``None``. ``t_ns`` is the time of the last point.
    """

    t_ns: int
    device: str
    points: tuple[tuple[int, float | None, float | None], ...]


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One reading of one server. Token totals are cumulative and include the tokens of requests still running."""

    t_ns: int
    server: str
    state: ServerState
    slots_busy: int | None = None
    slots: int | None = None
    queued: int | None = None
    kv_tokens: int | None = None
    kv_capacity: int | None = None
    input_tokens_total: int | None = None
    output_tokens_total: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceSeries:
    """Columns of one device's samples, all of one length, sorted by ``t_ns``."""

    device: str
    t_ns: Sequence[int]
    used_bytes: Sequence[int | None]
    total_bytes: Sequence[int | None]
    util: Sequence[float | None]
    mem_util: Sequence[float | None]
    power_w: Sequence[float | None]
    energy_j: Sequence[float | None]
    temp_c: Sequence[float | None]
    owners: Sequence[tuple[OwnerBytes, ...]]
    since_ns: Sequence[int | None]

    @classmethod
    def of(cls, device: str, samples: Sequence[DeviceSample]) -> DeviceSeries:
        """The columns of rows that are already sorted by time."""
        return cls(device, *([getattr(s, f.name) for s in samples] for f in fields(cls)[1:]))

    def row(self, index: int) -> DeviceSample:
        """The sample at ``index``."""
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self)[1:]}
        return DeviceSample(device=self.device, **columns)

    def by_owner(self) -> dict[Owner, list[int | None]]:
        """Bytes of each owner that occurs, a column each: ``None`` at rows without owners, 0 where it has none."""
        summed = getattr(self.owners, "by_owner", None)  # a ring sums them without making the entries
        if summed is not None:
            found: dict[Owner, list[int | None]] = summed()
            return found
        present = {one.owner for owners in self.owners for one in owners}
        out: dict[Owner, list[int | None]] = {owner: [] for owner in OWNERS if owner in present}
        for owners in self.owners:
            sums: dict[Owner, int] = dict.fromkeys(out, 0)
            for one in owners:
                sums[one.owner] += one.bytes
            for owner, column in out.items():
                column.append(sums[owner] if owners else None)
        return out

    def filled(self) -> list[int | None]:
        """Bytes of KV caches that hold tokens; ``None`` where that is not known."""
        found = getattr(self.owners, "filled", None)
        if found is not None:
            known: list[int | None] = found()
            return known
        out: list[int | None] = []
        for owners in self.owners:
            parts = [one.filled_bytes for one in owners if one.filled_bytes is not None]
            out.append(sum(parts) if parts else None)
        return out


@dataclass(frozen=True, slots=True)
class ActivitySeries:
    """The driver's own readings of one GPU as columns of one length, sorted by ``t_ns``: finer than samples.

    A time has ``util`` (0..1) or ``power_w``, and ``None`` for the other. Each covers the time since the one before.
    """

    device: str
    t_ns: Sequence[int]
    util: Sequence[float | None]
    power_w: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class ServerSeries:
    """Columns of one server's samples, all of one length, sorted by ``t_ns``."""

    server: str
    t_ns: Sequence[int]
    state: Sequence[ServerState]
    slots_busy: Sequence[int | None]
    slots: Sequence[int | None]
    queued: Sequence[int | None]
    kv_tokens: Sequence[int | None]
    kv_capacity: Sequence[int | None]
    input_tokens_total: Sequence[int | None]
    output_tokens_total: Sequence[int | None]

    @classmethod
    def of(cls, server: str, samples: Sequence[ServerSample]) -> ServerSeries:
        """The columns of rows that are already sorted by time."""
        return cls(server, *([getattr(s, f.name) for s in samples] for f in fields(cls)[1:]))

    def row(self, index: int) -> ServerSample:
        """The sample at ``index``."""
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self)[1:]}
        return ServerSample(server=self.server, **columns)


@dataclass(frozen=True, slots=True)
class Samples:
    """Readings in columns, one series per device and per server; ``activity`` only of GPUs, and only unreduced."""

    devices: tuple[DeviceSeries, ...] = ()
    servers: tuple[ServerSeries, ...] = ()
    activity: tuple[ActivitySeries, ...] = ()

    @classmethod
    def of(
        cls,
        devices: Sequence[DeviceSample],
        servers: Sequence[ServerSample],
        activity: Sequence[ActivitySample] = (),
    ) -> Samples:
        """Rows in any order, as columns sorted by time; devices and servers keep the order of first appearance."""
        by_device: dict[str, list[DeviceSample]] = {}
        for device_sample in devices:
            by_device.setdefault(device_sample.device, []).append(device_sample)
        by_server: dict[str, list[ServerSample]] = {}
        for server_sample in servers:
            by_server.setdefault(server_sample.server, []).append(server_sample)
        points: dict[str, list[tuple[int, float | None, float | None]]] = {}
        for one in activity:
            points.setdefault(one.device, []).extend(one.points)
        return cls(
            tuple(DeviceSeries.of(k, sorted(v, key=lambda s: s.t_ns)) for k, v in by_device.items()),
            tuple(ServerSeries.of(k, sorted(v, key=lambda s: s.t_ns)) for k, v in by_server.items()),
            tuple(
                ActivitySeries(k, *(list(column) for column in zip(*sorted(v, key=lambda p: p[0]), strict=True)))
                for k, v in points.items()
                if v
            ),
        )


class SampleSource(Protocol):
    """Where samples are read: the sampler's ring, a recording, or memory."""

    def latest(self) -> Samples:
        """The newest sample of each device and server: series of length 1."""
        ...

    def window(self, t0_ns: int, t1_ns: int, max_points: int | None = None) -> Samples:
        """All samples with ``t0_ns <= t_ns <= t1_ns``; reduced to about ``max_points`` with minima and maxima kept."""
        ...

    def since(self, seq: int) -> tuple[int, Samples, int]:
        """``(next_seq, samples, dropped)`` after ``seq``; start with 0."""
        ...


# ------------------------------------------------------------------------------------------------------ engine, server


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model file that is on this machine."""

    id: str
    path: str
    sha256: str | None = None
    architecture: str | None = None
    quant: str | None = None
    file_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one token asks of memory and processor: bytes of weights and caches read, weights multiplied with.

    ``parameters`` are those of a generated token, ``prompt_parameters`` those of a token of a prompt, for which no
    output is computed.
    """

    weight_bytes: int
    cache_bytes: int
    parameters: int
    prompt_parameters: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """An engine that can be launched: how (``argv`` prefix), what it can do, and which of its tools are there."""

    kind: Literal["binary", "xllamacpp"]
    argv: tuple[str, ...]
    features: frozenset[str] = frozenset()
    tools: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A running server. ``api_key`` stays out of ``repr`` and is written only to a file of mode 0600."""

    name: str
    url: str
    api_key: str | None = field(repr=False)
    backend: Literal["llama.cpp", "router", "vllm", "sglang", "ray", "openai"]
    owned: bool
    pid: int | None
    pid_start: float | None
    model: ModelRef | None
    slots: int | None
    ctx_per_slot: int | None
    capabilities: frozenset[str] = frozenset()
    buffers: tuple[EngineBuffer, ...] = ()
    settings_hash: str | None = None
    log_path: str | None = None
    engine: str | None = None
    #: What the plan said before the start, by the engine's names of devices; empty where it was not made.
    predicted: tuple[EngineBuffer, ...] = ()

    def to_json(self) -> str:
        """The state file's text; holds the API key."""
        return json.dumps(asdict(self) | {"capabilities": sorted(self.capabilities)})

    @classmethod
    def from_json(cls, text: str) -> ServerHandle:
        """The handle that :meth:`to_json` wrote."""
        read = json.loads(text)
        read.setdefault("predicted", ())  # a server that was kept by an earlier version
        data = {f.name: read[f.name] for f in fields(cls)}  # a state file holds more than the handle
        data["model"] = ModelRef(**data["model"]) if data["model"] else None
        for name in ("buffers", "predicted"):
            data[name] = tuple(EngineBuffer(**b) for b in data[name])
        data["capabilities"] = frozenset(data["capabilities"])
        return cls(**data)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server's life as its manager knows it, also while there is no handle.

    ``stage`` and ``fraction`` (0..1, ``None`` where nothing measures it) are there while it starts, ``reason`` and
    ``remedy`` after a crash. ``predicted`` is what the plan of the running start says, ``model`` what it is to serve.
    """

    name: str
    state: ServerState
    model: str | None = None
    stage: str | None = None
    fraction: float | None = None
    reason: str | None = None
    remedy: str | None = None
    predicted: tuple[EngineBuffer, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """Something that happened to a server, as its log or its process told it."""

    t_ns: int
    server: str
    kind: EventKind
    data: Mapping[str, JSON] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------ tokens, answer


class Alternative(NamedTuple):
    """A token that could have stood at a place of an answer; ``logprob`` is the natural logarithm of its probability.

    ``text`` is empty for control tokens, and says little where ``bytes`` are no whole characters.
    """

    text: str
    logprob: float
    token_id: int | None = None
    bytes: bytes | None = None


class TokenEvent(NamedTuple):
    """One event of a stream; a named tuple, because one is made per token: a frozen dataclass costs seven times that.

    ``text``: what came; ``index`` counts text, reasoning and tool calls from 0. ``progress``: the fraction of the
    prompt that was processed, 0..1. ``token_id``, ``logprob`` (natural logarithm) and ``alternatives`` (the likeliest
    tokens there, the likeliest first) come where they were asked for; a character of several tokens has those of the
    last.
    """

    t_ns: int
    kind: TokenKind
    text: str = ""
    index: int | None = None  # type: ignore[assignment]  # hides tuple.index
    token_id: int | None = None
    logprob: float | None = None
    progress: float | None = None
    error: str | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one request went.

    ``ttft_s``: request sent → first non-empty delta, client's clock. ``prefill_s`` and ``decode_s``: the server's own
    ``timings``. ``queue_s = ttft_s − prefill_s``. ``decode_tokens_per_s = (output_tokens − 1) / decode_s``: the first
    token belongs to prefill.
    """

    queue_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    ttft_s: float | None = None
    decode_tokens_per_s: float | None = None
    cached_tokens: int | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, with what it cost; shows itself as Markdown in a notebook.

    ``input_tokens`` includes cached ones. ``trace_id`` and ``span_id`` name the span of the request, ``tokens`` holds
    the stream's events when they were asked for, ``parsed`` the value of an answer that had to follow a JSON schema.
    ``error`` says why when ``finish_reason`` is ``error``, or why there is no ``parsed`` value.
    """

    text: str
    finish_reason: FinishReason
    reasoning: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    timings: Timings = field(default_factory=Timings)
    model: str | None = None
    server: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parsed: JSON = None
    tool_calls: tuple[Mapping[str, JSON], ...] = ()
    tokens: tuple[TokenEvent, ...] = field(default=(), repr=False)
    error: str | None = None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return f"Answer({escape.plain(shown)!r}, {self.footer()})"

    def footer(self) -> str:
        """One line: model, tokens, rate, time to first token, and why it ended when that was not the model's choice."""
        parts = [self.model or "model n/a"]
        if self.output_tokens is not None:
            cached = f" ({self.timings.cached_tokens} cached)" if self.timings.cached_tokens else ""
            parts.append(
                f"{self.input_tokens if self.input_tokens is not None else 'n/a'}{cached} → {self.output_tokens} tokens"
            )
        if self.timings.decode_tokens_per_s is not None:
            parts.append(f"{self.timings.decode_tokens_per_s:.1f} tokens/s")
        if self.timings.ttft_s is not None:
            parts.append(f"first token {self.timings.ttft_s:.2f} s")
        ended = {
            "length": "stopped at the token limit" + (f": {self.error}" if self.error else ""),
            "interrupted": "interrupted",
            "error": f"broke off: {self.error or 'error'}",
        }.get(self.finish_reason)
        return escape.plain(" · ".join([*parts, ended] if ended else parts))

    def _repr_markdown_(self) -> str:
        return f"{escape.markdown(self.text)}\n\n<sub>{escape.html(self.footer())}</sub>"

    def _repr_html_(self) -> str:
        text = escape.html(self.text)
        return f'<div style="white-space:pre-wrap">{text}</div><small>{escape.html(self.footer())}</small>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002 (IPython's signature)
        # Markdown alone beside text: with text/html in the bundle a notebook would prefer the plainer form.
        return {"text/markdown": self._repr_markdown_(), "text/plain": f"{escape.plain(self.text)}\n[{self.footer()}]"}


# -------------------------------------------------------------------------------------------------------------- spans


@dataclass(frozen=True, slots=True)
class SpanRow:
    """An ended span, flat. Ids are lower-case hex; ``parent_id`` is ``None`` on a root; ``status``: unset ok error."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str = "unset"
    error_type: str | None = None
    scope: str | None = None
    cell_id: str | None = None
    server: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    ttft_s: float | None = None
    decode_tokens_per_s: float | None = None
    energy_j: float | None = None
    peak_bytes: int | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """End − start in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class SpanSource(Protocol):
    """Where ended spans are read."""

    def rows(
        self, last: int | None = None, trace_id: str | None = None, since_ns: int | None = None
    ) -> Sequence[SpanRow]:
        """Rows in order of their end; ``last`` keeps the newest N, ``since_ns`` those that ended at or after it."""
        ...

    def frame(self) -> DataFrame:
        """All rows as a DataFrame, one column per field of :class:`SpanRow`."""
        ...

    def subscribe(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call ``fn`` (on any thread) after new rows; returns the function that ends it."""
        ...


@dataclass(frozen=True, slots=True)
class GraphFrames:
    """A graph as two DataFrames.

    ``nodes``: id kind label trace_id start_ns duration_s tokens status x y; ``edges``: source target kind count p50_s
    p95_s. One dtype per column, no nested values.
    """

    nodes: DataFrame
    edges: DataFrame


# ----------------------------------------------------------------------------------------------- observing API calls


class Call(Protocol):
    """One request under observation; exactly one of :meth:`end` and :meth:`fail` is called."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers to send with the request (``traceparent``)."""
        ...

    @property
    def trace_id(self) -> str | None:
        """Hex id of the trace, ``None`` when nothing is recorded."""
        ...

    @property
    def span_id(self) -> str | None:
        """Hex id of the request's span."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The request finished, was interrupted, or was abandoned (``outcome.finish_reason``)."""
        ...

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        """The request failed; ``outcome`` holds what had arrived until then."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request brought, as the client saw it; ``gaps_s`` are the times between tokens."""

    sent_ns: int
    first_token_ns: int | None
    end_ns: int
    finish_reason: FinishReason | None
    response_id: str | None
    response_model: str | None
    input_tokens: int | None
    output_tokens: int | None
    timings: Timings
    gaps_s: Sequence[float] = ()
    raw_timings: Mapping[str, float] = field(default_factory=dict)
    slot: int | None = None
    output: str = ""
    abandoned: bool = False


class Step(Protocol):
    """A piece of work around requests, under observation."""

    def set(self, attributes: Mapping[str, Any], /) -> None:
        """Add attributes."""
        ...

    def error(self, kind: str, message: str = "") -> None:
        """It failed without raising; ``kind`` is a short name that is the same for like failures."""
        ...


class CallObserver(Protocol):
    """Told of every request that a client sends; set by the session, so that the client knows nothing of tracing."""

    def start(self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]) -> Call:
        """A request of a GenAI ``operation`` (``chat``, ``text_completion``, ``embeddings``) is about to be sent."""
        ...

    def step(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Step]:
        """Work of the GenAI operation that ``attributes`` names (``invoke_agent``, ``execute_tool``) is about to begin.

        Requests that are sent inside are its children.
        """
        ...

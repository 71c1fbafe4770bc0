"""What a server is started with, rendered for both engines from one table.

A setting is written once: its field, the flag of ``llama-server`` and the attribute of ``xllamacpp.CommonParams``. So
the two engines can't drift apart; a test compares what each then reports in ``/props``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ..errors import CommandError, EngineError
from ..values import JSON, ModelRef

KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
KV_TYPES: tuple[KVType, ...] = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

#: Context per slot when nobody asks. The engine's own default is all that the model was trained for, and for a 128k
#: model that is more KV cache than a free GPU has memory.
DEFAULT_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server; ``None`` leaves a choice to the engine.

    Raises CommandError for a value that no engine takes.
    """

    model: str = "smollm2-135m"
    #: Name under which clients ask for the model; the model's id when ``None``.
    alias: str | None = None
    #: Loopback only: a notebook's server is nobody else's.
    host: str = "127.0.0.1"
    #: 0: the engine takes a free one. A fixed port is a thing to collide on, and to be guessed by others on the host.
    port: int = 0
    #: Tokens of context **per slot** (llama.cpp's own -c is for all slots together), because that is what a request
    #: gets. ``None``: what the model was trained for, at most 8,192.
    ctx: int | None = None
    #: One: a notebook asks one thing at a time, and each further slot costs the same KV cache again, also idle.
    slots: int = 1
    threads: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    #: ``None``: as many as fit (llama.cpp measures the free memory before it loads).
    gpu_layers: int | None = None
    flash_attention: Literal["on", "off", "auto"] = "auto"
    #: For keys and values alike: CUDA builds have fast kernels only for equal types.
    kv_type: KVType = "f16"
    seed: int | None = None
    #: llama.cpp's 8192 MiB of host memory for old prompts is two thirds of a Colab machine.
    cache_ram_mib: int = 1024
    #: llama.cpp measures and shrinks before loading, so that a model too large for the GPU is split instead of failing.
    fit: bool = True
    #: A first empty run: the first real token is then not the one that pages the weights in.
    warmup: bool = True
    embeddings: bool = False
    #: Below it the log holds no line about buffers, and memory could not be told apart by owner.
    verbosity: int = 4

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not low <= value <= high):
                flag = f"--{name.replace('_', '-')}"
                raise CommandError(
                    f"{flag} must be from {low} to {high}, not {value!r}", hint=f"%llama start {flag} {low or 1}"
                )
        if not self.model:
            raise CommandError("no model was named", hint="%llama start smollm2-135m")
        if self.flash_attention not in ("on", "off", "auto"):
            raise CommandError(f"flash attention {self.flash_attention!r}: on, off or auto", hint="%llama start --help")
        if self.kv_type not in KV_TYPES:
            raise CommandError(
                f"KV cache type {self.kv_type!r}: one of {', '.join(KV_TYPES)}", hint="%llama start --help"
            )
        if self.kv_type.startswith(("q", "iq")) and self.flash_attention == "off":
            raise CommandError(
                f"a {self.kv_type} KV cache needs flash attention", hint="leave flash_attention at 'auto'"
            )
        if self.host not in ("127.0.0.1", "localhost", "::1"):
            raise CommandError(f"the server listens on this machine only, not on {self.host}", hint="leave --host out")

    @property
    def context(self) -> int:
        """Tokens of context that the engine is asked for: all slots together."""
        return (self.ctx or DEFAULT_CONTEXT) * self.slots

    def resolved(self, model: ModelRef, context_length: int | None) -> ServerSettings:
        """These settings on a file: its path, and a default context that is not beyond the model's."""
        ctx = self.ctx or min(DEFAULT_CONTEXT, context_length or DEFAULT_CONTEXT)
        return replace(self, model=model.path, alias=self.alias or model.id, ctx=ctx)

    def hash(self) -> str:
        """16 hex digits that are equal for equal settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_argv(self, features: frozenset[str]) -> list[str]:
        """Arguments for a ``llama-server`` whose ``--help`` lists ``features``.

        Raises EngineError when a setting that was asked for has no flag in this build.
        """
        argv: list[str] = []
        default = ServerSettings()
        for row in _TABLE:
            value = row.value(self)
            if value is None or not row.flags:
                continue
            flag = next((f for f in row.flags if f in features), row.flags[0] if row.needed else None)
            if flag is not None:
                argv += [flag] if value is True else [flag, str(value)]
            elif value != row.value(default):
                raise EngineError(
                    f"this llama-server has no {row.flags[0]}: it is too old", hint="%llama start --engine xllamacpp"
                )
        return argv

    def to_params(self) -> dict[str, JSON]:
        """Attributes of ``xllamacpp.CommonParams`` by dotted name."""
        params: dict[str, JSON] = {}
        for row in _TABLE:
            value = row.value(self)
            if value is not None:
                params |= {name: row.param(value) for name in row.attributes}
        return params


_RANGES = (
    ("port", 0, 65535),
    ("ctx", 256, 1 << 24),
    ("slots", 1, 64),
    ("threads", 1, 1024),
    ("batch", 1, 1 << 16),
    ("ubatch", 1, 1 << 16),
    ("gpu_layers", 0, 10_000),
    ("seed", 0, (1 << 32) - 2),
    ("cache_ram_mib", 0, 1 << 20),
    ("verbosity", 4, 5),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One setting: how its value is found, and what it is called in both engines.

    ``flags`` are alternatives (llama.cpp renames), the newest first; a value of ``True`` is a flag without argument.
    ``needed`` ones are rendered whatever ``--help`` lists, the others only where it lists them.
    """

    value: Callable[[ServerSettings], JSON]
    flags: tuple[str, ...]
    attributes: tuple[str, ...]
    needed: bool = True
    param: Callable[[JSON], JSON] = lambda value: value


_FLASH: dict[JSON, JSON] = {
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
}

_TABLE: tuple[_Row, ...] = (
    _Row(lambda s: s.model, ("--model",), ("model.path",)),
    _Row(lambda s: s.alias, ("--alias",), ("model_alias",), param=lambda v: [v]),
    _Row(lambda s: s.host, ("--host",), ("hostnames",), param=lambda v: [v]),
    _Row(lambda s: s.port, ("--port",), ("port",)),
    _Row(lambda s: s.context, ("--ctx-size",), ("n_ctx",)),
    _Row(lambda s: s.slots, ("--parallel",), ("n_parallel",)),
    # One KV cache per slot: in a shared one a long conversation in one slot fails the requests of all others.
    _Row(lambda _: True, ("--no-kv-unified",), ("kv_unified",), needed=False, param=lambda _: False),
    _Row(lambda s: s.threads, ("--threads",), ("cpuparams.n_threads",)),
    _Row(lambda s: s.threads, ("--threads-batch",), ("cpuparams_batch.n_threads",)),
    _Row(lambda s: s.batch, ("--batch-size",), ("n_batch",)),
    _Row(lambda s: s.ubatch, ("--ubatch-size",), ("n_ubatch",)),
    _Row(lambda s: s.gpu_layers, ("--n-gpu-layers", "--gpu-layers"), ("n_gpu_layers",)),
    _Row(lambda s: s.flash_attention, ("--flash-attn",), ("flash_attn_type",), needed=False, param=_FLASH.__getitem__),
    _Row(lambda s: s.kv_type, ("--cache-type-k",), ("cache_type_k",), False, lambda v: f"GGML_TYPE_{v}".upper()),
    _Row(lambda s: s.kv_type, ("--cache-type-v",), ("cache_type_v",), False, lambda v: f"GGML_TYPE_{v}".upper()),
    _Row(lambda s: s.seed, ("--seed",), ("sampling.seed",)),
    _Row(lambda s: s.cache_ram_mib, ("--cache-ram",), ("cache_ram_mib",), needed=False),
    _Row(lambda s: "on" if s.fit else "off", ("--fit",), ("fit_params",), False, lambda v: v == "on"),
    _Row(lambda s: None if s.warmup else True, ("--no-warmup",), ("warmup",), param=lambda _: False),
    _Row(lambda s: s.embeddings or None, ("--embeddings", "--embedding"), ("embedding",)),
    _Row(lambda s: s.verbosity, ("--verbosity", "--log-verbosity", "-lv"), ("verbosity",)),
    # What the sampler reads.
    _Row(lambda _: True, ("--metrics",), ("endpoint_metrics",)),
    _Row(lambda _: True, ("--slots",), ("endpoint_slots",), needed=False),
    # JSON lines can't be forged by model text; the wheel has the attribute but does not act on it (2026.10).
    _Row(lambda _: True, ("--log-jsonl",), (), needed=False),
    _Row(lambda _: "off", ("--log-colors",), ("use_color",), needed=False, param=lambda _: False),
    # We fetch models ourselves, checked; the engine itself must not go to the network.
    _Row(lambda _: True, ("--offline",), ("offline",), needed=False),
    # Nobody can use the web page without the key, which is random.
    _Row(lambda _: True, ("--no-ui", "--no-webui"), ("ui",), needed=False, param=lambda _: False),
)

"""What a server is started with, in one table for both kinds of engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import CommandError
from ..values import JSON


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server; ``None`` leaves the choice to the engine (or, for ``ctx``, to the model's file).

    Raises :class:`CommandError` for a value that no engine would take.
    """

    model: str = "smollm2-135m"
    #: Name under which clients ask for the model; the model's id when ``None``.
    alias: str | None = None
    #: Loopback only: a notebook's server is nobody else's.
    host: str = "127.0.0.1"
    #: 0: the engine takes a free port, so that none can be taken between choosing and binding.
    port: int = 0
    #: Tokens **per slot**; at most 8,192 when ``None``, so that the KV cache stays small on a laptop.
    ctx: int | None = None
    #: One: a notebook asks one thing at a time, and each further slot costs the same KV cache again.
    slots: int = 1
    threads: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    #: All layers that fit when ``None``.
    gpu_layers: int | None = None
    #: llama.cpp's own default of 8 GiB host memory for old prompts is more than a free notebook machine can spare.
    cache_ram_mib: int = 1024
    #: Buffer sizes, the memory's owners, are only logged at level 4.
    verbosity: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535), ("ctx", 256, 1 << 24), ("slots", 1, 64), ("threads", 1, 1024), ("batch", 1, 1 << 16),
            ("ubatch", 1, 1 << 16), ("gpu_layers", 0, 10_000), ("cache_ram_mib", 0, 1 << 20), ("verbosity", 0, 5),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                flag = "--" + name.replace("_", "-")
                raise CommandError(
                    f"{flag} must be from {low} to {high}, not {value}", hint=f"%llama start {flag} {low or 1}"
                )
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            raise CommandError(f"the server listens on this machine only, not on {self.host}", hint="leave --host out")

    def to_argv(self, features: frozenset[str]) -> list[str]:
        """Options for a ``llama-server`` binary that lists ``features`` in its ``--help``."""
        argv: list[str] = []
        for option, value in self._table():
            if option.flag is None or value is None or (option.if_listed and option.flag not in features):
                continue
            argv += [option.flag] if value is True else [option.flag, str(value)]
        return argv

    def to_params(self) -> dict[str, JSON]:
        """Attributes of ``xllamacpp.CommonParams``, dotted where they are nested."""
        return {option.attribute: value for option, value in self._table() if option.attribute and value is not None}

    def hash(self) -> str:
        """A short digest that is equal for equal settings."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def _table(self) -> Iterator[tuple[_Option, JSON]]:
        # The engine counts context over all slots; ours is per slot, because that is what a request gets.
        context = self.ctx * self.slots if self.ctx else None
        yield _Option("--model", "model.path"), self.model
        yield _Option("--alias", "model_alias"), self.alias
        yield _Option("--host", "hostnames"), self.host
        yield _Option("--port", "port"), self.port
        yield _Option("--ctx-size", "n_ctx"), context
        yield _Option("--parallel", "n_parallel"), self.slots
        yield _Option("--threads", "cpuparams.n_threads"), self.threads
        yield _Option("--batch-size", "n_batch"), self.batch
        yield _Option("--ubatch-size", "n_ubatch"), self.ubatch
        yield _Option("--n-gpu-layers", "n_gpu_layers"), self.gpu_layers
        yield _Option("--cache-ram", "cache_ram_mib", if_listed=True), self.cache_ram_mib
        yield _Option("--metrics", "endpoint_metrics"), True
        yield _Option("--slots", "endpoint_slots", if_listed=True), True
        yield _Option("--no-kv-unified", None, if_listed=True), True
        yield _Option("--offline", "offline", if_listed=True), True
        yield _Option("--log-jsonl", None, if_listed=True), True
        yield _Option("--verbosity", "verbosity", if_listed=True), self.verbosity
        yield _Option(None, "ui"), False


@dataclass(frozen=True, slots=True)
class _Option:
    """One row: the binary's flag, xllamacpp's attribute, and whether older binaries may lack the flag."""

    flag: str | None
    attribute: str | None
    if_listed: bool = False

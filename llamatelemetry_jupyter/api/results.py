"""What a server says about itself, typed; ``raw`` keeps the rest of each answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..values import JSON


@dataclass(frozen=True, slots=True)
class Props:
    """``/props``: the loaded model and how the server was set up. ``ctx_per_slot`` in tokens."""

    model_path: str | None
    model_alias: str | None
    slots: int | None
    ctx_per_slot: int | None
    chat_template: str | None
    modalities: frozenset[str]
    sleeping: bool
    metrics: bool
    build: str | None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Props:
        """From the server's object; what it lacks is ``None``."""
        defaults = data.get("default_generation_settings") or {}
        return cls(
            model_path=data.get("model_path"),
            model_alias=data.get("model_alias"),
            slots=data.get("total_slots"),
            ctx_per_slot=defaults.get("n_ctx"),
            chat_template=data.get("chat_template"),
            modalities=frozenset(name for name, there in (data.get("modalities") or {}).items() if there),
            sleeping=bool(data.get("is_sleeping")),
            metrics=bool(data.get("endpoint_metrics")),
            build=data.get("build_info"),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of ``/slots``. ``tokens`` is what its KV cache holds, also when idle; ``None`` before first use."""

    id: int
    ctx: int
    busy: bool
    task: int | None
    tokens: int | None
    prompt_processed: int | None
    prompt_cached: int | None
    decoded: int | None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Slot:
        """From one object of the server's list."""
        following = data.get("next_token") or [{}]
        # A list since parallel decoding, one object before.
        current = following[0] if isinstance(following, list) else following
        return cls(
            id=int(data["id"]),
            ctx=int(data["n_ctx"]),
            busy=bool(data.get("is_processing")),
            task=data.get("id_task"),
            tokens=data.get("n_prompt_tokens"),
            prompt_processed=data.get("n_prompt_tokens_processed"),
            prompt_cached=data.get("n_prompt_tokens_cache"),
            decoded=current.get("n_decoded"),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One entry of ``/v1/models``; sizes in bytes, contexts in tokens."""

    id: str
    aliases: tuple[str, ...]
    ctx: int | None
    ctx_train: int | None
    parameters: int | None
    size_bytes: int | None
    embedding_size: int | None
    vocabulary: int | None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ModelInfo:
        """From one object of the server's list."""
        meta = data.get("meta") or {}
        return cls(
            id=str(data["id"]),
            aliases=tuple(data.get("aliases") or ()),
            ctx=meta.get("n_ctx"),
            ctx_train=meta.get("n_ctx_train"),
            parameters=meta.get("n_params"),
            size_bytes=meta.get("size"),
            embedding_size=meta.get("n_embd"),
            vocabulary=meta.get("n_vocab"),
            raw=data,
        )


_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(\{[^}]*\})?\s+(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Metrics:
    """``/metrics``: every sample by name, without the ``llamacpp:`` prefix; labels stay part of the name.

    Counters only grow until the server restarts. The two ``*_tokens_seconds`` gauges are reset by every scrape, so two
    readers spoil each other's: rates belong to the counters. ``None``: the server does not have it.
    """

    values: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Metrics:
        """From Prometheus' text format; lines that are not samples are passed over."""
        values: dict[str, float] = {}
        for line in text.splitlines():
            if (match := _SAMPLE.match(line)) is None:
                continue
            try:
                values[match[1].removeprefix("llamacpp:") + (match[2] or "")] = float(match[3])
            except ValueError:
                continue
        return cls(values)

    @property
    def input_tokens(self) -> int | None:
        """Prompt tokens since the start, cached ones included."""
        computed = self._count("prompt_tokens_total")
        return None if computed is None else computed + (self._count("prompt_tokens_cached_total") or 0)

    @property
    def output_tokens(self) -> int | None:
        """Generated tokens of requests that have ended."""
        return self._count("tokens_predicted_total")

    @property
    def processing(self) -> int | None:
        """Requests that have a slot."""
        return self._count("requests_processing")

    @property
    def queued(self) -> int | None:
        """Requests that wait for a slot."""
        return self._count("requests_deferred")

    def _count(self, name: str) -> int | None:
        value = self.values.get(name)
        return None if value is None else int(value)

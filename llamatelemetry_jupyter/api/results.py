"""What a server says about itself, typed; ``raw`` keeps the rest of each answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """One entry of ``/v1/models``; sizes in bytes, contexts in tokens; a router adds a ``status``"""

    id: str
    aliases: tuple[str, ...]
    ctx: int | None
    ctx_train: int | None
    parameters: int | None
    size_bytes: int | None
    embedding_size: int | None
    vocabulary: int | None
    status: str | None = None
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
            status=(data.get("status") or {}).get("value"),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A token and the bytes that it stands for; ``text`` is ``None`` where they are no text of their own."""

    id: int
    bytes: bytes
    text: str | None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Piece:
        """From the server's object, whose ``piece`` is text, or a list of bytes where these are not UTF-8."""
        piece = data["piece"]
        if isinstance(piece, str):
            return cls(int(data["id"]), piece.encode("utf-8", "surrogatepass"), piece)
        return cls(int(data["id"]), bytes(piece), None)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the texts; ``len()``, iteration and ``[i]`` are theirs."""

    vectors: tuple[tuple[float, ...], ...]
    model: str | None = None
    input_tokens: int | None = None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any], texts: int) -> Embeddings:
        """From the server's object; raises ``ValueError`` when it does not have a vector for each of ``texts``."""
        rows = sorted(data["data"], key=lambda row: int(row["index"]))
        if [row["index"] for row in rows] != list(range(texts)):
            raise ValueError("not one vector per text")
        used = (data.get("usage") or {}).get("prompt_tokens")
        return cls(tuple(tuple(map(float, row["embedding"])) for row in rows), data.get("model"), used, data)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return self.vectors[index]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document with its place in the list that was given and its relevance: the higher, the closer."""

    index: int
    relevance: float
    document: str

    @classmethod
    def all(cls, data: Mapping[str, Any], documents: Sequence[str]) -> tuple[Ranked, ...]:
        """From the server's object, best first."""
        rows = [(int(row["index"]), float(row["relevance_score"])) for row in data["results"]]
        if any(not 0 <= index < len(documents) for index, _ in rows):
            raise IndexError("a document that was not given")
        found = [cls(index, relevance, documents[index]) for index, relevance in rows]
        return tuple(sorted(found, key=lambda one: -one.relevance))


@dataclass(frozen=True, slots=True)
class SlotFile:
    """What happened to a slot's cache: tokens that were saved, restored or erased, bytes of the file, seconds."""

    slot: int
    tokens: int
    bytes: int | None
    duration_s: float | None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> SlotFile:
        """From the answer to any of the three actions."""
        tokens = next(data[name] for name in ("n_saved", "n_restored", "n_erased") if name in data)
        size = data.get("n_written", data.get("n_read"))
        spent = [value for name, value in (data.get("timings") or {}).items() if name.endswith("_ms")]
        return cls(int(data["id_slot"]), int(tokens), size, spent[0] / 1000 if spent else None, data)


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter of the server; ``scale`` 1 acts as trained, 0 not at all."""

    id: int
    path: str
    scale: float
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LoraAdapter:
        """From one object of the server's list."""
        return cls(int(data["id"]), str(data.get("path", "")), float(data["scale"]), data)


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far the answer of a conversation is; times in Unix seconds, ``None``: not yet."""

    conversation: str
    done: bool
    bytes: int
    started_s: float
    ended_s: float | None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> StreamState:
        """From one object of the server's list."""
        return cls(
            str(data["conversation_id"]),
            bool(data["is_done"]),
            int(data["total_bytes"]),
            float(data["started_at"]),
            float(data["completed_at"]) or None,
        )


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something that happened to a router's model; ``progress`` of a load 0..1, ``status`` its new one."""

    model: str
    event: str
    status: str | None
    progress: float | None
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ModelEvent:
        """From one event of ``/models/sse``."""
        inner = data.get("data") or {}
        progress = (inner.get("progress") or {}).get("value")
        return cls(
            str(data["model"]),
            str(data.get("event", "")),
            inner.get("status"),
            None if progress is None else float(progress),
            data,
        )

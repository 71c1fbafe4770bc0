"""Every request with a whole answer, once: its parameters, what is sent, and the result that is made of the answer.

Those with a streamed answer are in :mod:`.generate`.

:class:`.client.LlamaCppClient` and :class:`.async_client.AsyncLlamaCppClient` have each of these functions as a method
of the same name and parameters. The addresses are those of llama.cpp's server (b11549); others have some of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode
from uuid import uuid4

from ..errors import CommandError
from ..values import JSON
from . import parts
from .generate import Message, conversation_name, plain_messages
from .metrics import Metrics
from .request import Request
from .results import (
    Embeddings,
    LoraAdapter,
    ModelEvent,
    ModelInfo,
    Piece,
    Props,
    Ranked,
    Slot,
    SlotFile,
    StreamState,
)

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


def conversations(names: Sequence[str]) -> Request[tuple[StreamState, ...]]:
    """How far the answers of conversations are; unknown ones are left out."""
    body: dict[str, JSON] = {"conversation_ids": [conversation_name(name) for name in names]}
    return Request("POST", "/v1/streams/lookup", _each(StreamState.of), body)


def forget(conversation: str) -> Request[None]:
    """End and delete the answer of a conversation."""
    return Request("DELETE", f"/v1/stream?{urlencode({'conv_id': conversation_name(conversation)})}", _nothing)


def end_reasoning(response_id: str) -> Request[bool]:
    """Let a model that is thinking begin its answer; false when nothing runs under this id.

    ``response_id`` is ``TokenStream.id`` of a request that was sent with ``reasoning_control=True``.
    """
    body: dict[str, JSON] = {"id": response_id, "action": "reasoning_end"}
    return Request("POST", "/v1/chat/completions/control", lambda data: bool(data["success"]), body)


# ------------------------------------------------------------------------------- embeddings, ranking, sound, decisions


def embed(
    texts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    model: str | None = None,
    dimensions: int | None = None,
    **options: JSON,
) -> Request[Embeddings]:
    """One vector per text (or list of token ids), in order, with what they cost.

    The server must have been started for embeddings; with one slot, or a unified KV cache: in slots of their own
    llama.cpp (b11549) pools texts of different lengths wrongly when they run together, by up to 0.2 per number.
    ``dimensions`` shortens the vectors where the model allows it.
    """
    given: list[JSON] = [texts] if isinstance(texts, str) else [t if isinstance(t, str) else list(t) for t in texts]
    body: dict[str, JSON] = {"input": given, "encoding_format": "float"}
    body |= _given(dimensions=dimensions, model=model, **options)
    known = () if given else (Embeddings(()),)
    decode = lambda data: Embeddings.of(data, len(given))  # noqa: E731 (it holds the number of texts)
    return Request("POST", "/v1/embeddings", decode, body, operation="embeddings", slow=True, routed=True, known=known)


def embeddings(texts: str | Sequence[str], *, model: str | None = None) -> Request[list[list[float]]]:
    """One vector per text, in order; the server must have been started for embeddings."""
    asked = embed(texts, model=model)
    return Request(
        "POST",
        asked.path,
        lambda data: [list(vector) for vector in asked.decode(data).vectors],
        asked.body,
        operation="embeddings",
        slow=True,
        routed=True,
        known=([],) if asked.known else (),
    )


def embed_tokens(text: str, *, model: str | None = None) -> Request[tuple[tuple[float, ...], ...]]:
    """llama.cpp's own embeddings of a text: one vector per token without pooling, else a single one; not normalised."""
    body: dict[str, JSON] = {"content": text, "embd_normalize": -1, **_given(model=model)}
    decode = lambda data: tuple(tuple(map(float, row)) for row in data[0]["embedding"])  # noqa: E731
    return Request("POST", "/embeddings", decode, body, operation="embeddings", slow=True, routed=True)


def rerank(
    query: str, documents: Sequence[str], *, top_n: int | None = None, model: str | None = None
) -> Request[tuple[Ranked, ...]]:
    """``documents`` by their relevance to ``query``, best first; the server must have been started for reranking."""
    body: dict[str, JSON] = {"query": query, "documents": list(documents), **_given(top_n=top_n, model=model)}
    decode = lambda data: Ranked.all(data, documents)  # noqa: E731 (it holds the documents)
    known: tuple[tuple[Ranked, ...], ...] = () if documents else ((),)
    return Request("POST", "/v1/rerank", decode, body, operation="rerank", slow=True, routed=True, known=known)


def transcribe(
    sound: str | Path | bytes, *, prompt: str | None = None, language: str | None = None, model: str | None = None
) -> Request[str]:
    """The words in a sound (a file or its bytes: WAV, MP3, FLAC); the model must take sound."""
    content, kind = parts.sound(sound)
    fields = {"response_format": "json", **_given(prompt=prompt, language=language, model=model)}
    upload = _multipart({name: str(value) for name, value in fields.items()}, f"sound.{kind}", content)
    return Request(
        "POST",
        "/v1/audio/transcriptions",
        lambda data: str(data["text"]),
        _given(model=model),
        upload=upload,
        operation="generate_content",
        repeatable=False,
        slow=True,
    )


def decide(**fields: JSON) -> Request[JSON]:
    """What a decision model (``/v1/systemone``) says to ``fields``, as the server sends it."""
    return Request("POST", "/v1/systemone", _as_it_is, fields, operation="generate_content", slow=True, routed=True)


# ---------------------------------------------------------------------------------------------------- tokens, templates


def tokenize(text: str, *, add_special: bool = False, parse_special: bool = True) -> Request[list[int]]:
    """Token ids of ``text``."""
    body: dict[str, JSON] = {"content": text, "add_special": add_special, "parse_special": parse_special}
    return Request("POST", "/tokenize", lambda data: [int(one) for one in data["tokens"]], body, routed=True)


def pieces(text: str, *, add_special: bool = False, parse_special: bool = True) -> Request[tuple[Piece, ...]]:
    """The tokens of ``text`` with the bytes that each stands for."""
    body: dict[str, JSON] = {"content": text, "add_special": add_special, "parse_special": parse_special}
    body["with_pieces"] = True
    return Request("POST", "/tokenize", lambda data: _each(Piece.of)(data["tokens"]), body, routed=True)


def detokenize(tokens: Sequence[int]) -> Request[str]:
    """The text of token ids."""
    body: dict[str, JSON] = {"tokens": list(tokens)}
    return Request("POST", "/detokenize", lambda data: str(data["content"]), body, routed=True)


def apply_template(messages: Sequence[Message], **options: JSON) -> Request[str]:
    """The prompt that the model's chat template makes of ``messages``."""
    body: dict[str, JSON] = {**options, "messages": plain_messages(messages)}
    return Request("POST", "/apply-template", lambda data: str(data["prompt"]), body, routed=True)


def count_tokens(messages: Sequence[Message], **options: JSON) -> Request[int]:
    """How many input tokens ``messages`` will cost, chat template included."""
    body: dict[str, JSON] = {**options, "messages": plain_messages(messages)}
    return Request("POST", "/v1/chat/completions/input_tokens", _input_tokens, body, routed=True)


def count_response_tokens(input: str | Sequence[Message], **options: JSON) -> Request[int]:  # noqa: A002
    """How many input tokens ``respond`` will cost."""
    body: dict[str, JSON] = {**options, "input": input if isinstance(input, str) else plain_messages(input)}
    return Request("POST", "/v1/responses/input_tokens", _input_tokens, body, routed=True)


def count_message_tokens(messages: Sequence[Message], **options: JSON) -> Request[int]:
    """How many input tokens ``message`` will cost."""
    body: dict[str, JSON] = {**options, "messages": plain_messages(messages)}
    return Request("POST", "/v1/messages/count_tokens", _input_tokens, body, routed=True)


# ----------------------------------------------------------------------------------------------------------- the server


def health() -> Request[bool]:
    """Whether the server is ready: ``False`` while it loads."""
    return Request("GET", "/health", lambda _: True, while_loading=(False,), plain=True)


def props(*, model: str | None = None) -> Request[Props]:
    """The loaded model and the server's set-up; ``model``: of one of a router's."""
    return Request("GET", "/props" + _of_model(model), Props.of)


def set_props(**values: JSON) -> Request[bool]:
    """Change global properties; the server must have been started with ``--props``."""
    return Request("POST", "/props", lambda data: bool(data["success"]), values)


def slots(*, model: str | None = None) -> Request[tuple[Slot, ...]]:
    """The state of every slot. Wakes a sleeping server: look at ``props().sleeping`` first."""
    return Request("GET", "/slots" + _of_model(model), _each(Slot.of))


def metrics(*, model: str | None = None) -> Request[Metrics]:
    """Counters and gauges of the server, or of one of a router's models (an unloaded one is not loaded for it)."""
    return Request("GET", "/metrics" + _of_model(model), Metrics.parse, plain=True)


def models() -> Request[tuple[ModelInfo, ...]]:
    """The models that the server offers; a router's have a ``status``."""
    return Request("GET", "/v1/models", lambda data: _each(ModelInfo.of)(data["data"]))


def slot_save(slot: int, filename: str) -> Request[SlotFile]:
    """Save what a slot's cache holds to a file in the server's ``--slot-save-path``."""
    return _slot_action(slot, "save", filename)


def slot_restore(slot: int, filename: str) -> Request[SlotFile]:
    """Fill a slot's cache from a file that :func:`slot_save` wrote with the same model."""
    return _slot_action(slot, "restore", filename)


def slot_erase(slot: int) -> Request[SlotFile]:
    """Empty a slot's cache."""
    return _slot_action(slot, "erase", None)


def lora_adapters() -> Request[tuple[LoraAdapter, ...]]:
    """The LoRA adapters that the server was started with, and how strongly each acts."""
    return Request("GET", "/lora-adapters", _each(LoraAdapter.of))


def set_lora(scales: Mapping[int, float]) -> Request[bool]:
    """Set how strongly adapters act, by their id: 1 as trained, 0 not at all; adapters left out are switched off.

    Acts on requests that begin afterwards. Raises :class:`CommandError` for an id that the server does not have.
    """
    for scale in scales.values():
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise CommandError(f"a scale is a number, not {scale!r}", hint="client.set_lora({0: 1.0})")

    def check(known: tuple[LoraAdapter, ...]) -> None:
        if unknown := set(scales) - {adapter.id for adapter in known}:
            there = ", ".join(str(adapter.id) for adapter in known) or "none"
            raise CommandError(f"no LoRA adapter {min(unknown)}; there are: {there}", hint="client.lora_adapters()")

    body: list[JSON] = [{"id": number, "scale": scale} for number, scale in scales.items()]
    return Request("POST", "/lora-adapters", lambda data: bool(data["success"]), body, first=(lora_adapters(), check))


# ----------------------------------------------------------------------------------------------------------- the router


def load_model(model: str) -> Request[bool]:
    """Load one of a router's models; it answers at once, ``model_events`` tells how far it is."""
    return Request("POST", "/models/load", _success, {"model": model}, repeatable=False)


def unload_model(model: str) -> Request[bool]:
    """Unload one of a router's models."""
    return Request("POST", "/models/unload", _success, {"model": model}, repeatable=False)


def download_model(model: str) -> Request[bool]:
    """Let a router fetch ``hf-user/repo:quant``; it answers at once, also for what will fail: see ``model_events``."""
    return Request("POST", "/models", _success, {"model": model}, repeatable=False)


def delete_model(model: str) -> Request[bool]:
    """Delete a model from a router's cache."""
    return Request("DELETE", f"/models?{urlencode({'model': model})}", _success, repeatable=False)


#: Where a router tells what happens to its models, see :func:`model_event`.
MODEL_EVENTS = "/models/sse"


def model_event(payload: bytes) -> ModelEvent:
    """An event of :data:`MODEL_EVENTS`; raises :class:`RequestError` for what is none."""
    return Request("GET", MODEL_EVENTS, ModelEvent.of).result(200, payload)[0]


def request(method: str, path: str, body: Mapping[str, JSON] | None = None) -> Request[JSON]:
    """The JSON that any other route of the server answers with: ``client.request("GET", "/tools")``."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise CommandError(
            f"a route begins with a slash and has no spaces: {path!r}", hint="client.request('GET', '/props')"
        )
    if method.upper() not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise CommandError(f"no method of HTTP: {method!r}", hint="client.request('GET', '/props')")
    return Request(method.upper(), path, _as_it_is, body, repeatable=method.upper() == "GET", slow=True)


# ------------------------------------------------------------------------------------------------------------- helpers


def _slot_action(slot: int, action: str, filename: str | None) -> Request[SlotFile]:
    if filename is not None and not _FILE.fullmatch(filename):
        raise CommandError(
            f"a slot's file is a name without a folder, of letters, digits and ._-, not {filename!r}",
            hint='client.slot_save(0, "chat.bin")',
        )

    def check(known: Props) -> None:
        # The server takes any number, modulo its slots: slot 9 of two would be slot 1.
        count = known.slots or 0
        if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < count:
            raise CommandError(f"no slot {slot!r}; there are {count}, from 0 on", hint="client.slots()")

    body: dict[str, JSON] = {} if filename is None else {"filename": filename}
    path = f"/slots/{quote(str(slot), safe='')}?action={action}"
    return Request("POST", path, SlotFile.of, body, slow=True, first=(props(), check))


def _multipart(fields: Mapping[str, str], filename: str, content: bytes) -> tuple[str, bytes]:
    """Content type and body of a form (RFC 7578); the boundary is random, so that no content holds it."""
    boundary = uuid4().hex
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'.encode()
    body = b"".join([*lines, head, content, f"\r\n--{boundary}--\r\n".encode()])
    return f"multipart/form-data; boundary={boundary}", body


def _of_model(model: str | None) -> str:
    return "" if model is None else "?" + urlencode({"model": model, "autoload": "false"})


def _given(**options: JSON) -> dict[str, JSON]:
    return {name: value for name, value in options.items() if value is not None}


def _each(make: Any) -> Any:
    return lambda rows: tuple(make(row) for row in rows)


def _input_tokens(data: Any) -> int:
    return int(data["input_tokens"])


def _success(data: Any) -> bool:
    return bool(data.get("success", True))


def _as_it_is(data: Any) -> JSON:
    return cast("JSON", data)


def _nothing(data: Any) -> None:  # noqa: ARG001 (one signature for all decoders)
    return None

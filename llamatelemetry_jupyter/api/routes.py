"""The routes of llama.cpp's HTTP server, the client's method for each, and how it is known to work.

One table: docs/api.md is made from it (``python tools/tables.py``) and a test asks each route of the real engine.
From llama.cpp b11549; an engine without a route answers 404, one without the feature 501 or 403.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Which engine of the tests answers: two slots; started for embeddings, slots, props; for ranking; a documented router.
Engine = Literal["chat", "embeddings", "rank", "router"]


@dataclass(frozen=True, slots=True)
class Route:
    """A route: HTTP method, its addresses (all the same), what it is for, and the client's methods that ask it.

    ``status`` is what the engine named by ``engine`` answers. ``without`` is why it lacks the feature: a model
    or a build that has it was not at hand where the tests run.
    """

    verb: Literal["GET", "POST", "DELETE"]
    paths: tuple[str, ...]
    what: str
    methods: tuple[str, ...]
    status: int = 200
    engine: Engine = "chat"
    without: str = ""

    @property
    def proof(self) -> str:
        """How the tests know it, in words."""
        if self.engine == "router":
            return f"a recorded exchange; the wheel's engine, which is no router, answers {self.status}"
        if self.status < 400:
            extra = {"chat": "", "embeddings": ", started for it", "rank": ", started for it"}[self.engine]
            return f"{self.status} from the real engine{extra}"
        return f"{self.status} from the real engine: {self.without}"


_R = Route
_OFF = "switched off, and we never switch it on"
ROUTES: tuple[Route, ...] = (
    _R("POST", ("/v1/chat/completions", "/chat/completions"), "chat: OpenAI's format", ("chat", "chat_stream")),
    _R("POST", ("/completion", "/completions"), "continue a text: llama.cpp's format", ("complete", "complete_stream")),
    _R("POST", ("/v1/completions",), "continue a text: OpenAI's format", ("complete", "complete_stream")),
    _R("POST", ("/v1/responses", "/responses"), "chat: OpenAI's Responses", ("respond", "respond_stream")),
    _R("POST", ("/v1/messages",), "chat: Anthropic's Messages", ("message", "message_stream")),
    _R(
        "POST",
        ("/infill",),
        "fill in code",
        ("infill", "infill_stream"),
        501,
        without="the demo model lacks its tokens",
    ),
    _R("POST", ("/v1/chat/completions/control",), "end a model's thinking", ("end_reasoning",)),
    _R("GET", ("/v1/stream",), "replay or go on with a conversation's answer", ("resume",)),
    _R("POST", ("/v1/streams/lookup",), "how far the answers of conversations are", ("conversations",)),
    _R("DELETE", ("/v1/stream",), "end and delete a conversation's answer", ("forget",), 204),
    _R("POST", ("/v1/embeddings",), "embeddings: OpenAI's format", ("embed", "embeddings"), engine="embeddings"),
    _R("POST", ("/embeddings", "/embedding"), "embeddings: llama.cpp's format", ("embed_tokens",), engine="embeddings"),
    _R("POST", ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking"), "rank documents", ("rerank",), engine="rank"),
    _R(
        "POST",
        ("/v1/audio/transcriptions", "/audio/transcriptions"),
        "words in a sound",
        ("transcribe",),
        501,
        without="the demo model takes no sound",
    ),
    _R("POST", ("/v1/systemone",), "decisions", ("decide",), 501, without="the demo model is no decision model"),
    _R("POST", ("/tokenize",), "token ids, pieces", ("tokenize", "pieces")),
    _R("POST", ("/detokenize",), "text of token ids", ("detokenize",)),
    _R("POST", ("/apply-template",), "the prompt that a chat becomes", ("apply_template",)),
    _R(
        "POST",
        ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"),
        "tokens of a chat",
        ("count_tokens",),
    ),
    _R(
        "POST",
        ("/v1/responses/input_tokens", "/responses/input_tokens"),
        "tokens of Responses input",
        ("count_response_tokens",),
    ),
    _R("POST", ("/v1/messages/count_tokens",), "tokens of Messages input", ("count_message_tokens",)),
    _R("GET", ("/health", "/v1/health"), "ready or loading", ("health",)),
    _R("GET", ("/props",), "model and set-up", ("props",)),
    _R("POST", ("/props",), "change global properties", ("set_props",), engine="embeddings"),
    _R("GET", ("/v1/models", "/models"), "models", ("models",)),
    _R("GET", ("/metrics",), "counters and gauges", ("metrics",)),
    _R("GET", ("/slots",), "state of the slots", ("slots",)),
    _R("POST", ("/slots/0?action=save",), "save a slot's cache", ("slot_save",), engine="embeddings"),
    _R("POST", ("/slots/0?action=restore",), "restore a slot's cache", ("slot_restore",), engine="embeddings"),
    _R("POST", ("/slots/0?action=erase",), "empty a slot's cache", ("slot_erase",), engine="embeddings"),
    _R("GET", ("/lora-adapters",), "LoRA adapters", ("lora_adapters",)),
    _R("POST", ("/lora-adapters",), "scale LoRA adapters", ("set_lora",)),
    _R("POST", ("/models/load",), "load a router's model", ("load_model",), 404, "router"),
    _R("POST", ("/models/unload",), "unload a router's model", ("unload_model",), 404, "router"),
    _R("POST", ("/models",), "let a router fetch a model", ("download_model",), 404, "router"),
    _R("DELETE", ("/models",), "delete a router's model", ("delete_model",), 404, "router"),
    _R("GET", ("/models/sse",), "what happens to a router's models", ("model_events",), 404, "router"),
    _R(
        "GET",
        ("/tools", "/cors-proxy"),
        "built-in tools, a proxy",
        ("request",),
        403,
        without="switched off, and we never switch it on",
    ),
    _R(
        "POST",
        ("/tools", "/cors-proxy"),
        "built-in tools, a proxy",
        ("request",),
        403,
        without="switched off, and we never switch it on",
    ),
    _R("POST", ("/predict",), "Vertex AI's form", ("request",), 404, without="only with AIP_MODE=PREDICTION"),
    _R("GET", ("/",), "the web page", ("request",), 415, without="only for browsers"),
)

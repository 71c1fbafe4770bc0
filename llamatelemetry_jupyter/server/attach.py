"""Servers that somebody else runs: what one is, what it can do, and what it does not provide.

llama.cpp, its router, vLLM, SGLang, Ray Serve, and anything else that speaks OpenAI's protocol. What the others are
like is taken from their documentation; llama.cpp, its router and a Ray Serve app (``make test-scale``) were seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from .. import escape
from ..api.client import LlamaCppClient
from ..errors import ServerError
from ..values import JSON, ModelRef, ServerHandle
from . import probe

Backend: TypeAlias = Literal["llama.cpp", "router", "vllm", "sglang", "ray", "openai"]
BACKENDS: tuple[Backend, ...] = ("llama.cpp", "router", "vllm", "sglang", "ray", "openai")
_HINT = "%llama attach http://HOST:PORT --api-key KEY"

#: Figure → where it comes from, by backend. A backend that is missing does not provide it, and then it is shown as
#: such and never as 0. ``own``: a llama.cpp server that was started here.
FIGURES: Mapping[str, Mapping[str, str]] = {
    "model": {"own": "settings", **dict.fromkeys(BACKENDS, "`/v1/models`")},
    "time to first token, tokens/s": {"own": "our clock", **dict.fromkeys(BACKENDS, "our clock")},
    "prefill and decode times": {"own": "`timings`", "llama.cpp": "`timings`", "router": "`timings`"},
    "slots": {"own": "`/slots`", "llama.cpp": "`/slots`"},
    "context": {"own": "`/slots`", "llama.cpp": "`/props`", "vllm": "`max_model_len`", "sglang": "`max_model_len`"},
    "running and waiting requests": {
        "own": "`/metrics`", "llama.cpp": "`/metrics`", "router": "`/metrics?model=`", "vllm": "`/metrics`",
        "sglang": "`/metrics`",
    },
    "tokens in and out": {
        "own": "`/metrics`", "llama.cpp": "`/metrics`", "router": "`/metrics?model=`", "vllm": "`/metrics`",
        "sglang": "`/metrics`",
    },
    "KV cache in use": {"own": "`/slots`", "llama.cpp": "`/slots`", "vllm": "`/metrics`", "sglang": "`/metrics`"},
    "requests of other clients": {"own": "log"},
    "memory by owner": {"own": "log"},
    "log": {"own": "file"},
    "models to load and unload": {"router": "`/models`"},
}  # fmt: skip


def not_provided(handle: ServerHandle) -> tuple[str, ...]:
    """The figures that ``handle``'s backend does not give; empty for a server of our own."""
    if handle.owned:
        return ()
    missing = [figure for figure, sources in FIGURES.items() if handle.backend not in sources]
    asked = {"slots": "slots", "KV cache in use": "slots", "running and waiting requests": "metrics"}
    asked["tokens in and out"] = "metrics"
    if handle.backend in ("llama.cpp", "vllm", "sglang"):  # they can be started without
        missing += [f for f, needs in asked.items() if f not in missing and _off(handle, needs)]
    shown = [figure for figure in missing if figure != "models to load and unload"]
    return tuple(figure for figure in FIGURES if figure in shown)


def _off(handle: ServerHandle, needs: str) -> bool:
    return (needs if handle.backend == "llama.cpp" else "metrics") not in handle.capabilities


def table() -> str:
    """Which figure comes from where, as Markdown; docs/server.md holds it."""
    heads = {"own": "started here", "llama.cpp": "llama.cpp", "router": "its router", "vllm": "vLLM",
             "sglang": "SGLang", "ray": "Ray Serve", "openai": "other"}  # fmt: skip
    lines = [f"| Figure | {' | '.join(heads.values())} |", "|---" * (len(heads) + 1) + "|"]
    lines += [
        f"| {figure} | {' | '.join(sources.get(one, 'not provided') for one in heads)} |"
        for figure, sources in FIGURES.items()
    ]
    return "\n".join(lines)


def detect(url: str, api_key: str | None, name: str, timeout_s: float) -> ServerHandle:
    """The handle of what answers at ``url``; waits while a model loads.

    Raises ServerError when nothing does within ``timeout_s``, the key is refused, or it does not speak the protocol.
    """
    base = address(url)
    models = _models(base, api_key, timeout_s)
    data = models.json.get("data") if isinstance(models.json, dict) else None
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    found = _Found(base, api_key, first)
    owner = first.get("owned_by")
    if owner == "llamacpp" or models.server.startswith("llama.cpp"):
        props = found.get("/props")
        if isinstance(props, dict) and ("total_slots" in props or props.get("role") == "router"):
            return _llama(found, name, props)
    routes = found.get("/-/routes")  # of Ray Serve's own proxy, whatever the app behind it is
    if isinstance(routes, dict):
        return found.handle(name, "ray", "Ray Serve")
    metrics = found.text("/metrics")
    if owner == "vllm" or "\nvllm:" in metrics:
        version = found.get("/version")
        engine = f"vLLM {version.get('version')}" if isinstance(version, dict) else "vLLM"
        return found.handle(name, "vllm", engine, "metrics" if "\nvllm:" in metrics else None)
    if owner == "sglang" or "\nsglang:" in metrics:
        return found.handle(name, "sglang", "SGLang", "metrics" if "\nsglang:" in metrics else None)
    return found.handle(name, "openai", None)


def address(url: str) -> str:
    """``url`` without ``/v1`` and with a scheme; raises ServerError for what is no address."""
    base = (url if "://" in url else f"http://{url}").strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(base)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment or parts.username or not base.isprintable() or " " in base:
        raise ServerError(f"{escape.plain(url)} is not the address of a server", hint=_HINT)
    return base


@dataclass(frozen=True, slots=True)
class _Found:
    """A server that answers, with its first model."""

    base: str
    key: str | None
    model: Mapping[str, JSON]

    def get(self, path: str) -> JSON:
        try:
            reply = probe.ask(self.base, path, self.key)
        except OSError:
            return None
        return reply.json if reply.status == 200 else None

    def text(self, path: str) -> str:
        try:
            reply = probe.ask(self.base, path, self.key)
        except OSError:
            return ""
        return "\n" + reply.body.decode("utf-8", "replace") if reply.status == 200 else ""

    def handle(self, name: str, backend: Backend, engine: str | None, *capabilities: str | None) -> ServerHandle:
        context = self.model.get("max_model_len")
        model = self.model.get("id")
        return ServerHandle(
            name=name,
            url=self.base,
            api_key=self.key,
            backend=backend,
            owned=False,
            pid=None,
            pid_start=None,
            model=ModelRef(model, model) if isinstance(model, str) else None,
            slots=None,
            ctx_per_slot=context if type(context) is int else None,
            capabilities=frozenset({"chat", *(c for c in capabilities if c)}),
            engine=engine,
        )


def _llama(found: _Found, name: str, props: Mapping[str, JSON]) -> ServerHandle:
    if props.get("role") == "router":
        return found.handle(name, "router", "llama.cpp router", "metrics")
    settings, slots, path = props.get("default_generation_settings"), props.get("total_slots"), props.get("model_path")
    alias, build = props.get("model_alias"), props.get("build_info")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    model = str(alias or found.model.get("id") or "model")
    return ServerHandle(
        name=name,
        url=found.base,
        api_key=found.key,
        backend="llama.cpp",
        owned=False,
        pid=None,
        pid_start=None,
        model=ModelRef(model, str(path or model)),
        slots=slots if type(slots) is int else None,
        ctx_per_slot=context if type(context) is int else None,
        capabilities=probe.capabilities(dict(props)),
        engine=f"llama-server {build}" if isinstance(build, str) else "llama-server",
    )


def _models(base: str, api_key: str | None, timeout_s: float) -> probe.Reply:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            reply = probe.ask(base, "/v1/models", api_key, min(timeout_s, 5.0))
        except OSError as error:
            why = error.strerror or str(error)
            raise ServerError(f"nothing answers at {base}: {why}", hint=_HINT) from error
        if reply.status != 503 or time.monotonic() > deadline:
            break
        time.sleep(0.1)  # it loads its model
    if reply.status in (401, 403):
        said = "refuses this API key" if api_key else "wants an API key"
        raise ServerError(f"{base} {said}", hint=f"%llama attach {base} --api-key KEY")
    if reply.status == 503:
        raise ServerError(f"{base} still loads its model", hint=f"%llama attach {base} --timeout 300")
    if reply.status != 200 or not isinstance(reply.json, dict) or not isinstance(reply.json.get("data"), list):
        raise ServerError(f"{base} does not speak OpenAI's protocol (HTTP {reply.status} for /v1/models)", hint=_HINT)
    return reply


# ---------------------------------------------------------------------------------------------------- router's models


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """A model of llama.cpp's router; ``status``: unloaded loading loaded sleeping downloading failed.

    ``exit_code`` is of its last process; one that could not be loaded is ``unloaded`` with a code that is not 0.
    """

    id: str
    status: str
    exit_code: int | None = None


def routed(handle: ServerHandle) -> tuple[RoutedModel, ...]:
    """The models of a router with their states; raises ServerError or RequestError when it has none to tell."""
    found = []
    for one in _client(handle).models():
        state = one.raw.get("status")
        code = state.get("exit_code") if isinstance(state, dict) else None
        found.append(RoutedModel(one.id, one.status or "unknown", code if type(code) is int else None))
    return tuple(found)


def load(handle: ServerHandle, model: str, *, timeout_s: float = 120.0, unload: bool = False) -> RoutedModel:
    """Load (or unload) a model of a router and wait for it; raises ServerError or RequestError when that fails."""
    wanted = "unloaded" if unload else "loaded"
    if all(one.id != model for one in routed(handle)):
        raise ServerError(f"the router has no model {escape.plain(model)!r}", hint="%llama status")
    client = _client(handle)
    (client.unload_model if unload else client.load_model)(model)
    deadline = time.monotonic() + timeout_s
    while True:
        now = next((one for one in routed(handle) if one.id == model), None)
        if now is None or now.status == "failed" or (now.status == "unloaded" and now.exit_code and not unload):
            code = now.exit_code if now else None
            raise ServerError(f"{model} was not {wanted}: it ended with code {code}", hint="%llama status")
        if now.status == wanted or (not unload and now.status == "sleeping"):
            return now
        if time.monotonic() > deadline:
            raise ServerError(f"{model} is still {now.status} after {timeout_s:.0f} s", hint="%llama status")
        time.sleep(0.1)


def _client(handle: ServerHandle) -> LlamaCppClient:
    if handle.backend != "router":
        raise ServerError(f"{handle.url} is not a router: it has one model", hint="%llama status")
    return LlamaCppClient.of(handle)

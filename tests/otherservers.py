"""Servers that cannot run here, at their HTTP interface, as their documentation describes it; on 127.0.0.1.

**From documentation**, not recorded: vLLM 0.32, SGLang, Ray Serve LLM. llama.cpp's router is as a real one answered.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, object]

VLLM_METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="big"} 3.0
vllm:num_requests_waiting{engine="0",model_name="big"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="big"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="big"} 1200.0
vllm:generation_tokens_total{engine="0",model_name="big"} 345.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
"""
SGLANG_METRICS = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="big"} 0.0
sglang:num_queue_reqs{model_name="big"} 0.0
sglang:num_used_tokens{model_name="big"} 777.0
sglang:prompt_tokens_total{model_name="big"} 10.0
sglang:generation_tokens_total{model_name="big"} 20.0
"""
LLAMA_METRICS = """# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 30
llamacpp:prompt_tokens_cached_total 4
llamacpp:tokens_predicted_total 50
llamacpp:requests_processing 1
llamacpp:requests_deferred 0
"""


def models(owner: str, *ids: str, **more: object) -> Answer:
    return 200, {"object": "list", "data": [{"id": i, "object": "model", "owned_by": owner, **more} for i in ids]}


def vllm(path: str, _post: Any) -> Answer:
    return {
        "/v1/models": models("vllm", "big", max_model_len=32768),
        "/version": (200, {"version": "0.32.0"}),
        "/metrics": (200, VLLM_METRICS),
    }.get(path, (404, {"detail": "Not Found"}))


def sglang(path: str, _post: Any) -> Answer:
    return {
        "/v1/models": models("sglang", "big", max_model_len=8192),
        "/get_model_info": (200, {"model_path": "org/big"}),
        "/metrics": (200, SGLANG_METRICS),
    }.get(path, (404, {"detail": "Not Found"}))


def ray(path: str, _post: Any) -> Answer:
    return {
        "/v1/models": models("organization-owner", "qwen"),
        "/-/routes": (200, {"/": "LLMServer:app"}),
        "/-/healthz": (200, "success"),
    }.get(path, (404, {"detail": "Not Found"}))


def other(path: str, _post: Any) -> Answer:
    return {"/v1/models": models("somebody", "m")}.get(path, (404, "no"))


class Router:
    """llama.cpp's router with two models, one of which cannot be loaded; it counts what would load a model unasked."""

    def __init__(self) -> None:
        self.status = {"a": "unloaded", "broken": "unloaded"}
        self.autoloads = 0
        self.tried = False  # whether the broken one was

    def __call__(self, path: str, post: Any) -> Answer:
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        if parts.path in ("/models", "/v1/models"):
            exits = {"broken": {"exit_code": 1}} if self.tried else {}
            return 200, {"object": "list", "data": [
                {"id": m, "owned_by": "llamacpp", "status": {"value": s, **exits.get(m, {})}} for m, s in self.status.items()
            ]}  # fmt: skip
        if parts.path == "/props":
            return 200, {"role": "router", "max_instances": 4, "model_alias": "llama-server", "model_path": "none"}
        if parts.path == "/metrics":
            self.autoloads += query.get("autoload") != "false"
            loaded = self.status.get(query.get("model", "")) == "loaded"
            return (200, LLAMA_METRICS) if loaded else (400, _error(400, "model is not loaded"))
        if parts.path in ("/models/load", "/models/unload"):
            model = post["model"]
            if model not in self.status:
                return 404, _error(404, "File Not Found")
            if parts.path == "/models/unload":
                self.status[model] = "unloaded"
            elif self.status[model] == "loaded":
                return 400, _error(400, "model is already running")
            elif model == "broken":
                self.tried = True
            else:
                self.status[model] = "loaded"
            return 200, {"success": True}
        return 404, _error(404, "File Not Found")


def _error(code: int, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "type": "invalid_request_error"}}


@contextmanager
def serving(answer: Callable[[str, Any], Answer], *, key: str | None = None, server: str = "uvicorn") -> Iterator[str]:
    """The URL of a server that answers with ``answer(path, posted)``; it wants ``key`` where one is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null"))

        def _answer(self, post: Any) -> None:
            status, body = answer(self.path, post)
            if key is not None and self.headers["Authorization"] != f"Bearer {key}":
                status, body = 401, {"error": "Unauthorized"}
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def version_string(self) -> str:
            return server

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()

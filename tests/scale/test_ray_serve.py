"""A real Ray Serve app over our engine, attached to as a user would: ``make test-scale`` (outside CI: Ray is large)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.sampling.server import ServerProbe
from llamatelemetry_jupyter.server import attach
from llamatelemetry_jupyter.server.process import ServerManager
from llamatelemetry_jupyter.values import ServerHandle

pytestmark = pytest.mark.scale


def app(url: str, key: str) -> object:
    """OpenAI's routes, as Ray Serve LLM has them; one replica that passes them on to the engine."""
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Llama:
        async def __call__(self, request):
            import httpx
            from starlette.responses import JSONResponse, Response, StreamingResponse

            if request.url.path not in ("/v1/models", "/v1/chat/completions"):
                return JSONResponse({"detail": "Not Found"}, 404)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)
            sent = client.build_request(request.method, request.url.path, content=await request.body() or None)
            answer = await client.send(sent, stream=True)
            if "event-stream" in answer.headers.get("content-type", ""):
                return StreamingResponse(answer.aiter_raw(), media_type="text/event-stream")
            return Response(await answer.aread(), answer.status_code, media_type="application/json")

    return Llama.bind()


@pytest.fixture(scope="module")
def ray_url(server: ServerHandle) -> Iterator[str]:
    import ray
    from ray import serve

    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(server.url, server.api_key), route_prefix="/")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def test_an_app_of_ray_serve_is_attached_to_and_asked(ray_url: str, server: ServerHandle) -> None:
    with ServerManager("ray") as manager:
        handle = manager.attach(f"{ray_url}/v1", timeout_s=60)
        assert (handle.backend, handle.engine, handle.owned) == ("ray", "Ray Serve", False)
        assert handle.model is not None
        assert server.model is not None
        assert handle.model.id == server.model.id
        assert {"slots", "KV cache in use", "running and waiting requests", "log"} <= set(attach.not_provided(handle))
        answer = InferenceEngine(handle).chat("Name a colour.", max_tokens=8, temperature=0, seed=1)
        assert (answer.output_tokens, answer.finish_reason) == (8, "length")
        assert answer.timings.ttft_s is not None
        sample = ServerProbe(handle).read()
        assert (sample.state, sample.slots_busy, sample.kv_tokens) == ("ready", None, None)

"""Servers of others: what each is and can do is found out; what it does not provide is said, and is never 0."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time

import otherservers
import pytest
from faultproxy import fault_proxy
from otherservers import serving

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.errors import RequestError, ServerError
from llamatelemetry_jupyter.sampling.server import ServerProbe
from llamatelemetry_jupyter.server import attach, probe
from llamatelemetry_jupyter.server.process import ServerManager


@pytest.fixture
def manager():
    made = ServerManager("other")
    yield made
    made.close()


# From documentation: backend, what serves it, engine shown, context, figures of one sample.
OTHERS = [
    ("vllm", otherservers.vllm, "vLLM 0.32.0", 32768, (3, 2, 1200, 345, 4000, 16000)),
    ("sglang", otherservers.sglang, "SGLang", 8192, (0, 0, 10, 20, 777, None)),
    ("ray", otherservers.ray, "Ray Serve", None, (None,) * 6),
    ("openai", otherservers.other, None, None, (None,) * 6),
]


@pytest.mark.parametrize(("backend", "answer", "engine", "context", "figures"), OTHERS, ids=[o[0] for o in OTHERS])
def test_each_kind_is_known_by_its_documented_signs(manager, backend, answer, engine, context, figures):
    with serving(answer, key="k1") as url:
        handle = manager.attach(f"{url}/v1/", "k1")
        assert (handle.backend, handle.engine, handle.ctx_per_slot, handle.url) == (backend, engine, context, url)
        assert (handle.owned, handle.pid, handle.slots, handle.buffers) == (False, None, None, ())
        assert "k1" not in repr(handle)
        sample = ServerProbe(handle).read()
        assert figures == (
            sample.slots_busy, sample.queued, sample.input_tokens_total, sample.output_tokens_total, sample.kv_tokens,
            sample.kv_capacity,
        )  # fmt: skip
        missing = attach.not_provided(handle)
        assert {"slots", "memory by owner", "log", "prefill and decode times"} <= set(missing)
        assert ("running and waiting requests" in missing) == (figures[0] is None)
        assert ("KV cache in use" in missing) == (figures[4] is None)
        assert not {"model", "time to first token, tokens/s"} & set(missing)
        manager.stop()
        assert manager.handle is None


def test_a_vllm_without_metrics_says_so(manager):
    def answer(path, post):
        return (404, {}) if path == "/metrics" else otherservers.vllm(path, post)

    with serving(answer) as url:
        handle = manager.attach(url)
        assert handle.backend == "vllm"
        assert {"running and waiting requests", "tokens in and out", "KV cache in use"} <= set(
            attach.not_provided(handle)
        )
        sample = ServerProbe(handle).read()
        assert (sample.state, sample.slots_busy, sample.output_tokens_total) == ("ready", None, None)


def test_a_routers_models_are_listed_loaded_and_unloaded_and_never_by_a_look(manager):
    router = otherservers.Router()
    with serving(router, server="llama.cpp") as url:
        handle = manager.attach(url)
        assert handle.backend == "router"
        assert [(m.id, m.status) for m in attach.routed(handle)] == [("a", "unloaded"), ("broken", "unloaded")]
        probe = ServerProbe(handle)
        sample = probe.read()
        assert (sample.state, sample.slots_busy, sample.output_tokens_total) == ("ready", None, None)
        assert attach.load(handle, "a").status == "loaded"
        sample = probe.read()
        assert (sample.state, sample.input_tokens_total, sample.output_tokens_total) == ("generating", 34, 50)
        with pytest.raises(RequestError, match="model is already running"):
            attach.load(handle, "a")
        with pytest.raises(ServerError, match="broken was not loaded: it ended with code 1"):
            attach.load(handle, "broken")
        with pytest.raises(ServerError, match="the router has no model 'nope'"):
            attach.load(handle, "nope")
        assert attach.load(handle, "a", unload=True).status == "unloaded"
        assert router.autoloads == 0
        probe.close()
    with pytest.raises(ServerError, match="not reachable"):
        attach.routed(handle)


@pytest.mark.engine
@pytest.mark.skipif(not shutil.which("llama-server"), reason="a router needs a real llama-server on PATH")
def test_a_real_router_answers_as_its_double(manager, model_path, tmp_path):
    (tmp_path / "a.gguf").symlink_to(model_path)
    (tmp_path / "broken.gguf").write_text("not a model")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    command = [
        "llama-server",
        "--models-dir",
        str(tmp_path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--metrics",
        "-c",
        "512",
    ]
    router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while probe_status(port) != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        handle = manager.attach(f"127.0.0.1:{port}", timeout_s=30)
        assert handle.backend == "router"
        assert sorted(m.id for m in attach.routed(handle)) == ["a", "broken"]
        assert attach.load(handle, "a").status == "loaded"
        sample = ServerProbe(handle).read()
        assert (sample.state, sample.slots_busy, sample.output_tokens_total) == ("ready", 0, 0)
        with pytest.raises(RequestError, match="already running"):
            attach.load(handle, "a")
        with pytest.raises(ServerError, match="broken was not loaded: it ended with code 1"):
            attach.load(handle, "broken")
        assert attach.load(handle, "a", unload=True).status == "unloaded"
        assert ServerProbe(handle).read().output_tokens_total is None
        assert [m.status for m in attach.routed(handle)] == ["unloaded", "unloaded"]  # a look loads nothing
    finally:
        router.terminate()
        router.wait(20)


def probe_status(port):
    try:
        return probe.ask(f"http://127.0.0.1:{port}", "/health").status
    except OSError:
        return None


@pytest.mark.engine
def test_a_real_server_of_somebody_else_is_used_and_let_go(manager, engine):
    handle = manager.attach(engine.url, engine.key)
    assert (handle.backend, handle.slots, handle.ctx_per_slot, handle.owned) == ("llama.cpp", 2, 1024, False)
    assert handle.model.id == "smol"
    assert {"chat", "metrics", "slots"} <= handle.capabilities
    assert attach.not_provided(handle) == ("requests of other clients", "memory by owner", "log")
    with pytest.raises(ServerError, match="is not a router"):
        attach.routed(handle)
    sample = ServerProbe(handle).read()
    assert (sample.slots, sample.kv_capacity) == (2, 2048)
    manager.stop()
    assert engine.process.poll() is None
    with pytest.raises(ServerError, match="wants an API key") as missing:
        manager.attach(engine.url)
    assert "--api-key" in missing.value.hint
    with pytest.raises(ServerError, match="refuses this API key"):
        manager.attach(engine.url, "wrong")
    assert manager.handle is None


@pytest.mark.engine
def test_an_own_server_is_not_pushed_aside_by_an_attached_one(manager, engine, model_path):
    from llamatelemetry_jupyter.server.settings import ServerSettings

    own = manager.start(ServerSettings(model=str(model_path), ctx=512, warmup=False))
    with pytest.raises(ServerError, match="'other' is running"):
        manager.attach(engine.url, engine.key)
    assert process_start(own.pid) == own.pid_start
    manager.stop()


def test_what_is_no_server_is_told_apart(manager):
    def page(path, post):
        return 200, "<html>hello</html>"

    def loading(path, post):
        return 503, {"error": {"message": "Loading model", "code": 503}}

    with serving(page) as url, pytest.raises(ServerError, match="does not speak OpenAI's protocol"):
        manager.attach(url)
    with serving(lambda *_: (404, {})) as url, pytest.raises(ServerError, match="HTTP 404"):
        manager.attach(url)
    with serving(lambda *_: (200, {"data": 5})) as url, pytest.raises(ServerError, match="does not speak"):
        manager.attach(url)
    with serving(loading) as url, pytest.raises(ServerError, match="still loads its model"):
        manager.attach(url, timeout_s=0.3)
    with pytest.raises(ServerError, match=r"nothing answers at .*: Connection refused"):
        manager.attach("127.0.0.1:9")
    wrong = ("", "ftp://x", "http://", "http://user:pw@x", "http://x y", "http://x?y=1", "http://x:99999", "\x1b[31m")
    for url in wrong:
        with pytest.raises(ServerError, match="is not the address of a server") as problem:
            manager.attach(url)
        assert "\x1b" not in str(problem.value)


@pytest.mark.parametrize("fault", ["garbage", "hangs", "drips"])
def test_an_answer_that_is_garbage_hangs_or_drips_ends_in_an_error(manager, fault):
    if fault == "garbage":
        with serving(otherservers.vllm) as url, fault_proxy(url, edit=lambda data: b"\x00\xff" * 50) as proxy:
            with pytest.raises(ServerError, match="nothing answers"):
                manager.attach(proxy.url, timeout_s=2)
    elif fault == "drips":
        with serving(otherservers.vllm) as url, fault_proxy(url, piece=1, delay_s=0.05) as proxy:
            with pytest.raises(ServerError, match="nothing answers"):
                manager.attach(proxy.url, timeout_s=0.5)
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            held = []
            thread = threading.Thread(target=lambda: held.append(silent.accept()), daemon=True)
            thread.start()
            with pytest.raises(ServerError, match="timed out"):
                manager.attach(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
            thread.join(5)
            for connection, _ in held:
                connection.close()
    assert manager.handle is None

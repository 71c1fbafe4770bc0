"""Settings, one table for both engines."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter.errors import CommandError, EngineError
from llamatelemetry_jupyter.server.settings import ServerSettings
from llamatelemetry_jupyter.values import ModelRef

LISTED = frozenset({"--cache-ram", "--log-jsonl", "--no-webui", "--flash-attn", "--cache-type-k", "--cache-type-v"})


def test_a_binary_gets_what_its_help_lists():
    argv = ServerSettings(model="/m.gguf", ctx=1024, slots=2).to_argv(LISTED)
    assert argv[argv.index("--ctx-size") + 1] == "2048"  # the engine counts over all slots
    assert argv[argv.index("--port") + 1] == "0"
    assert argv[argv.index("--verbosity") + 1] == "4"
    assert {"--log-jsonl", "--no-webui", "--metrics"} <= set(argv)
    assert not {"--offline", "--no-ui", "--fit", "--tools"} & set(argv)


def test_a_setting_that_was_asked_for_is_never_dropped_in_silence():
    with pytest.raises(EngineError, match="no --cache-type-k"):
        ServerSettings(kv_type="q8_0").to_argv(frozenset({"--port"}))
    ServerSettings(kv_type="q8_0").to_argv(LISTED)


def test_the_wheel_gets_the_same_by_attribute():
    params = ServerSettings(model="/m.gguf", ctx=1024, slots=2, threads=3, kv_type="q8_0", warmup=False).to_params()
    assert (params["n_ctx"], params["n_parallel"], params["cache_ram_mib"], params["port"]) == (2048, 2, 1024, 0)
    assert (params["cpuparams.n_threads"], params["cache_type_k"], params["warmup"]) == (3, "GGML_TYPE_Q8_0", False)
    assert (params["endpoint_metrics"], params["endpoint_slots"], params["offline"]) == (True, True, True)


def test_equal_settings_have_equal_hashes():
    settings = ServerSettings(model="/m.gguf", ctx=1024)
    assert settings.hash() == ServerSettings(model="/m.gguf", ctx=1024).hash()
    assert settings.hash() != ServerSettings(model="/m.gguf", ctx=1024, slots=2).hash()


def test_the_default_context_is_the_models_but_never_a_128k_one():
    model = ModelRef("tiny", "/m.gguf")
    assert ServerSettings("tiny").resolved(model, 2048).ctx == 2048
    assert ServerSettings("tiny").resolved(model, 131_072).ctx == 8192
    assert ServerSettings("tiny", ctx=512).resolved(model, 2048) == ServerSettings("/m.gguf", "tiny", ctx=512)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ctx": 3}, "--ctx must be from"),
        ({"slots": 0}, "--slots must be from"),
        ({"port": "80"}, "--port must be from"),
        ({"port": True}, "--port must be from"),
        ({"gpu_layers": -5}, "--gpu-layers must be from"),
        ({"host": "0.0.0.0"}, "this machine only"),
        ({"kv_type": "q9"}, "one of f32"),
        ({"flash_attention": "yes"}, "on, off or auto"),
        ({"kv_type": "q8_0", "flash_attention": "off"}, "needs flash attention"),
        ({"model": ""}, "no model"),
    ],
)
def test_a_value_that_no_engine_takes_is_refused_with_a_hint(wrong, said):
    with pytest.raises(CommandError, match=said) as problem:
        ServerSettings(**wrong)
    assert problem.value.hint

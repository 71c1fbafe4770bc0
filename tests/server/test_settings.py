"""Settings, one table for both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields

import pytest

from llamatelemetry_jupyter.errors import CommandError, EngineError
from llamatelemetry_jupyter.models.gguf import GGUFHeader
from llamatelemetry_jupyter.server.options import options
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
        ServerSettings(cache_type_k="q8_0").to_argv(frozenset({"--port"}))
    ServerSettings(cache_type_k="q8_0").to_argv(LISTED)


def test_the_wheel_gets_the_same_by_attribute():
    params = ServerSettings(
        model="/m.gguf", ctx=1024, slots=2, threads=3, cache_type_k="q8_0", warmup=False
    ).to_params()
    assert (params["n_ctx"], params["n_parallel"], params["cache_ram_mib"], params["port"]) == (2048, 2, 1024, 0)
    assert (params["cpuparams.n_threads"], params["cache_type_k"], params["warmup"]) == (3, "GGML_TYPE_Q8_0", False)
    assert (params["endpoint_metrics"], params["endpoint_slots"], params["offline"]) == (True, True, True)


# In a process of its own: an engine's abort must not end the tests, and no kernel of ours loads the wheel.
TAKES = """
import json, sys, xllamacpp
from llamatelemetry_jupyter.server.embedded import build
for params in json.load(sys.stdin):
    build(xllamacpp, params, "")
"""


def test_the_wheel_has_every_attribute_and_takes_the_values():
    described = options(ServerSettings)
    every = [
        ServerSettings(**{name: value}, **NEEDS.get(name, {})).to_params()
        for name, value in OTHER.items()
        if described[name].attributes
    ]
    assert len(every) > 40
    done = subprocess.run([sys.executable, "-c", TAKES], input=json.dumps(every), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_equal_settings_have_equal_hashes():
    settings = ServerSettings(model="/m.gguf", ctx=1024)
    assert settings.hash() == ServerSettings(model="/m.gguf", ctx=1024).hash()
    assert settings.hash() != ServerSettings(model="/m.gguf", ctx=1024, slots=2).hash()


def header(context, **more):
    metadata = {"llama.context_length": context, **{f"llama.{k}": v for k, v in more.items()}}
    return GGUFHeader(3, "<", "llama", (), metadata, ())


def test_the_default_context_is_the_models_but_never_a_128k_one():
    model = ModelRef("tiny", "/m.gguf")
    assert ServerSettings("tiny").resolved(model, header(2048)).ctx == 2048
    assert ServerSettings("tiny").resolved(model, header(131_072)).ctx == 8192
    asked = ServerSettings("tiny", ctx=512)
    assert asked.resolved(model, header(2048)) == ServerSettings("/m.gguf", alias="tiny", ctx=512)


def test_a_server_of_embeddings_takes_whole_texts_and_pools_them():
    model = ModelRef("tiny", "/m.gguf")
    plain = ServerSettings("tiny", embeddings=True).resolved(model, header(8192))
    assert (plain.pooling, plain.ubatch, plain.kv_unified) == ("mean", 2048, False)
    assert (
        ServerSettings("tiny", embeddings=True, slots=2).resolved(model, header(8192)).kv_unified
    )  # pooled wrongly else
    assert ServerSettings("tiny", embeddings=True).resolved(model, header(512, pooling_type=2)).pooling is None
    params = ServerSettings("tiny", reranking=True).resolved(model, header(512)).to_params()
    assert (params["embedding"], params["pooling_type"]) == (True, "LLAMA_POOLING_TYPE_RANK")


def test_files_that_settings_name_must_be_there(tmp_path):
    model = ModelRef("tiny", "/m.gguf")
    (tmp_path / "chat.jinja").write_text("{{ x }}")
    (tmp_path / "a.gguf").write_text("")
    for wrong in ({"mmproj": "/no/x.gguf"}, {"draft_model": "/no/x.gguf"}, {"lora": ("/no/x.gguf:0.5",)}):
        with pytest.raises(CommandError, match="there is no file /no/x"):
            ServerSettings("tiny", **wrong).resolved(model, header(512))
    found = ServerSettings(
        "tiny", chat_template=str(tmp_path / "chat.jinja"), lora=(f"{tmp_path}/a.gguf", f"{tmp_path}/a.gguf:0.5")
    ).resolved(model, header(512))
    assert found.chat_template == "{{ x }}"
    assert found.to_params()["lora_adapters"] == [
        {"path": f"{tmp_path}/a.gguf", "scale": 1.0}, {"path": f"{tmp_path}/a.gguf", "scale": 0.5},
    ]  # fmt: skip


def test_settings_survive_their_state_file():
    settings = ServerSettings("/m.gguf", lora=("/a:1",), tensor_split=(1, 2.5), devices=("CUDA0",), cpu_moe="all")
    assert ServerSettings.of(json.loads(json.dumps(asdict(settings) | {"newer": 1}))) == settings


#: A value that is not the default, for each setting; what it needs beside it.
OTHER = {
    "model": "/m.gguf", "alias": "x", "mmproj": "/p", "mmproj_offload": False, "lora": ("/a:0.5",), "load_mode": "mlock",
    "warmup": False, "ctx": 512, "slots": 2, "kv_unified": True, "cache_type_k": "q8_0", "cache_type_v": "q8_0",
    "flash_attention": "on", "batch": 64, "ubatch": 32, "context_shift": True, "swa_full": True, "cache_ram_mib": 7,
    "cache_reuse": 8, "slot_save_path": "/s/", "gpu_layers": 3, "devices": ("CUDA0",), "split_mode": "row",
    "tensor_split": (1, 2.5), "main_gpu": 1, "cpu_moe": "2", "kv_offload": False, "fit": False, "fit_margin_mib": 512,
    "rpc": "h:1", "chat_template": "chatml", "reasoning": "off", "reasoning_format": "none", "reasoning_budget": -1,
    "seed": 7, "embeddings": True, "pooling": "cls", "reranking": True, "spec_type": "ngram-simple",
    "draft_model": "/d", "draft_max": 5, "host": "localhost", "port": 81, "threads": 2, "threads_batch": 3,
    "sleep_idle_seconds": 9, "verbosity": 5,
}  # fmt: skip
NEEDS = {"pooling": {"embeddings": True}}


@pytest.mark.parametrize("name", [f.name for f in fields(ServerSettings)])
def test_every_setting_reaches_both_engines(name):
    described = options(ServerSettings)[name]
    more = NEEDS.get(name, {})
    changed, base = ServerSettings(**{name: OTHER[name]}, **more), ServerSettings(**more)
    every = frozenset(f for one in options(ServerSettings).values() for f in (*one.flags, *one.off)) | {"--cpu-moe"}
    assert changed.to_argv(every) != base.to_argv(every)
    if described.attributes:
        new = changed.to_params()
        assert any(new.get(a) != base.to_params().get(a) for a in described.attributes)
    else:
        with pytest.raises(EngineError, match="xllamacpp has no --"):
            changed.to_params()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ctx": 3}, "--ctx must be from"),
        ({"slots": 0}, "--slots must be from"),
        ({"port": "80"}, "--port must be from"),
        ({"port": True}, "--port must be from"),
        ({"gpu_layers": -5}, "--gpu-layers must be from"),
        ({"host": "0.0.0.0"}, "this machine only"),
        ({"cache_type_k": "q9"}, "one of f32"),
        ({"flash_attention": "yes"}, "one of on, off, auto"),
        ({"cache_type_k": "q8_0", "flash_attention": "off"}, "needs flash attention"),
        ({"model": ""}, "no model"),
        ({"cpu_moe": "some"}, "--cpu-moe is 'all' or"),
        ({"pooling": "mean"}, "for a server of embeddings"),
        ({"reranking": True, "pooling": "mean"}, "needs pooling rank"),
        ({"spec_type": "draft-simple"}, "needs a second model"),
        ({"tensor_split": (1, "x")}, "tuple of numbers"),
        ({"lora": "a.gguf"}, "tuple of texts"),
        ({"warmup": 1}, "True or False"),
        ({"alias": 5}, "must be text"),
        ({"sleep_idle_seconds": 0}, "must be from 1"),
    ],
)
def test_a_value_that_no_engine_takes_is_refused_with_a_hint(wrong, said):
    with pytest.raises(CommandError, match=said) as problem:
        ServerSettings(**wrong)
    assert problem.value.hint

"""An engine's log, as recorded from real engines."""

from __future__ import annotations

import json

import pytest

from llamatelemetry_jupyter.errors import CommandError
from llamatelemetry_jupyter.server.log import Log, explain
from llamatelemetry_jupyter.server.settings import ServerSettings

LINES = [
    "0.00.014.573 I srv    load_model: loading model '/models/x.gguf'",
    "0.00.591.245 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)",
    "0.00.605.090 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB",
    "0.00.606.276 I llama_context:        CPU  output buffer size =     0.38 MiB",
    "0.00.606.364 I llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB",
    "            I sched_reserve:        CPU compute buffer size =    15.64 MiB",
    "0.03.818.056 I srv  llama_server: model loaded",
    "0.03.818.094 I srv  llama_server: listening on http://127.0.0.1:18431",
]


@pytest.mark.parametrize("form", ["text", "json lines"])
def test_buffers_stages_and_address_are_read_from_both_forms(tmp_path, form):
    path = tmp_path / "log"
    lines = LINES if form == "text" else [json.dumps({"type": "log", "time": 1, "msg": line + "\n"}) for line in LINES]
    log = Log(path)
    stages = []
    path.write_text("")
    for line in lines:  # as it grows, also cut in the middle of a line
        for part in (line[:20], line[20:] + "\n"):
            with path.open("a") as file:
                file.write(part)
            stages += log.read()
    assert [fraction for _, fraction in stages] == [0.1, 0.3, 0.7, 1.0]
    assert log.url == "http://127.0.0.1:18431"
    assert [(b.device, b.owner, round(b.bytes / 2**20, 2)) for b in log.buffers] == [
        ("CPU", "weights", 92.1), ("CPU", "output", 0.38), ("CUDA0", "kv", 45.0), ("CPU", "compute", 15.64),
    ]  # fmt: skip
    assert log.tail(1) == [LINES[-1]]


@pytest.mark.parametrize(
    ("line", "returncode", "reason"),
    [
        ("E gguf_init_from_reader: invalid magic characters: 'NOTG', expected 'GGUF'", 1, "not a GGUF model"),
        ("error loading model: unknown model architecture: 'zzzzz'", 1, "does not know the model's architecture"),
        ("E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1", 1, "port is taken"),
        ("allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory", 1, "not enough GPU memory"),
        ("all is well", -9, "killed"),
        ("all is well", -4, "instructions that this CPU lacks"),
        ("0.00.1 E something <b>odd</b>", 3, "status 3: something <b>odd</b>"),
    ],
)
def test_every_end_has_a_cause_and_a_remedy(line, returncode, reason):
    failure = explain([line], returncode)
    assert reason in failure.reason
    assert failure.hint


def test_settings_are_rendered_from_one_table():
    settings = ServerSettings(model="/m.gguf", ctx=1024, slots=2, port=0)
    argv = settings.to_argv(frozenset({"--cache-ram", "--log-jsonl"}))
    assert argv[argv.index("--ctx-size") + 1] == "2048"  # the engine counts over all slots
    assert "--log-jsonl" in argv
    assert "--offline" not in argv  # this binary does not list it
    params = settings.to_params()
    assert (params["n_ctx"], params["n_parallel"], params["cache_ram_mib"]) == (2048, 2, 1024)
    assert settings.hash() == ServerSettings(model="/m.gguf", ctx=1024, slots=2).hash()
    assert settings.hash() != ServerSettings(model="/m.gguf", ctx=1024, slots=1).hash()
    with pytest.raises(CommandError, match="--ctx must be from"):
        ServerSettings(ctx=3)

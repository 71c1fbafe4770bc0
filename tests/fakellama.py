"""``llama-server`` as a program: its options and its words around the real engine of the xllamacpp wheel.

There is no prebuilt binary for every machine that runs these tests; this one takes the same arguments and the same
environment, and the HTTP server inside is llama.cpp's own.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

_PROGRAM = r'''#!{python}
import os, signal, sys, time
HELP = """----- common params -----
-m,    --model FNAME                    model path to load
-a,    --alias STRING                   set model name aliases
-c,    --ctx-size N                     size of the prompt context
-np,   --parallel N                     number of server slots
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
--host HOST / --port PORT / --threads N / --threads-batch N / --batch-size N / --ubatch-size N / --cache-ram N
--metrics / --slots / --no-slots / --ui, --webui, --no-ui, --no-webui / --warmup, --no-warmup / --version
--slot-save-path PATH / --seed N / --n-gpu-layers N / --flash-attn / --context-shift / --swa-full / --cache-reuse N
--chat-template T / --reasoning X / --reasoning-format X / --reasoning-budget N / --embeddings / --pooling P
--spec-type T / --spec-draft-n-max N / --fit X / --sleep-idle-seconds N / --load-mode M / --no-kv-offload
"""
if "--help" in sys.argv:
    print(HELP); sys.exit(0)
if "--version" in sys.argv:
    print("version: 0.1.0-dev (build 1, commit 7e4c0a9)", file=sys.stderr); sys.exit(0)
import xllamacpp
x = xllamacpp
SWITCHES = {{"--metrics": ("endpoint_metrics", True), "--slots": ("endpoint_slots", True), "--no-kv-unified": ("kv_unified", False),
    "--kv-unified": ("kv_unified", True), "--no-ui": ("ui", False), "--no-warmup": ("warmup", False), "--warmup": ("warmup", True),
    "--context-shift": ("ctx_shift", True), "--swa-full": ("swa_full", True), "--embeddings": ("embedding", True),
    "--no-kv-offload": ("no_kv_offload", True)}}
p = xllamacpp.CommonParams()
p.endpoint_slots = False
rest = sys.argv[1:]
while rest:
    flag = rest.pop(0)
    if flag not in HELP:
        print("error: invalid argument: " + flag, file=sys.stderr); sys.exit(1)
    if flag in SWITCHES:
        name, value = SWITCHES[flag]
        setattr(p, name, value)
        continue
    value = rest.pop(0)
    if flag == "--model": p.model.path = value
    elif flag == "--alias": p.model_alias = {{value}}
    elif flag == "--host": p.hostnames = [value]
    elif flag == "--threads": p.cpuparams.n_threads = int(value)
    elif flag == "--threads-batch": p.cpuparams_batch.n_threads = int(value)
    elif flag.startswith("--cache-type-"): setattr(p, "cache_type_" + flag[-1], xllamacpp.ggml_type["GGML_TYPE_" + value.upper()])
    elif flag == "--flash-attn": p.flash_attn_type = x.llama_flash_attn_type["LLAMA_FLASH_ATTN_TYPE_" + dict(on="ENABLED", off="DISABLED", auto="AUTO")[value]]
    elif flag == "--chat-template": p.chat_template = value
    elif flag == "--slot-save-path": p.slot_save_path = os.path.join(value, "")
    elif flag == "--reasoning": p.enable_reasoning, p.default_template_kwargs = int(value == "on"), {{"enable_thinking": str(value == "on").lower()}}
    elif flag == "--reasoning-format": p.reasoning_format = x.common_reasoning_format["COMMON_REASONING_FORMAT_" + value.upper()]
    elif flag == "--reasoning-budget": p.sampling.reasoning_budget_tokens = int(value)
    elif flag == "--pooling": p.pooling_type = x.llama_pooling_type["LLAMA_POOLING_TYPE_" + value.upper()]
    elif flag == "--spec-type": p.speculative.types = [x.common_speculative_type["COMMON_SPECULATIVE_TYPE_" + value.upper().replace("-", "_")]]
    elif flag == "--spec-draft-n-max": p.speculative.draft.n_max = int(value)
    elif flag == "--seed": p.sampling.seed = int(value)
    elif flag == "--fit": p.fit_params = value == "on"
    elif flag == "--load-mode": p.load_mode = x.llama_load_mode["LLAMA_LOAD_MODE_" + value.upper()]
    else:
        setattr(p, {{"--port": "port", "--ctx-size": "n_ctx", "--parallel": "n_parallel", "--verbosity": "verbosity",
                    "--batch-size": "n_batch", "--ubatch-size": "n_ubatch", "--cache-ram": "cache_ram_mib",
                    "--n-gpu-layers": "n_gpu_layers", "--cache-reuse": "n_cache_reuse", "--sleep-idle-seconds": "sleep_idle_seconds"}}[flag], int(value))
p.api_keys = [os.environ["LLAMA_API_KEY"]]
signal.signal(signal.SIGINT, signal.SIG_DFL)
server = xllamacpp.Server(p)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    time.sleep(0.1)
'''


def write(path: Path) -> Path:
    """The program, at ``path``."""
    path.write_text(_PROGRAM.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path

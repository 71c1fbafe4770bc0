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
--metrics / --slots / --no-slots / --ui, --webui, --no-ui, --no-webui / --no-warmup / --version
"""
if "--help" in sys.argv:
    print(HELP); sys.exit(0)
if "--version" in sys.argv:
    print("version: 0.1.0-dev (build 1, commit 7e4c0a9)", file=sys.stderr); sys.exit(0)
import xllamacpp
p = xllamacpp.CommonParams()
p.endpoint_slots = False
rest = sys.argv[1:]
while rest:
    flag = rest.pop(0)
    if flag not in HELP:
        print("error: invalid argument: " + flag, file=sys.stderr); sys.exit(1)
    if flag in ("--metrics", "--slots", "--no-kv-unified", "--no-ui", "--no-warmup"):
        name = {{"--metrics": "endpoint_metrics", "--slots": "endpoint_slots", "--no-kv-unified": "kv_unified", "--no-ui": "ui",
                "--no-warmup": "warmup"}}[flag]
        setattr(p, name, flag in ("--metrics", "--slots"))
        continue
    value = rest.pop(0)
    if flag == "--model": p.model.path = value
    elif flag == "--alias": p.model_alias = {{value}}
    elif flag == "--host": p.hostnames = [value]
    elif flag == "--threads": p.cpuparams.n_threads = int(value)
    elif flag == "--threads-batch": p.cpuparams_batch.n_threads = int(value)
    elif flag.startswith("--cache-type-"): setattr(p, "cache_type_" + flag[-1], xllamacpp.ggml_type["GGML_TYPE_" + value.upper()])
    else:
        setattr(p, {{"--port": "port", "--ctx-size": "n_ctx", "--parallel": "n_parallel", "--verbosity": "verbosity",
                    "--batch-size": "n_batch", "--ubatch-size": "n_ubatch", "--cache-ram": "cache_ram_mib"}}[flag], int(value))
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

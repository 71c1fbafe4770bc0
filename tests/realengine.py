"""The real llama.cpp engine in a process of its own, for tests of rooms that know nothing of our server room."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llamatelemetry_jupyter.models.catalogue import resolve

KEY = "secret-of-the-test"

_HOST = """
import sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.model_alias, p.api_keys = sys.argv[1], {"smol"}, [sys.argv[2]]
p.n_ctx, p.n_parallel, p.port, p.endpoint_metrics, p.endpoint_slots = 2048, 2, 0, True, True
p.cpuparams.n_threads = 2
if sys.argv[3].startswith("embeddings"):
    p.embedding, p.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    p.slot_save_path, p.endpoint_props = sys.argv[4] + "/", True
    # With slots of their own, texts of different lengths are pooled wrongly when they run together.
    p.kv_unified = sys.argv[3] != "embeddings-apart"
if sys.argv[3] == "rank":
    p.embedding, p.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
elif sys.argv[3].endswith(".jinja"):
    p.chat_template = open(sys.argv[3]).read()
p.warmup = False
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Engine:
    """Two slots of 1024 tokens; metrics and slots on, embeddings off."""

    url: str
    key: str
    process: subprocess.Popen[str]


def model_path() -> Path:
    """The demo model, fetched when it is not in the cache."""
    return Path(resolve("smollm2-135m").path)


@contextmanager
def running_engine(kind: str = "chat") -> Iterator[Engine]:
    """An engine that ends with the block, and also when this process dies (its input closes).

    ``embeddings``: started for embeddings (mean), saved slots and ``POST /props``; ``embeddings-apart``: with a KV
    cache for each slot, as somebody else may have started it; ``rank``: for ranking;
    the path of a ``.jinja`` file: with that chat template.
    """
    slots = tempfile.TemporaryDirectory(prefix="llamatelemetry-slots-")
    process = subprocess.Popen(
        [sys.executable, "-c", _HOST, str(model_path()), KEY, kind, slots.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), url
        yield Engine(url, KEY, process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        slots.cleanup()

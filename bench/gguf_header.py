"""Reading the header of a file with a vocabulary of 262,144 tokens: time and memory, beside ``gguf.GGUFReader``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ID = "gguf_header"
_TOKENS, _LAYERS = 262_144, 100
_ROUNDS = 5
_PEER_ROUNDS = 3
_PEER = "gguf.GGUFReader"
_FASTER, _SMALLER, _REPEATED_MS = 150, 20, 1.0

# Each in a process of its own: the rise of its peak resident size over the reading is what the reading took. Not
# ru_maxrss: a child inherits its parent's.
_PEAK = """
import re
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
_OURS = """
import sys, time
from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models._reader import parse
from llamatelemetry_jupyter.models.source import opened
path, small = sys.argv[1], sys.argv[2]
with opened(small) as source:
    parse(source)
before = peak()
begun = time.perf_counter()
with opened(path) as source:
    parse(source)
ms = (time.perf_counter() - begun) * 1e3
kib = peak() - before
gguf.read_header(path)
begun = time.perf_counter()
gguf.read_header(path)
print(ms, kib, (time.perf_counter() - begun) * 1e3)
"""
_THEIRS = """
import sys, time
from gguf import GGUFReader
GGUFReader(sys.argv[2])
before = peak()
begun = time.perf_counter()
GGUFReader(sys.argv[1])
print((time.perf_counter() - begun) * 1e3, peak() - before, 0)
"""


def run() -> list[dict[str, object]]:
    """One row: milliseconds for the header, medians over fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        path, small = _file(Path(folder) / "large.gguf", _TOKENS, _LAYERS), _file(Path(folder) / "small.gguf", 10, 1)
        ours, theirs = [], []
        for number in range(_ROUNDS):
            ours.append(_once(_OURS, path, small))
            if number < _PEER_ROUNDS:
                theirs.append(_once(_THEIRS, path, small))
        size = path.stat().st_size
    ms, peer_ms = statistics.median(x[0] for x in ours), statistics.median(x[0] for x in theirs)
    kib, peer_kib = max(statistics.median(x[1] for x in ours), 1), statistics.median(x[1] for x in theirs)
    again = statistics.median(x[2] for x in ours)
    return [
        {
            "id": ID,
            "what": f"header of a GGUF file with {_TOKENS:,} tokens and {_LAYERS * 10:,} tensors ({size / 2**20:.1f} MiB)",
            "unit": "ms",
            "ours": round(ms, 1),
            "peers": {_PEER: round(peer_ms)},
            "floor": None,
            "ratio": round(peer_ms / ms, 1),
            "goal": f"≥ {_FASTER} × faster, ≤ 1/{_SMALLER} of the memory, again ≤ {_REPEATED_MS:.0f} ms",
            "holds": peer_ms / ms >= _FASTER and kib * _SMALLER <= peer_kib and again <= _REPEATED_MS,
            "method": f"fresh process each, {_ROUNDS} and {_PEER_ROUNDS} rounds in turn, medians; ours "
            f"{min(x[0] for x in ours):.0f}..{max(x[0] for x in ours):.0f} ms; peak memory {kib / 1024:.1f} against "
            f"{peer_kib / 1024:.0f} MiB; read again unchanged: {again:.2f} ms; a test compares every field",
        }
    ]


def _once(script: str, path: Path, small: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK + script, path, small], check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()]


def _file(path: Path, tokens: int, layers: int) -> Path:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{n}" for n in range(tokens)])
    writer.add_token_scores([0.0] * tokens)
    writer.add_token_types([1] * tokens)
    for number in range(layers * 10):
        writer.add_tensor(f"blk.{number // 10}.part{number % 10}.weight", np.zeros((4, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))

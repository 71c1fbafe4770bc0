"""%llama gpu and %llama limits in a real IPython: without a GPU, on replayed cards, beside a real engine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from replayed import replayed_gpus

LOAD = "%load_ext llamatelemetry"


@pytest.fixture
def two_t4(tmp_path, monkeypatch):
    """Two Tesla T4 for every process that the test starts."""
    for name, value in replayed_gpus("t4x2", tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{Path(__file__).parents[1]}")


@pytest.mark.floor
def test_without_a_gpu_the_hosts_owners_are_shown_and_one_line_says_why(ipython):
    printed = ipython(LOAD, "view = %llama gpu", "view", "print(len(view.states), view.samples[0].device)")
    assert "no GPU: there is no NVIDIA driver here (libnvidia-ml.so.1)" in printed
    assert re.search(r"host memory +this kernel +[\d.]+ MiB +\d+\.\d % +measured", printed)
    assert re.search(r"host memory +free", printed)
    assert "NCCL" not in printed
    assert "0 host" in printed


@pytest.mark.floor
def test_cards_links_and_owners_of_two_t4(ipython, two_t4):
    printed = ipython(LOAD, "%llama gpu")
    assert re.search(r"GPU 0 · Tesla T4 +[\d.]+ [MG]iB of 15.0 GiB +\d+ % +\d+ of 70 W +\d+ °C", printed)
    assert re.search(r"GPU 1 · Tesla T4 .* 3 ×16 at most", printed)
    assert re.search(r"link +GPU 0 +GPU 1\nGPU 0 +– +PHB\nGPU 1 +PHB +–", printed)
    assert "PHB: over a PCIe host bridge; no peer access: copies go through the host (0–1)" in printed
    assert re.search("NVIDIA driver [0-9.]+", printed)
    assert re.search("NCCL: ", printed)
    assert len(re.findall(r"GPU \d · Tesla T4 +free", printed)) == 2
    assert re.search(r"host memory +this kernel", printed)


def test_a_recording_is_a_new_file_that_replays(ipython, two_t4, tmp_path):
    path = tmp_path / "mine.json"
    printed = ipython(LOAD, f"%llama gpu record {path} --seconds 0.5 --hz 10", f"%llama gpu record {path}")
    assert f"wrote {path}: " in printed
    assert f"{path} exists and is not overwritten" in printed
    trace = json.loads(path.read_text())
    assert (trace["format"], "recorded" in trace["origin"]) == ("llamatelemetry-nvml", True)
    assert "nvmlDeviceGetP2PStatus(gpu0, gpu1, 0)" in trace["calls"]


@pytest.mark.floor
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama gpu shwo", ["invalid choice: 'shwo'"]),
        ("%llama gpu show x.json", ["'x.json' is not read", "try: %llama gpu record FILE"]),
        ("%llama gpu record", ["where shall the recording go?", "try: %llama gpu record gpus.json"]),
        ("%llama gpu record x.json --seconds 0", ["--seconds must be more than 0", "try: --seconds 60"]),
        ("%llama gpu record x.json --seconds nan", ["--seconds must be more than 0"]),
        ("%llama gpu record x.json --hz 1000", ["--hz must be from 0.1 to 100", "try: --hz 20"]),
        ("%llama gpu record /no/such/x.json", ["there is no folder /no/such", "try: !mkdir -p /no/such"]),
        ("%llama gpu record x.json", ["no NVIDIA GPU answers here", "try: !nvidia-smi"]),
        ("%llama limits", ["no model was named and none is running", "try: %llama limits smollm2-135m --gpus 2xT4"]),
        ("%llama limits /no/such.gguf", ["there is no file /no/such.gguf"]),
        ("%llama limits smollm2-135m --gpus 2xT5", ["unknown card 'T5'"]),
        ("%llama limits smollm2-135m --ctx 0", ["--ctx must be from 1 to"]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


def test_what_a_cell_has_allocated_is_the_kernels_when_the_cell_ends(ipython, two_t4):
    printed = ipython(
        LOAD,
        "import sys; from gpu.faketorch import Torch; torch = sys.modules['torch'] = Torch(0, 0, uuids=False)",
        "from llamatelemetry_jupyter.session import current_session; current_session().sampler.start()",
        "torch.reserved = [0, 1 << 20]",
        "import time; until = time.time() + 20",
        "def held(): return [(o.process, o.bytes >> 20, o.source) for d in current_session().samples.latest().devices "
        "for o in d.owners[0] if o.process == 'torch']",
        "while not held() and time.time() < until: time.sleep(0.1)",
        "print(held())",
    )
    assert "[('torch', 1, 'estimate')]" in printed


@pytest.mark.floor
def test_limits_of_named_cards_follow_from_their_sheets(ipython, model_path):
    printed = ipython(
        LOAD,
        "one = %llama limits smollm2-135m --gpus T4 --ctx 2048",
        "two = %llama limits smollm2-135m --gpus 2xT4 --ctx 2048",
        "one",
        "print([[round(x.by_fill[n].decode_tokens_per_s) for n in (0, 2048)] for x in (one, two)])",
        "%llama limits smollm2-135m --gpus 12GB",
        "%llama limits smollm2-135m --gpus none",
        "import sys; print('numpy', 'numpy' in sys.modules)",
    )
    assert re.search(r"T4 +92.1 MiB +320 GB/s +135 million +65 TFLOPS +from spec sheet: NVIDIA T4 data sheet", printed)
    # 320 GB/s / 92.1 MiB of weights, and with 45 MiB of cache; layers on two cards are read one after the other.
    assert "[[3313, 2226], [3313, 2226]]" in printed
    assert "n/a, because no spec sheet is known for 12GB" in printed
    assert "the bandwidth of this machine's memory is not known: %llama limits --measure" in printed
    assert "numpy False" in printed


def test_limits_on_the_cards_that_are_here(ipython, two_t4):
    printed = ipython(LOAD, "%llama limits smollm2-135m")
    assert re.search(r"GPU 1 · Tesla T4 +[\d.]+ MiB +320 GB/s .* from spec sheet", printed)
    assert "no call to compare with: %llama chat Hello" in printed


@pytest.mark.engine
def test_the_last_call_is_compared_with_what_this_machines_memory_allows(ipython):
    printed = ipython(
        LOAD,
        "%llama start --ctx 1024",
        "%llama chat --max-tokens 16 Hello",
        "%llama limits --measure",
        "%llama gpu",
        "%llama stop",
    )
    assert re.search(r"this machine's memory +92.1 MiB +\d+ GB/s +135 million +n/a +measured", printed)
    assert re.search(
        r"the last call decoded [\d.]+ tokens/s, [\d.]+ % of the [\d.,]+ that \d+ tokens in the cache allow", printed
    )
    assert re.search(r"host memory +weights, mapped file +[\d.]+ MiB .* measured", printed)
    assert re.search(r"host memory +KV cache +22.5 MiB, .* filled .* the engine says so", printed)


def test_tab_knows_both(ipython):
    printed = ipython(
        "from llamatelemetry_jupyter.magics.complete import complete",
        "print(complete(None, '%llama gpu ', ''), complete(None, '%llama gpu record --s', '--s'))",
        "print(complete(None, '%llama limits sm', 'sm'), complete(None, '%llama lim', 'lim'))",
    )
    assert "['show', 'record'] ['--seconds']" in printed
    assert "'smollm2-1.7b'] ['limits']" in printed


@pytest.mark.engine
def test_a_call_beside_replayed_cards_has_their_energy_of_its_time(ipython, two_t4):
    printed = ipython(
        LOAD,
        "%llama start --ctx 512",
        "%llama chat --max-tokens 8 Hello",
        "import time; from llamatelemetry_jupyter.session import current_session; spans = current_session().spans",
        "chat = lambda: next(r for r in spans.rows() if r.name.startswith('chat'))",
        "until = time.time() + 20\nwhile chat().energy_j is None and time.time() < until: time.sleep(0.1)",
        "row = chat()",
        "print('measured', row.energy_j > 0, row.attributes['llama_cpp.gpu.energy_source'], row.attributes['llama_cpp.gpu.util_max'])",
        "%llama trace",
        "%llama stop",
    )
    assert re.search(r"measured True counter [\d.]+", printed), printed
    assert re.search(
        r"└─ chat .* peak [\d.]+ MiB, [\d.,]+ J, [\d.e+]+ J/token \(whole GPU\), GPU busy \d+ %", printed
    ), printed

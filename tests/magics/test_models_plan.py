"""%llama models and %llama plan in a real IPython: known names, files, bad input, and the check against the engine."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.floor

LOAD = "%load_ext llamatelemetry"


def test_a_model_and_a_plan_are_shown_without_a_server(ipython, model_path):
    printed = ipython(
        LOAD,
        "%llama models info smollm2-135m --ctx 2048",
        "%llama plan smollm2-135m --gpus 2xT4 --slots 2",
        f"%llama plan {model_path} --gpus none --ctx 16384 --kv q8_0",
        f"%llama plan {model_path} --gpus none --ctx 2048 --kv q8_0,f16",
        "%llama plan smollm2-135m --gpus 12GB --gpu-layers 10",
        "import sys; print('engine', 'xllamacpp' in sys.modules, 'numpy' in sys.modules)",
    )
    assert "STOPPED" not in printed
    assert re.search(r"parameters +134,515,008", printed)
    assert re.search(r"0 to 29 +all tokens +2.1 MiB +1.5 MiB", printed)
    assert re.search(r"T4 #0 +0 to 15 .* 192 MiB", printed)
    assert "context: 8,192 tokens for each slot, 2 slots" in printed
    assert "placed: 31 of 31 layers (with the output) on GPU" in printed
    assert "start it: %llama start smollm2-135m --ctx 8192 --slots 2" in printed
    assert "16,384 tokens are more than the model was trained for: 8,192" in printed
    assert re.search(r"host +0 to 29 +92.1 MiB +34.5 MiB", printed)
    assert "placed: 10 of 31 layers" in printed
    assert "engine False False" in printed


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llama models info", ["which model shall be shown?", "try: %llama models info NAME"]),
        ("%llama models show x.gguf", ["invalid choice: 'show'"]),
        ("%llama models info /no/such.gguf", ["there is no file /no/such.gguf"]),
        ("%llama models info smolm2-135m", ["did you mean smollm2-135m?"]),
        ("%llama models info hf:nonsense", ["no address of a model", "try: hf:OWNER/REPOSITORY:Q4_K_M"]),
        ("%llama models info /", ["is a folder"]),
        ("%llama plan", ["no model was named and none is running", "try: %llama plan smollm2-135m --gpus 2xT4"]),
        ("%llama plan smollm2-135m --gpus 2xT5", ["unknown card 'T5'"]),
        ("%llama plan smollm2-135m --gpus none --ctx 0", ["--ctx must be from 1 to"]),
        ("%llama plan smollm2-135m --gpus none --kv q3_k", ["KV cache type 'q3_k'"]),
        ("%llama plan smollm2-135m --gpus none --kv f16,q2_k", ["KV cache type 'q2_k'"]),
        ("%llama plan smollm2-135m --gpus none --kv q8_0 --flash off", ["needs flash attention", "try: --flash on"]),
        ("%llama plan smollm2-135m --gpus none --gpu-layers -1", ["--gpu-layers must be 0 or more"]),
        ("%llama plan --check", ["no server is running: there is nothing to compare", "try: %llama start"]),
    ],
)
def test_bad_input_is_two_lines_and_the_run_stops(refused, cell, says):
    refused(cell, says)


def test_tab_knows_the_new_commands(ipython):
    printed = ipython(
        "from llamatelemetry_jupyter.magics.complete import complete",
        "print(complete(None, '%llama models ', ''), complete(None, '%llama models info sm', 'sm'))",
        "print(complete(None, '%llama plan sm', 'sm'), '--gpus' in complete(None, '%llama plan --', '--'))",
    )
    assert "['list', 'info', 'pull', 'rm'] ['smollm2-135m', 'smollm2-360m', 'smollm2-1.7b']" in printed
    assert "'smollm2-1.7b'] True" in printed


@pytest.mark.engine
def test_a_running_server_is_compared_with_its_plan(ipython):
    printed = ipython(
        LOAD, "%llama start --ctx 1024 --slots 2", "%llama plan --check", "%llama plan --gpus none", "%llama stop",
        "%llama plan --check",
    )  # fmt: skip
    for what, bytes_ in (
        ("weights", "92.1 MiB"),
        ("KV cache", "45.0 MiB"),
        ("compute buffers", "15.6 MiB"),
        ("sum", "153 MiB"),
    ):
        assert re.search(rf"CPU +{what} +{bytes_} +{bytes_} +0.00 %", printed), printed
    assert "Q4_1, 93.8 MiB on this machine's memory" in printed  # the running model, when none is named
    # IPython's history thread may complain behind it, while the interpreter ends.
    assert "no server is running: there is nothing to compare\n  try: %llama start\nSTOPPED" in printed


#: What is typed, and the owner whose figure it changes.
CHECKED = (
    "--ctx 2048 --cache-type-k q8_0 --cache-type-v f16",
    "--ctx 2048 --slots 4 --kv-unified --flash-attention off",
    "--ctx 512 --slots 3 --ubatch 128 --load-mode none",
    "--ctx 4096 --batch 1024 --ubatch 1024 --cache-type-k q4_0",
    "--ctx 512 --slots 2 --embeddings",
    "--ctx 512 --reranking",
)


@pytest.mark.engine
def test_check_takes_everything_from_the_servers_own_settings(ipython):
    cells = [cell for typed in CHECKED for cell in (f"%llama start --no-warmup {typed}", "%llama plan --check")]
    printed = ipython(LOAD, *cells, "%llama stop")
    tables = printed.split("device  what")[1:]
    assert len(tables) == len(CHECKED)
    for typed, table in zip(CHECKED, tables, strict=True):
        rows = re.findall(r"CPU +(weights|KV cache|compute buffers|output buffer|sum) .* ([-+]?[\d.]+) %", table)
        assert [what for what, _ in rows] == ["weights", "KV cache", "compute buffers", "output buffer", "sum"]
        errors = {what: float(error) for what, error in rows}
        assert errors["weights"] == errors["KV cache"] == 0, typed
        assert abs(errors["sum"]) <= 2, typed

"""%llama models and %llama start with names and addresses, in a real IPython, against a hub on loopback."""

from __future__ import annotations

import re

import pytest

LOAD = "%load_ext llamatelemetry"
SMOL = "someone/SmolLM2-GGUF"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face with a tiny model in two forms; its cache and ours are empty."""
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("gguf")
    from ggufs import Shape, write
    from hubhost import Repo, hugging_face

    forms = {
        f"Tiny-{kind}.gguf": write(tmp_path / kind, Shape(layers=1, kind=kind)).read_bytes()
        for kind in ("Q4_0", "Q8_0")
    }
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with hugging_face() as running:
        running.repos["someone/Tiny-GGUF"] = Repo(forms)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
        yield running


def test_fetch_list_delete(hub, ipython, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "ours"))
    printed = ipython(
        LOAD,
        "%llama models pull hf:someone/Tiny-GGUF",
        "%llama models list --here",
        "%llama models rm hf:someone/Tiny-GGUF/Tiny-Q8_0.gguf",
        "import builtins; answers = ['n', 'y']",
        "builtins.input = lambda question: print(question) or answers.pop(0)",
        "%llama models rm Tiny-Q8_0.gguf",
        "%llama models list --here",
        "%llama models rm Tiny-Q8_0.gguf",
        "%llama models list --here",
    )
    assert re.search(r"Q8_0 \([\d.]+ [KM]iB\): the largest that fits the [\d.]+ [GM]iB free", printed)
    assert "downloading" not in printed, "what takes no half second shows its result alone"
    sha256 = hub.repos["someone/Tiny-GGUF"].sha256("Tiny-Q8_0.gguf")
    assert re.search(rf"Tiny-Q8_0 · Q8_0 · .* · SHA-256 {sha256[:16]}… · /", printed)
    assert re.search(r"hf:someone/Tiny-GGUF/Tiny-Q8_0.gguf +n/a +n/a +n/a +[\d.]+ KiB +(host|GPU)", printed)
    # Nobody is there to say yes: nothing is deleted.
    assert "CommandError: nobody is there to confirm it" in printed
    assert "try: %llama models rm hf:someone/Tiny-GGUF/Tiny-Q8_0.gguf --yes" in printed
    assert printed.count("Delete it from Hugging Face's cache, which other programs use, too? [y/N]") == 3
    assert "nothing was deleted" in printed
    assert printed.count("hf:someone/Tiny-GGUF/Tiny-Q8_0.gguf  ") == 2  # listed before and after the no
    assert printed.index("\ndeleted: ") < printed.index("no model is on this machine")


@pytest.mark.floor
def test_the_list_needs_no_hub_and_asks_nobody(ipython):
    printed = ipython(LOAD, "%llama models")
    lines = printed.splitlines()
    smol = next(line for line in lines if line.startswith("smollm2-135m "))
    assert re.search(r"135M +Apache-2\.0 +no +Q4_1 93\.8 MiB +Q4_1 \((host|GPU)\)", smol)  # by the plan
    assert re.search(r"^smollm2-360m .* ≈ Q8_0 \((host|GPU)\)", printed, re.MULTILINE)  # by a bound
    assert re.search(r"^llama3\.1-8b +8\.03B +LicenseRef-Llama-3\.1 +original only", printed, re.MULTILINE)
    assert re.search(r"^gemma3-4b-qat .* yes ", printed, re.MULTILINE)


@pytest.mark.floor
def test_what_fits_is_planned_where_the_file_is_here_and_bounded_where_not(model_path, tmp_path):
    from llamatelemetry_jupyter.magics.commands.models import _fits, _stored_fits
    from llamatelemetry_jupyter.models.catalogue import entry_of
    from llamatelemetry_jupyter.models.fit import Free
    from llamatelemetry_jupyter.models.store import Stored

    smol, mib = entry_of("smollm2-135m"), 1 << 20
    here = Stored(str(model_path), "smollm2-135m:Q4_1", (model_path,), model_path.stat().st_size, "ours")
    # With 8,192 tokens it needs 295 MiB, and a fifth of what is free stays free; the bound asks for 612 MiB.
    assert _fits(smol, [here], Free((), 400 * mib)) == "Q4_1 (host)"
    assert _fits(smol, [], Free((), 400 * mib)) == "no"
    assert _fits(smol, [], Free((), 700 * mib)) == "≈ Q4_1 (host)"
    assert _fits(smol, [here], Free((), 300 * mib)) == "no"
    assert _fits(smol, [here], Free((1024 * mib,), 700 * mib)) == "Q4_1 (part on the host)"
    assert _stored_fits(here, Free((), 400 * mib)) == "host"
    damaged = tmp_path / "x.gguf"
    damaged.write_bytes(b"no header")
    assert _stored_fits(Stored("x", None, (damaged,), 9, "ours"), Free((), 700 * mib)) == "≈ host"


@pytest.mark.floor
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%llama models pull", ["which model shall be fetched?", "try: %llama models pull NAME"]),
        ("%llama models rm", ["which model shall be deleted?", "try: %llama models rm NAME"]),
        ("%llama models rm nothing", ["nothing is in none of the caches", "try: %llama models list --here"]),
        ("%llama models pul x", ["invalid choice: 'pul'", "try: %llama models --help"]),
        ("%llama models pull smolm2", ["did you mean smollm2", "try: %llama start smollm2"]),
        ("%llama start hf:x", ["'hf:x' is no address of a model", "try: hf:OWNER/REPOSITORY"]),
        ("%llama start https://host/x.gguf", ["only with the SHA-256", "try: https://host/x.gguf#sha256=…"]),
    ],
)
def test_bad_input_is_two_lines(refused, line, said):
    refused(line, said)


def test_what_a_model_is_without_fetching_it(hub, ipython):
    printed = ipython(
        LOAD, "%llama models info hf:someone/Tiny-GGUF:Q8_0", "%llama plan hf:someone/Tiny-GGUF --gpus T4"
    )
    assert "STOPPED" not in printed
    assert re.search(r"parameters +721,664", printed)
    assert all(asked is not None for _, asked in hub.sent())


@pytest.mark.floor
def test_free_memory_is_that_of_the_cards_and_of_what_will_be_stopped(monkeypatch):
    from llamatelemetry_jupyter.models.plan import CONTEXT_BYTES
    from llamatelemetry_jupyter.server import available
    from llamatelemetry_jupyter.server.machine import Machine
    from llamatelemetry_jupyter.values import DeviceInfo, EngineBuffer, ServerHandle

    gib = 1 << 30
    cards = tuple(
        DeviceInfo(f"GPU-{n}", "Tesla T4", 15 * gib, free, "7.5") for n, free in enumerate((gib, 3 * gib, None))
    )
    machine = Machine("linux", "x86_64", "2.35", "550.54", cards, False)
    monkeypatch.setattr(Machine, "here", classmethod(lambda _: machine))
    assert available.free().gpus == (gib, 3 * gib)  # one card does not say
    buffers = (EngineBuffer("CUDA0", "weights", 4 * gib), EngineBuffer("CPU", "weights", 900 * gib))
    ending = ServerHandle("x", "", None, "llama.cpp", True, None, None, None, 1, 512, buffers=buffers)
    ended = available.free(ending)
    assert ended.gpus == (3 * gib + CONTEXT_BYTES // 2, 5 * gib + CONTEXT_BYTES // 2)
    assert ended.host_bytes < 900 * gib  # a mapped file counts as free already
    machine = Machine("linux", "x86_64", "2.35", None, (), False)
    assert available.free(ending).gpus == ()


@pytest.mark.engine
def test_start_from_a_hub(hub, ipython, model_path):
    """The engine's first start fetches the model, the second finds the server, and what is served cannot be deleted."""
    from hubhost import Repo

    hub.repos[SMOL] = Repo({"SmolLM2-Q4_1.gguf": model_path.read_bytes()})
    printed = ipython(
        LOAD,
        f"%llama start hf:{SMOL}:Q4_1 --ctx 512 --slots 1",
        "%llama chat -n 4 -t 0 Hello",
        f"%llama start hf:{SMOL}/SmolLM2-Q4_1.gguf --ctx 512 --slots 1",
        f"%llama models rm hf:{SMOL}/SmolLM2-Q4_1.gguf --yes",
        "%llama start --ctx 256 --slots 1 --restart",
        "%llama stop",
    )
    started = re.findall(
        r"^(already running: |restarted: )?SmolLM2-Q4_1 · .* 1 slot with (\d+) tokens each", printed, re.MULTILINE
    )
    assert started == [("", "512"), ("already running: ", "512"), ("restarted: ", "256")]
    assert f"ModelError: hf:{SMOL}/SmolLM2-Q4_1.gguf is being served" in printed
    assert printed.count("STOPPED") == 1
    assert len(hub.sent()) == 1


@pytest.mark.engine
def test_a_name_alone_stays_with_the_form_that_is_running(ipython):
    printed = ipython(
        LOAD,
        "%llama start smollm2-135m:Q4_1 --ctx 512 --slots 1",
        "%llama start smollm2-135m --ctx 512 --slots 1",
        "%llama start --ctx 256 --slots 1 --restart",
        "%llama stop",
    )
    started = re.findall(
        r"^(already running: |restarted: )?smollm2-135m:Q4_1 · .* with (\d+) tokens each", printed, re.MULTILINE
    )
    assert started == [("", "512"), ("already running: ", "512"), ("restarted: ", "256")]


def test_tab_knows_actions_names_and_addresses_start(ipython):
    printed = ipython(
        LOAD,
        "from llamatelemetry_jupyter.magics.complete import complete",
        "print(complete(None, '%llama models ', ''), complete(None, '%llama models p', 'p'))",
        "print(complete(None, '%llama models pull qwen3-1', 'qwen3-1'), complete(None, '%llama start llama3', 'llama3'))",
    )
    assert "['list', 'info', 'pull', 'rm'] ['pull']" in printed
    assert "['qwen3-1.7b', 'qwen3-14b'] ['llama3.2-1b', 'llama3.2-3b', 'llama3.1-8b']" in printed

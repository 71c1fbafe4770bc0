"""notebooks/04-memory.ipynb tells its story on a machine without a GPU, and on one where every process sees two T4."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from replayed import replayed_gpus

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "04-memory.ipynb"

pytestmark = pytest.mark.engine


class Story:
    """What each command of an executed notebook showed, as text."""

    def __init__(self, folder: Path) -> None:
        from rig import execute  # needs a browser's driver to be importable

        self.html = ""
        self._shown: dict[str, str] = {}
        for cell in execute(NOTEBOOK, folder / "memory.ipynb").cells:
            if cell.cell_type == "code":
                data = [output.get("data", {}) for output in cell.outputs]
                texts = [str(o.get("text") or d.get("text/plain", "")) for o, d in zip(cell.outputs, data, strict=True)]
                self._shown[cell.source] = "\n".join(texts)
                self.html += "".join(str(d.get("text/html", "")) for d in data)

    def of(self, command: str) -> str:
        (found,) = [text for source, text in self._shown.items() if source.startswith(command)]
        return found


def size(text: str) -> float:
    """Bytes of ``92.1 MiB``."""
    number, unit = text.split()
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit)


def the_plan_held(story: Story) -> None:
    planned = story.of("%llama plan smollm2-135m --gpus 2xT4")
    assert "placed: 31 of 31 layers" in planned
    assert len(re.findall(r"^T4 #[01] .* left$", planned, re.M)) == 2
    assert "fits" in planned
    # Bytes and speed are of the same plan: what a token reads are the weights on that card.
    limits = story.of("%llama limits smollm2-135m --gpus 2xT4")
    for card in ("T4 #0", "T4 #1"):
        (weights,) = re.findall(rf"^{card} +\d+ to \d+ +([\d.]+ MiB)", planned, re.M)
        assert re.search(rf"^{card} +{re.escape(weights)} +320 GB/s", limits, re.M)
    compared = story.of("%llama plan --check")
    (predicted, actual), *others = re.findall(r" sum +([\d.]+ MiB) +([\d.]+ MiB) ", compared)
    assert others == []
    assert abs(size(predicted) - size(actual)) <= max(0.02 * size(actual), 4 << 20)


def the_call_was_watched(story: Story) -> None:
    shown = story.of("%llama dashboard")
    assert re.search(r"KV cache +90\.0 MiB, [\d.]+ MiB filled", shown)
    assert re.search(r"this kernel +\d", shown)
    trace = story.of("%llama trace")
    (peak,) = re.findall(r"chat smollm2-135m .* peak ([\d.]+ MiB)", trace)
    assert size(peak) > 90 << 20  # the engine holds at least its cache
    assert re.search(r"chat smollm2-135m .* ok ", story.of("%llama spans"))
    reached = re.search(
        r"the last call decoded ([\d.,]+) tokens/s, [\d.]+ % of the ([\d.,]+)", story.of("%llama limits --measure")
    )
    assert reached is not None
    assert 0 < float(reached[1].replace(",", "")) < float(reached[2].replace(",", ""))


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has a GPU")
def test_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    story = Story(tmp_path)
    the_plan_held(story)
    the_call_was_watched(story)
    assert "no GPU backend" not in story.of("%llama start")
    gpu = story.of("%llama gpu")
    assert gpu.startswith("no GPU: ")
    assert re.search(r"^host memory +KV cache +90\.0 MiB", gpu, re.M)
    # Nothing is made up where no card tells its power.
    assert "J/token" not in story.of("%llama trace") + story.of("%llama spans")
    assert "Tesla" not in story.html


def test_with_two_t4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in replayed_gpus("t4x2", tmp_path / "gpus").items():
        monkeypatch.setenv(name, value)
    story = Story(tmp_path)
    the_plan_held(story)
    the_call_was_watched(story)
    assert "2 GPUs (Tesla T4) are there, but this engine has no GPU backend" in story.of("%llama start")
    for number in (0, 1):
        assert re.search(rf"GPU {number} · Tesla T4 +[\d.]+ [MG]iB of 15\.0 GiB used", story.of("%llama dashboard"))
    gpu = story.of("%llama gpu")
    assert re.search(r"^GPU 1 · Tesla T4 +[\d.]+ [MG]iB of 15\.0 GiB .* of 70 W ", gpu, re.M)
    assert re.search(r"^GPU 0 +– +PHB$", gpu, re.M)
    trace = story.of("%llama trace")
    # On a machine so busy that the sampler missed seconds of the call, the call itself has none: parts of it have.
    assert re.search(r"[\d,.]+ J.* \(whole GPU\)", trace), trace
    for tokens, joules, each in re.findall(r"chat .* → (\d+) tokens.*?([\d,.]+) J, ([\d,.]+) J/token", trace):
        assert float(each) == pytest.approx(float(joules.replace(",", "")) / int(tokens), rel=0.01)
    assert "Tesla T4" in story.html

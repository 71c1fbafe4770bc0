"""A model and a plan as pictures, tables and text: the same numbers in all, harmless whatever the file says."""

from __future__ import annotations

import re

import pytest
from hostile import WORDS
from viewworld import drawn, words

from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.header import GGUFHeader, Part, TensorInfo
from llamatelemetry_jupyter.models.plan import Device, placed, plan
from llamatelemetry_jupyter.models.shape import shape_of
from llamatelemetry_jupyter.values import EngineBuffer
from llamatelemetry_jupyter.views.models import model_view
from llamatelemetry_jupyter.views.plan import comparison, plan_view

pytestmark = pytest.mark.floor

GIB = 1 << 30
HOST = Device("host", 16 * GIB, "host")


def header(word: str = "tiny", arch: str = "gemma3", **more) -> GGUFHeader:
    """Six layers, five of them windowed, every text ``word``."""
    names = ["token_embd", *(f"blk.{n}.{part}" for n in range(6) for part in ("attn_q", "ffn_down"))]
    tensors = tuple(TensorInfo(f"{name}.weight", "F16", (512, 1024), n << 20, 1 << 20) for n, name in enumerate(names))
    metadata = {
        "general.name": word, "general.license": word, "tokenizer.ggml.model": word, "tokenizer.chat_template": word,
        f"{arch}.rope.scaling.type": word, f"{arch}.block_count": 6, f"{arch}.embedding_length": 512,
        f"{arch}.attention.head_count": 8, f"{arch}.attention.head_count_kv": 2, f"{arch}.context_length": 32768,
        f"{arch}.attention.sliding_window": 512, f"{arch}.feed_forward_length": 1024, f"{arch}.vocab_size": 1024,
    }  # fmt: skip
    return GGUFHeader(3, "<", arch, (Part("/m.gguf", 14 << 20, 0),), {**metadata, **more}, tensors)


def check(html: str) -> None:
    outside = html[: html.index("src=")] + html[html.index('">', html.index("base64,")) :]
    assert not re.search(r"<(script|style|svg|iframe|object|b\b)|<img [^>]*onerror", outside, re.I)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
    assert {e.tag.partition("}")[2] for e in drawn(html).iter()} <= {"svg", "defs", "pattern", "rect", "path", "text"}
    assert len(html.encode("utf-8", "replace")) < 150_000


def test_a_model_is_shown_with_its_layers_windows_and_parts():
    made = header()
    view = model_view(made, shape_of(made), Demand(8192))
    check(view._repr_html_())
    assert "memory by layer" in words(view._repr_html_())
    text = str(view)
    for said in (
        "gemma3",
        "6,815,744",
        "6 of width 512, 1 attention, 5 window of 512",
        "8, key/value 2",
        "32,768 tokens",
    ):
        assert said in text
        assert said in view._repr_html_()
    # 0 to 4 see 1,024 cells, the last one all 8,192: keys and values of 2 × 64 halves each.
    assert re.search(r"0 to 4 +512 tokens +2.0 MiB +512 KiB", text)
    assert re.search(r"5 +all tokens +2.0 MiB +4.0 MiB", text)
    assert re.search(r"attention +6 +3,145,728 +F16 +6.0 MiB", text)


@pytest.mark.parametrize("word", WORDS)
def test_a_files_texts_are_shown_and_nothing_more(word):
    made = header(word)
    view = model_view(made, shape_of(made), Demand(8192))
    check(view._repr_html_())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", str(view))
    assert max(map(len, str(view).splitlines())) < 140
    shown = plan_view(word, plan(shape_of(made), (Device(word, GIB * 4, "gpu"),), HOST, Demand()), [word])
    check(shown._repr_html_())


def test_a_plan_says_per_device_what_it_holds_and_the_context_per_slot():
    shape = shape_of(header())
    found = plan(
        shape, (Device("T4 #0", 14 * GIB, "gpu"), Device("T4 #1", 14 * GIB, "gpu")), HOST, Demand(4096, slots=3)
    )
    view = plan_view("tiny on 2xT4", found, ["largest context: 32,768"])
    html = view._repr_html_()
    check(html)
    for said in (
        "T4 #0",
        "T4 #1",
        "host",
        "context: 4,096 tokens for each slot, 3 slots",
        "placed: 7 of 7 layers",
        "fits",
    ):
        assert said in str(view)
        assert said in html
    assert {"T4 #0", "T4 #1", "tiny on 2xT4"} <= set(words(html).split("\n"))
    assert view.plan is found


def test_what_does_not_fit_says_how_much_is_missing_where():
    shape = shape_of(header())
    found = placed(shape, (Device("small", GIB, "gpu"),), HOST, Demand(), 7)
    view = plan_view("tiny", found, [])
    assert re.search(r"does not fit: \d+ MiB short on small", str(view))
    check(view._repr_html_())
    shared = placed(shape, (), HOST, Demand(2048, slots=2, unified=True), 0)
    assert "context: 4,096 tokens shared by the slots, 2 slots" in str(plan_view("tiny", shared, []))


def test_an_approximate_cache_is_called_an_estimate():
    made = header(arch="deepseek4")
    shape = shape_of(made)
    assert "cache not modelled" in str(model_view(made, shape, Demand()))
    assert "an estimate: deepseek4" in str(plan_view("x", plan(shape, (), HOST, Demand()), []))


def test_predicted_and_actual_stand_side_by_side_for_each_device():
    mib = 1 << 20
    predicted = [
        EngineBuffer("CUDA0", "weights", 400 * mib), EngineBuffer("CUDA0", "kv", 50 * mib),
        EngineBuffer("CUDA0", "context", 450 * mib), EngineBuffer("CPU", "weights", 100 * mib),
    ]  # fmt: skip
    actual = [
        EngineBuffer("CPU", "weights", 50 * mib), EngineBuffer("CPU", "weights", 50 * mib + 5000),  # 0.01 MiB is printed
        EngineBuffer("CUDA0", "weights", 400 * mib), EngineBuffer("CUDA0", "kv", 100 * mib),
        EngineBuffer("<b>1", "kv", mib),
    ]  # fmt: skip
    table = comparison(predicted, actual, ["a draft model"])
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["CUDA0", "KV cache"] == ("50.0 MiB", "100 MiB", "-50.00 %")
    assert rows["CUDA0", "sum"] == ("450 MiB", "500 MiB", "-10.00 %")
    assert rows["CUDA0", "CUDA context"] == ("450 MiB", "n/a", "n/a")
    assert rows["CPU", "weights"] == ("100 MiB", "100 MiB", "0.00 %")
    assert rows["<b>1", "sum"] == ("n/a", "1.0 MiB", "n/a")
    assert rows["", "a draft model"][0] == "not counted"
    assert "<b>" not in table._repr_html_()
    dropped = {row[:2]: row[2:] for row in comparison(predicted, actual[:2]).rows}
    assert dropped["CUDA0", "weights"] == ("400 MiB", "n/a", "n/a")

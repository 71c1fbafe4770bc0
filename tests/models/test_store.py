"""What is on this machine, in three caches, and what deleting leaves behind: nothing of the model, all of the rest."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("gguf")
huggingface_hub = pytest.importorskip("huggingface_hub")

from ggufs import Shape, write  # noqa: E402
from hubhost import Repo, hugging_face  # noqa: E402
from huggingface_hub import constants  # noqa: E402

from llamatelemetry_jupyter.models import catalogue, store  # noqa: E402

BGE = "CompendiumLabs/bge-small-en-v1.5-gguf"
LARGE, SMALL = "bge-small-en-v1.5-q8_0.gguf", "bge-small-en-v1.5-q4_k_m.gguf"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", Shape(layers=1, kind="Q4_0"))


@pytest.fixture
def caches(tiny, tmp_path, monkeypatch):
    """Our cache with one file, Hugging Face's with two forms of a named model and an unnamed one, kagglehub's with one."""
    ours, kaggle = tmp_path / "ours" / "models", tmp_path / "kaggle" / "models" / "a" / "b" / "gguf" / "c"
    (ours / "0123456789abcdef").mkdir(parents=True)
    shutil.copy(tiny, ours / "0123456789abcdef" / "mine.gguf")
    (kaggle / "2").mkdir(parents=True)
    shutil.copy(tiny, kaggle / "2" / "k-Q4_0.gguf")
    (kaggle / "2.complete").touch()
    shutil.copy(tiny, kaggle / "half.gguf")
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    content = tiny.read_bytes()
    with hugging_face() as hub:
        hub.repos[BGE] = Repo({LARGE: content + bytes(32), SMALL: content})
        hub.repos["x/y"] = Repo({"y.gguf": content + bytes(64)})
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        for address in ("bge-small:Q8_0", "bge-small:Q4_K_M", "hf:x/y"):
            catalogue.resolve(address)
        yield hub


def files(tmp_path, *where):
    found = tmp_path.joinpath(*where).rglob("*")
    return sorted(path.name for path in found if (path.is_file() or path.is_symlink()) and ".locks" not in path.parts)


def test_every_cache_is_looked_into(caches, tmp_path):
    assert [(one.owner, one.name, one.address) for one in store.stored()] == [
        ("ours", None, str(tmp_path / "ours" / "models" / "0123456789abcdef" / "mine.gguf")),
        ("Hugging Face", "bge-small:Q4_K_M", f"hf:{BGE}/{SMALL}"),
        ("Hugging Face", "bge-small:Q8_0", f"hf:{BGE}/{LARGE}"),
        ("Hugging Face", None, "hf:x/y/y.gguf"),
        ("Kaggle", None, "kaggle:a/b/gguf/c/2/k-Q4_0.gguf"),
    ]
    for one in store.stored():
        assert catalogue.resolve(one.address).file_bytes == one.bytes


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("bge-small", {"bge-small:Q4_K_M", "bge-small:Q8_0"}),
        ("BGE-small:q8_0", {"bge-small:Q8_0"}),
        (f"hf:{BGE}/{LARGE}", {"bge-small:Q8_0"}),
        ("mine.gguf", {None}),
        ("bge", set()),
        ("", set()),
    ],
)
def test_what_is_meant(caches, said, meant):
    assert {one.name for one in store.stored() if one.called(said)} == meant


def test_deleting_one_form_leaves_the_other(caches, tmp_path):
    (model,) = (one for one in store.stored() if one.name == "bge-small:Q8_0")
    store.remove(model)
    assert [one.name for one in store.stored() if one.name] == ["bge-small:Q4_K_M"]
    digests = [caches.repos[BGE].sha256(SMALL)]
    assert files(tmp_path, "hub", "models--CompendiumLabs--bge-small-en-v1.5-gguf") == sorted([*digests, SMALL, "main"])
    assert huggingface_hub.hf_hub_download(BGE, SMALL, local_files_only=True)


def test_a_blob_that_another_version_shows_stays(caches, tiny, tmp_path):
    caches.repos[BGE] = Repo({SMALL: tiny.read_bytes()}, commit="e" * 40)
    catalogue.pull("bge-small:Q4_K_M")
    new, old = sorted((one for one in store.stored() if SMALL in one.address), key=lambda one: one.name or "~")
    assert old.address == f"hf:{BGE}@{'a' * 40}/{SMALL}"
    store.remove(new)
    assert catalogue.resolve(old.address).file_bytes == new.bytes


def test_deleting_everything_leaves_empty_caches(caches, tmp_path):
    for model in store.stored():
        store.remove(model)
    assert store.stored() == []
    assert files(tmp_path, "hub") == ["CACHEDIR.TAG"] or files(tmp_path, "hub") == []
    assert files(tmp_path, "ours") == []
    assert files(tmp_path, "kaggle") == ["half.gguf"]  # what kagglehub does not call whole is not ours to judge

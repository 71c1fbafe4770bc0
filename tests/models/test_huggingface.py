"""Models of Hugging Face, from a hub on loopback that the real huggingface_hub speaks to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple

import pytest

gguf_py = pytest.importorskip("gguf")
huggingface_hub = pytest.importorskip("huggingface_hub")

from ggufs import Shape, write  # noqa: E402
from hubhost import Repo, hugging_face  # noqa: E402
from huggingface_hub import constants  # noqa: E402

from llamatelemetry_jupyter import _files, _https, secrets  # noqa: E402
from llamatelemetry_jupyter.errors import FetchError, GGUFError, LlamaError, ModelError  # noqa: E402
from llamatelemetry_jupyter.models import catalogue, fit, huggingface, source  # noqa: E402
from llamatelemetry_jupyter.models.fit import Free  # noqa: E402

TINY = "someone/Tiny-GGUF"
FORMS = ("Q4_0", "Q8_0", "F16")


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """The same tiny model in three forms: file name → bytes."""
    folder = tmp_path_factory.mktemp("forms")
    return {
        f"Tiny-{kind}.gguf": write(folder / f"{kind}.gguf", Shape(layers=1, kind=kind)).read_bytes() for kind in FORMS
    }


@pytest.fixture
def hub(forms, tmp_path, monkeypatch):
    """The hub with one repository, an empty cache, and no token."""
    monkeypatch.setattr(_https, "_WAIT_S", 0.0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hugging_face() as running:
        running.repos[TINY] = Repo({**forms, "mmproj-Tiny-F16.gguf": b"no model"})
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": running.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(source, "_HF_HOST", running.url)
        yield running


def blobs(tmp_path, repo=TINY):
    folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "blobs"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_form_is_fetched_once_into_the_cache_that_all_tools_share(hub, tmp_path, forms):
    seen = []
    ref = catalogue.resolve(f"hf:{TINY}:q8_0", lambda step: seen.append((step.what, step.fraction)))
    assert (ref.id, ref.quant, ref.sha256) == ("Tiny-Q8_0", "Q8_0", hub.repos[TINY].sha256("Tiny-Q8_0.gguf"))
    assert blobs(tmp_path) == [ref.sha256]
    assert ("downloading Tiny-Q8_0.gguf", 1.0) in seen
    assert ("checking Tiny-Q8_0.gguf", 1.0) in seen
    assert huggingface_hub.try_to_load_from_cache(TINY, "Tiny-Q8_0.gguf") == ref.path
    assert huggingface_hub.hf_hub_download(TINY, "Tiny-Q8_0.gguf", local_files_only=True) == ref.path
    assert [len(repo.revisions) for repo in huggingface_hub.scan_cache_dir(tmp_path / "hub").repos] == [1]
    asked = len(hub.hits)
    assert catalogue.resolve(f"hf:{TINY}/Tiny-Q8_0.gguf").path == ref.path
    assert catalogue.resolve(f"hf:{TINY}").path == ref.path  # no form is named: the one that is here
    assert len(hub.hits) == asked


def test_what_another_tool_has_downloaded_is_found(hub):
    theirs = huggingface_hub.hf_hub_download(TINY, "Tiny-Q4_0.gguf")
    asked = len(hub.hits)
    ref = catalogue.resolve(f"hf:{TINY}:Q4_0")
    assert (ref.path, ref.sha256) == (theirs, hub.repos[TINY].sha256("Tiny-Q4_0.gguf"))
    assert len(hub.hits) == asked


def test_a_pasted_address_of_a_page_means_the_hub(hub, tmp_path):
    from llamatelemetry_jupyter.models.address import parse

    page = parse("https://huggingface.co/someone/Tiny-GGUF/resolve/main/Tiny-Q4_0.gguf?download=true")
    assert (page.scheme, page.where, page.file, page.revision) == ("hf", TINY, "Tiny-Q4_0.gguf", None)
    pinned = parse(f"https://huggingface.co/{TINY}/blob/{'a' * 40}/Tiny-Q4_0.gguf")
    assert catalogue.resolve(pinned.text).quant == "Q4_0"
    # A commit was fetched, so nothing is known of the branch.
    assert not (tmp_path / "hub" / "models--someone--Tiny-GGUF" / "refs").exists()


def test_a_new_version_of_a_branch_comes_with_pull(hub, forms):
    before = catalogue.resolve(f"hf:{TINY}:Q4_0")
    hub.repos[TINY] = Repo({"Tiny-Q4_0.gguf": forms["Tiny-Q4_0.gguf"] + bytes(32)}, commit="d" * 40)
    assert catalogue.resolve(f"hf:{TINY}:Q4_0") == before
    after = catalogue.pull(f"hf:{TINY}:Q4_0")
    assert after.sha256 == hub.repos[TINY].sha256("Tiny-Q4_0.gguf") != before.sha256
    assert catalogue.resolve(f"hf:{TINY}:Q4_0").path == after.path
    assert catalogue.resolve(f"hf:{TINY}@{'a' * 40}:Q4_0").path == before.path


# ----------------------------------------------------------------------------------------- what breaks, and what lies


def test_a_cut_connection_goes_on_where_it_broke(hub, forms):
    hub.cuts = [100_000, 50_000]
    catalogue.resolve(f"hf:{TINY}:Q8_0")
    asked = [asked for _, asked in hub.sent()]
    assert asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_stopped_cell_keeps_what_has_arrived(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_https, "_PIECE", 50_000)

    def stop(step):
        if step.what.startswith("downloading") and step.fraction and step.fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalogue.resolve(f"hf:{TINY}:Q8_0", stop)
    assert huggingface.cached(TINY) == []
    (part,) = [name for name in blobs(tmp_path) if name.endswith(".part")]
    there = (tmp_path / "hub" / "models--someone--Tiny-GGUF" / "blobs" / part).stat().st_size
    catalogue.resolve(f"hf:{TINY}:Q8_0")
    assert hub.sent()[-1] == ("/store/Tiny-Q8_0.gguf", f"bytes={there}-")
    assert len(blobs(tmp_path)) == 1


def test_another_file_than_the_hub_states_is_refused(hub, tmp_path):
    hub.repos[TINY].lies["Tiny-Q8_0.gguf"] = "0" * 64
    with pytest.raises(FetchError, match=r"not the file that was expected: SHA-256 [0-9a-f]{16}…, expected 0000"):
        catalogue.resolve(f"hf:{TINY}:Q8_0")
    assert blobs(tmp_path) == []
    assert huggingface.cached(TINY) == []


def test_a_hub_that_means_harm_gets_nowhere(hub, tmp_path, forms):
    data = forms["Tiny-Q4_0.gguf"]
    hub.repos["evil/One-GGUF"] = Repo(
        {"\x1b[2J-Q4_0.gguf": data, "a\nTypeError-Q8_0.gguf": data, "../../../x-Q6_K.gguf": data},
    )
    assert "offers no .gguf file" in refused("hf:evil/One-GGUF")
    hub.repos["evil/Two-GGUF"] = Repo({"x-Q4_0.gguf": data}, lies={"x-Q4_0.gguf": "../../../../evil"})
    assert "states no SHA-256" in refused("hf:evil/Two-GGUF")
    hub.repos["evil/Three-GGUF"] = Repo({"x-Q4_0.gguf": data}, commit="../../evil")
    assert "names no commit" in refused("hf:evil/Three-GGUF")
    # Its answers contradict each other: what the library then took is not used.
    hub.repos["evil/Four-GGUF"] = Repo({"x-Q4_0.gguf": data}, etag="e" * 64)
    assert "states two different SHA-256" in refused("hf:evil/Four-GGUF")
    assert not [path for path in tmp_path.rglob("*evil*") if "models--evil" not in str(path)]


def test_a_file_that_is_no_model_is_said_to_be_none(hub):
    hub.repos[TINY].files["Tiny-Q2_K.gguf"] = b"<html>not a model</html>" * 9
    with pytest.raises(GGUFError):
        catalogue.resolve(f"hf:{TINY}:Q2_K")


def test_a_full_disk_is_noticed_before_the_first_byte(hub, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(_files.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(FetchError, match=r"are needed in .*, and 1 B are free") as problem:
        catalogue.resolve(f"hf:{TINY}:Q8_0")
    assert "HF_HOME" in problem.value.hint
    assert hub.sent() == []


def test_a_model_in_several_files_is_fetched_whole(hub, tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    write(folder / "Big-Q8_0.gguf", Shape(layers=1, kind="Q8_0"), split_max_tensors=5)
    parts = sorted(folder.iterdir())
    assert len(parts) > 2
    hub.repos["someone/Big-GGUF"] = Repo({f"Q8_0/{part.name}": part.read_bytes() for part in parts})
    ref = catalogue.resolve("hf:someone/Big-GGUF:Q8_0")
    assert (ref.id, ref.file_bytes) == ("Big-Q8_0", sum(part.stat().st_size for part in parts))
    assert len({path for path, _ in hub.sent()}) == len(parts)
    # One of the parts is lost: the model is not here, and pull brings back what is missing.
    os.remove(os.path.realpath(huggingface.cached("someone/Big-GGUF")[1][1]))
    before = len(hub.sent())
    assert catalogue.resolve("hf:someone/Big-GGUF:Q8_0") == ref
    assert len(hub.sent()) == before + 1


# ----------------------------------------------------------------------------------------- consent, tokens, refusals


def refused(address):
    with pytest.raises(LlamaError) as problem:
        catalogue.resolve(address)
    assert problem.value.hint
    assert len("".join(problem.value._render_traceback_()).split("\n")) == 1
    return f"{problem.value} | {problem.value.hint}"


def test_consent_is_explained_with_the_page_and_the_secret(hub, monkeypatch):
    hub.repos[TINY].gated = True
    said = refused(f"hf:{TINY}:Q8_0")
    assert f"accept its terms at {hub.url}/{TINY}" in said
    assert "secret HF_TOKEN" in said
    hub.token = "hf_another"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = refused(f"hf:{TINY}:Q8_0")
    assert "does not accept the token (HTTP 401)" in said
    assert "hf_wrong" not in said


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub):
    hub.repos[TINY].gated = True
    remove = secrets.add_source({"HF_TOKEN": "hf_right"}.get)
    try:
        assert catalogue.resolve(f"hf:{TINY}:Q8_0").quant == "Q8_0"
    finally:
        remove()
    store = {token for path, token in hub.tokens if path.startswith("/store")}
    assert store == {None}
    assert {token for path, token in hub.tokens if not path.startswith("/store")} == {"Bearer hf_right"}
    assert "HF_TOKEN" not in os.environ
    assert "hf_right" not in repr(_https.HttpsSource("https://x/y", None, token="hf_right"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf:nobody/nothing", "no public model nobody/nothing"),
        (f"hf:{TINY}@v9:Q8_0", "no such revision"),
        (f"hf:{TINY}:Q5_K_M", "has no Q5_K_M; it has Q4_0, Q8_0, F16"),
        (f"hf:{TINY}/Tiny-Q8.gguf", f"hf:{TINY}/Tiny-Q8_0.gguf"),
        ("hf:only-a-name", "no address of a model"),
        ("hf:a/b/../../x.gguf", "no address of a model"),
        ("hf:a/b/x.safetensors", "no address of a model"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(hub, address, said):
    assert said in refused(address)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "asked too often (HTTP 429); with the secret HF_TOKEN more"),
        (503, "has trouble (HTTP 503)"),
        (403, "refuses"),
    ],
)
def test_a_hub_that_will_not_is_quoted(hub, status, said):
    hub.statuses = [status] * 9
    assert said in refused(f"hf:{TINY}:Q8_0")


def test_offline_what_is_here_is_used_and_the_rest_is_explained(hub, monkeypatch):
    here = catalogue.resolve(f"hf:{TINY}:Q4_0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert catalogue.resolve(f"hf:{TINY}") == here
    assert "HF_HUB_OFFLINE forbids" in refused(f"hf:{TINY}:Q8_0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert "does not answer (is this machine offline?)" in refused(f"hf:{TINY}:Q8_0")
    # 1 KiB free: too little for what is here, but nothing else can be had.
    found = catalogue.choose(f"hf:{TINY}", Free((), 1024))
    assert found.model == f"hf:{TINY}:Q4_0"
    assert "others cannot be asked for" in found.why


def test_without_the_library_the_command_that_installs_it(hub, monkeypatch):
    monkeypatch.setattr(huggingface, "find_spec", lambda _: None)
    said = refused(f"hf:{TINY}:Q8_0")
    assert "need the package huggingface_hub" in said
    assert "[hub]" in said


# ------------------------------------------------------------------------------------------------ the form that fits


def test_the_form_that_fits_is_chosen_by_the_hubs_sizes(hub, forms):
    large = Free((), 64 << 30)
    assert catalogue.choose(f"hf:{TINY}", large).model == f"hf:{TINY}:Q8_0"  # F16 only when it is asked for
    assert catalogue.choose(f"hf:{TINY}:F16", large) == catalogue.Pick(f"hf:{TINY}:F16", None)
    # The header alone is read, and the plan counts what comes on top of the weights.
    assert hub.sent() == [("/store/Tiny-Q4_0.gguf", "bytes=0-524287")]
    more = fit.beside(f"hf:{TINY}/Tiny-Q8_0.gguf", Free((1 << 30,), 1 << 30))
    just = len(forms["Tiny-Q8_0.gguf"]) + more.gpus
    assert catalogue.choose(f"hf:{TINY}", Free((just,), 1 << 30)).model == f"hf:{TINY}:Q8_0"
    found = catalogue.choose(f"hf:{TINY}", Free((just - 1,), 1 << 30))
    assert found.model == f"hf:{TINY}:Q4_0"
    assert found.why.startswith("Q4_0 (")
    assert "the largest that fits" in found.why
    with pytest.raises(ModelError, match="in its smallest form"):
        catalogue.choose(f"hf:{TINY}", Free((), 1 << 20))
    catalogue.resolve(f"hf:{TINY}:Q4_0")
    asked = len(hub.hits)
    assert "it is here, and it fits" in catalogue.choose(f"hf:{TINY}", large).why
    assert len(hub.hits) == asked


def test_a_name_of_the_catalogue_is_a_repository_with_its_forms(hub, forms):
    hub.repos["CompendiumLabs/bge-small-en-v1.5-gguf"] = Repo(
        {
            "bge-small-en-v1.5-q8_0.gguf": forms["Tiny-Q8_0.gguf"],
            "bge-small-en-v1.5-q4_k_m.gguf": forms["Tiny-Q4_0.gguf"],
            "bge-small-en-v1.5-f32.gguf": forms["Tiny-F16.gguf"],
        }
    )
    assert catalogue.choose("bge-small", Free((), 8 << 30)).model == "bge-small:Q8_0"
    assert catalogue.resolve("bge-small").id == "bge-small"
    assert catalogue.resolve("BGE-small:q8_0").id == "bge-small:Q8_0"
    assert [path for path, asked in hub.sent() if asked is None] == [
        "/store/bge-small-en-v1.5-q4_k_m.gguf",
        "/store/bge-small-en-v1.5-q8_0.gguf",
    ]
    assert "not offered as F32, but as Q8_0, Q4_K_M" in refused("bge-small:F32")


def test_where_a_header_can_be_read(hub):
    assert catalogue.readable(f"hf:{TINY}") == f"hf:{TINY}@{'a' * 40}/Tiny-Q4_0.gguf"
    assert catalogue.readable(f"hf:{TINY}/Tiny-F16.gguf") == f"hf:{TINY}@{'a' * 40}/Tiny-F16.gguf"
    assert hub.sent() == []
    assert catalogue.readable(f"hf:{TINY}:F16") != catalogue.resolve(f"hf:{TINY}:F16").path
    assert catalogue.readable(f"hf:{TINY}:F16") == catalogue.resolve(f"hf:{TINY}:F16").path


def test_two_processes_fetch_one_file(hub, tmp_path):
    program = f"from llamatelemetry_jupyter.models import catalogue as c; print(c.resolve('hf:{TINY}:Q8_0').path)"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=env) for _ in "ab"]
    paths = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    assert hub.sent() == [("/store/Tiny-Q8_0.gguf", None)]

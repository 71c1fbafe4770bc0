"""Models of Kaggle, from a hub on loopback that the real kagglehub speaks to, in the child process that hosts it."""

from __future__ import annotations

import os

import pytest

gguf_py = pytest.importorskip("gguf")
pytest.importorskip("kagglehub")

from ggufs import Shape, write  # noqa: E402
from hubhost import Repo, kaggle  # noqa: E402

from llamatelemetry_jupyter import secrets  # noqa: E402
from llamatelemetry_jupyter.errors import FetchError, LlamaError  # noqa: E402
from llamatelemetry_jupyter.models import catalogue  # noqa: E402
from llamatelemetry_jupyter.models import kaggle as room  # noqa: E402

TINY = "someone/tiny/gguf/1b"
#: kagglesdk knows Kaggle's own hosts only: its "local" one is put on our port before anything else runs.
REDIRECT = """
import os
if os.environ.get("TEST_KAGGLE_URL"):
    from kagglesdk import kaggle_env
    kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = os.environ["TEST_KAGGLE_URL"]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write(tmp_path_factory.mktemp("model") / "tiny.gguf", Shape(layers=1, ff=4096, kind="Q8_0")).read_bytes()


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """Kaggle with one variation, an empty cache, and no token."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REDIRECT)
    for name in room.SECRETS:
        monkeypatch.delenv(name, raising=False)
    with kaggle() as running:
        running.repos[TINY] = Repo({"tiny-Q8_0.gguf": model})
        monkeypatch.setenv("TEST_KAGGLE_URL", running.url)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
        yield running


def refused(address):
    with pytest.raises(LlamaError) as problem:
        catalogue.resolve(address)
    assert problem.value.hint
    assert "\n" not in "".join(problem.value._render_traceback_())
    return problem.value


def test_a_file_is_fetched_into_kagglehubs_cache_and_found_there(hub, model):
    seen = []
    ref = catalogue.resolve(f"kaggle:{TINY}/tiny-Q8_0.gguf", seen.append)
    assert ref.path == str(room.cache_folder() / TINY / "3" / "tiny-Q8_0.gguf")
    assert (ref.id, ref.quant, ref.file_bytes) == ("tiny-Q8_0", "Q8_0", len(model))
    assert {step.what for step in seen} == {"downloading tiny-Q8_0.gguf"}
    measured = [step for step in seen if step.total is not None]
    assert measured, "its bar is read"
    assert {step.unit for step in measured} == {"B"}
    assert measured[-1].total == pytest.approx(len(model), rel=0.01)
    asked = len(hub.hits)
    for same in (f"kaggle:{TINY}", f"kaggle:{TINY}:Q8_0", f"kaggle:{TINY}/3", f"kaggle:{TINY}/3/tiny-Q8_0.gguf"):
        assert catalogue.resolve(same) == ref
    assert len(hub.hits) == asked


def test_a_variation_without_a_file_is_fetched_whole(hub, model):
    hub.repos[TINY].files["notes.txt"] = b"read me"
    assert catalogue.resolve(f"kaggle:{TINY}").quant == "Q8_0"
    assert {path for path, _ in hub.sent()} == {"/store/tiny-Q8_0.gguf", "/store/notes.txt"}
    assert catalogue.resolve(f"kaggle:{TINY}/3").quant == "Q8_0"  # its mark is that of the whole version


def test_what_breaks_off_is_continued_and_what_is_half_there_is_no_model(hub, model):
    """kagglehub keeps whole mebibytes, and asks for the whole file before it asks for the rest."""
    whole = 1 << 30
    hub.cuts = [1_500_000, whole, 10]
    refused(f"kaggle:{TINY}/tiny-Q8_0.gguf")
    assert (room.cache_folder() / TINY / "3" / "tiny-Q8_0.gguf").stat().st_size == 1 << 20
    assert [asked for _, asked in hub.sent()] == [None, None, "bytes=1048576-"]
    assert room.cached(TINY) == []
    assert catalogue.resolve(f"kaggle:{TINY}/tiny-Q8_0.gguf").file_bytes == len(model)
    assert hub.sent()[-1] == ("/store/tiny-Q8_0.gguf", "bytes=1048576-")


def test_another_file_than_kaggle_states_is_refused(hub):
    hub.repos[TINY].lies["tiny-Q8_0.gguf"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    problem = refused(f"kaggle:{TINY}/tiny-Q8_0.gguf")
    assert isinstance(problem, FetchError)
    assert "its MD5 differs" in str(problem)
    assert room.cached(TINY) == []


def test_consent_is_explained_and_a_token_of_a_secret_is_used_but_not_kept(hub):
    hub.repos[TINY].gated = True
    problem = refused(f"kaggle:{TINY}/tiny-Q8_0.gguf")
    assert "accept its terms at https://www.kaggle.com/models/someone/tiny" in str(problem)
    assert "secret KAGGLE_API_TOKEN" in problem.hint
    remove = secrets.add_source({"KAGGLE_API_TOKEN": hub.token}.get)
    try:
        assert catalogue.resolve(f"kaggle:{TINY}/tiny-Q8_0.gguf").quant == "Q8_0"
    finally:
        remove()
    assert "KAGGLE_API_TOKEN" not in os.environ
    assert {token for path, token in hub.tokens if path.startswith("/store")} == {None}


def test_what_cannot_be_had_is_two_lines(hub, monkeypatch):
    assert "Kaggle has no file x.gguf in" in str(refused(f"kaggle:{TINY}/x.gguf"))
    assert "no address of a model" in str(refused("kaggle:someone/tiny"))
    monkeypatch.setenv("TEST_KAGGLE_URL", "http://127.0.0.1:9")  # nobody listens
    assert "is this machine offline?" in str(refused(f"kaggle:{TINY}"))
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    assert "[hub]" in refused(f"kaggle:{TINY}").hint

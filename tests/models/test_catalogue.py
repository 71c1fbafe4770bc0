"""Models by name and by path."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter.errors import GGUFError, ModelError
from llamatelemetry_jupyter.models import catalogue


def test_a_name_is_one_file_with_one_hash(model_path):
    found = catalogue.resolve("SmolLM2-135M")
    assert (found.id, found.path, found.quant) == ("smollm2-135m", str(model_path), "Q4_1")
    assert found.sha256.startswith("b179c952")
    assert "smollm2-135m" in catalogue.names()
    assert catalogue.entries()[0].licence == "Apache-2.0"


def test_a_path_is_checked_and_named_after_its_file(model_path, tmp_path, monkeypatch):
    link = tmp_path / "my model, v2.gguf"
    link.symlink_to(model_path)
    monkeypatch.chdir(tmp_path)
    found = catalogue.resolve("./my model, v2.gguf")
    assert (found.id, found.path) == ("my_model_v2", str(link))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ModelError, match=r"did you mean smollm2-135m\?") as problem:
        catalogue.resolve("smolm2-135")
    assert problem.value.hint == "%llama start smollm2-135m"
    with pytest.raises(ModelError, match="known: smollm2-135m"):
        catalogue.resolve("gpt")
    with pytest.raises(GGUFError, match="there is no file"):
        catalogue.resolve("/nowhere/x.gguf")

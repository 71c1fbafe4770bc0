"""Installing this package on Kaggle or Colab moves nothing that is there; the floor environment is what it says."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[1]
CONSTRAINTS = REPO / "constraints"


def pins(name: str) -> dict[str, str]:
    """Package → version of a constraints file, lines for other Pythons left out."""
    lines = (line.split("#")[0].strip() for line in (CONSTRAINTS / name).read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    return {
        canonical(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate(dict(default_environment()))
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(name: str) -> set[str]:
    """The distributions that ``name`` needs, at any depth, by what is installed here."""
    found: set[tuple[str, frozenset[str]]] = set()
    ahead = [Requirement(name)]
    while ahead:
        one = ahead.pop()
        if (key := (canonical(one.name), frozenset(one.extras or {""}))) in found:
            continue
        found.add(key)
        with contextlib.suppress(metadata.PackageNotFoundError):
            for wanted in map(Requirement, metadata.requires(one.name) or []):
                if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in key[1]):
                    ahead.append(wanted)
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "wheel", "-qq", "--no-deps", "-w", folder, REPO], check=True, stdin=subprocess.DEVNULL)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.parametrize(("image", "python"), [("kaggle", "3.12"), ("colab", "3.13")])
@pytest.mark.parametrize("extras", ["", "[local,graph]", "[hub]", "[server]"])
def test_an_install_there_moves_nothing(
    wheel: Path, image: str, python: str, extras: str, outside_env: dict[str, str], tmp_path: Path
) -> None:
    freeze = pins(f"{image}-freeze.txt")
    report = tmp_path / "report.json"
    # The resolver has to find a set in which everything that is there keeps its version, wheels only.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--dry-run", "-qq",
         "--ignore-installed", "--only-binary=:all:", "--python-version", python, "--report", str(report),
         "-c", str(CONSTRAINTS / f"{image}-freeze.txt"), f"{wheel}{extras}"],
        env=outside_env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    chosen = {
        canonical(one["metadata"]["name"]): one["metadata"]["version"]
        for one in json.loads(report.read_text())["install"]
    }
    kept = {name for name in chosen if name in freeze}
    assert {name: chosen[name] for name in kept} == {name: freeze[name] for name in kept}
    assert kept >= {"ipython", "ipywidgets", "anywidget", "pandas", "plotly", "requests", "opentelemetry-sdk", "psutil"}
    # What is new there is short and known. comm and setuptools are there without being in a freeze; pip asks markers of
    # the running Python, and overrides is for those before 3.12.
    new = {
        "llamatelemetry-jupyter",
        "graphistry",
        "palettable",
        "jedi",
        "xllamacpp",
        "prometheus-client",
        "comm",
        "setuptools",
        "overrides",
    }
    if extras == "[hub]":  # both are there; so is what they need, without being in a freeze
        new |= {"kagglehub", "kagglesdk", "filelock", "fsspec", "hf-xet", "tqdm", "pyyaml"}
        new |= {
            "typing-inspection",
            "annotated-types",
            "typer",
            "click",
            "rich",
            "shellingham",
            "annotated-doc",
            "markdown-it-py",
            "mdurl",
        }
    if extras == "[server]":  # Jupyter's server is there, and keeps its version: so is what it needs
        assert "jupyter-server" in kept
        new |= needs("jupyter-server") | {"testpath"}  # Kaggle's nbconvert is of a time when it needed that
    assert set(chosen) - kept <= new


@pytest.mark.floor
def test_the_floor_environment_holds_what_kaggle_holds() -> None:
    floor = pins("kaggle.txt")
    if metadata.version("ipython") != floor["ipython"]:
        pytest.skip("these are the newest versions")
    installed = {canonical(one.name): one.version for one in metadata.distributions()}
    assert {name: installed[name] for name in floor if name in installed} == {
        name: version for name, version in floor.items() if name in installed
    }


def test_the_floor_is_kaggles_own_list() -> None:
    kaggle, floor = pins("kaggle-freeze.txt"), pins("kaggle.txt")
    if sys.version_info >= (3, 13) or sys.version_info < (3, 11):
        pytest.skip("some pins have no release for this Python")
    assert floor == {name: kaggle[name] for name in floor}

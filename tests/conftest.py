"""What every test gets: an environment of its own, the demo model, a server, and a look at the end whether anything of ours still runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytest

if TYPE_CHECKING:
    from realengine import Engine
    from recorder import Recorder
    from rig import Browser, Lab, Notebook

    from llamatelemetry_jupyter.api.client import LlamaCppClient
    from llamatelemetry_jupyter.values import ServerHandle

REPO = Path(__file__).resolve().parents[1]
#: The environment with Kaggle's versions has no browser driver.
collect_ignore = [] if find_spec("playwright") else ["test_rig.py", "test_quickstart.py", "test_docs.py"]
#: The environment that pytest was started in; see :func:`outside_env`.
OUTSIDE = dict(os.environ)
#: Inherited by every process that a test starts, however deep: names them as ours.
RUN = f"LLAMATELEMETRY_TEST_RUN={uuid.uuid4().hex}"
_FOREIGN = (
    "LLAMA_",
    "OTEL_",
    "LLAMATELEMETRY_",
    "KAGGLE_",
    "COLAB_",
    "VSCODE_",
    "PAPERMILL_",
    "GRAPHISTRY_",
    "JUPYTER_",
    "JPY_",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


# -------------------------------------------------------------------------------------------------------- environment


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported: no setting of the person who runs the tests reaches them, and none of theirs is touched."""
    home = Path(tempfile.mkdtemp(prefix="llamatelemetry-tests-"))
    config.stash[_HOME] = home
    cache = OUTSIDE.get("LLAMATELEMETRY_CACHE") or _cache_dir()
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.lower() in _PROXIES:
            del os.environ[name]
    name, value = RUN.split("=")
    os.environ |= {
        name: value,
        "LLAMATELEMETRY_CACHE": str(cache),  # shared with the user's own: the model is fetched once
        "LLAMATELEMETRY_RUNTIME_DIR": str(home / "run"),
        "LLAMATELEMETRY_DATA": str(home / "data"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter" / "config"),
        "JUPYTER_DATA_DIR": str(home / "jupyter" / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "jupyter" / "run"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    if (home := config.stash.get(_HOME, None)) is not None:
        shutil.rmtree(home, ignore_errors=True)


_HOME = pytest.StashKey[Path]()


def _cache_dir() -> Path:
    from llamatelemetry_jupyter.environment import cache_dir

    return cache_dir()


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the spans of another."""
    monkeypatch.setenv("LLAMATELEMETRY_DATA", str(tmp_path / "data"))


@pytest.fixture
def outside_env() -> dict[str, str]:
    """The environment that pytest was started in, proxies and all: for a test that starts pip."""
    return dict(OUTSIDE)


@pytest.fixture
def scale() -> float:
    """Length of the fault campaigns: 1 in ``make faults``, 0.1 in ``make test``."""
    return float(os.environ.get("SCALE", "0.1"))


# ------------------------------------------------------------------------------------------------- order, left-overs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first. Browser tests last: Playwright keeps an event loop running in this thread, where asyncio.run fails."""
    order = ("floor", "engine", "faults", "browser")
    items.sort(key=lambda item: max((order.index(m.name) for m in item.iter_markers() if m.name in order), default=-1))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Fails at the end when a process that the tests started, at whatever depth, is still there; ends it."""
    yield
    deadline = time.monotonic() + 10  # engines and samplers notice within seconds that their parent has gone
    while (left := ours_running()) and time.monotonic() < deadline:
        time.sleep(0.2)
    told = [f"{p.pid} {' '.join(p.info['cmdline'])[:150]}" for p in left]
    for process in left:
        process.kill()
    assert not told, "still running after the tests:\n" + "\n".join(told)


def ours_running() -> list[psutil.Process]:
    """Processes that inherited this run's environment, this one and its parents excepted."""
    known = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.pid in known or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            if RUN.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


# ------------------------------------------------------------------------------------------------------ model, server


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The demo model, fetched when it is not in the cache."""
    from llamatelemetry_jupyter.models.catalogue import resolve

    return Path(resolve("smollm2-135m").path)


@pytest.fixture(scope="module")
def server(model_path: Path) -> Iterator[ServerHandle]:
    """A running server of our own with the demo model: two slots of 1024 tokens."""
    from llamatelemetry_jupyter.server.process import ServerManager
    from llamatelemetry_jupyter.server.settings import ServerSettings

    manager = ServerManager(name="test")
    try:
        yield manager.start(ServerSettings(model=str(model_path), ctx=2048, slots=2))
    finally:
        manager.stop()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The bare engine, for tests of rooms below the server room."""
    from realengine import running_engine

    with running_engine() as running:
        yield running


@pytest.fixture
def recorder() -> Recorder:
    """An observer that keeps what it was told."""
    from recorder import Recorder

    return Recorder()


@pytest.fixture
def client(engine: Engine, recorder: Recorder) -> LlamaCppClient:
    """A client of :func:`engine` that is observed by :func:`recorder`."""
    from llamatelemetry_jupyter.api.client import LlamaCppClient

    return LlamaCppClient(engine.url, engine.key, recorder, timeout_s=60)


# ---------------------------------------------------------------------------------------------------- fault campaigns


_FAULTS = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``fault_report(id=, what=, tried=, survived=, lost=, seconds=)``: one row of build/faults/results.json."""
    rows = request.config.stash.setdefault(_FAULTS, [])

    def report(
        *,
        id: str,
        what: str,
        tried: int,
        survived: int,
        lost: int | str,
        seconds: float,
    ) -> None:
        rows.append(
            {"id": id, "what": what, "tried": tried, "survived": survived, "lost": lost, "seconds": round(seconds, 2)}
        )

    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(_FAULTS, [])
    if not rows:
        return
    terminalreporter.section("fault campaigns")
    for row in rows:
        terminalreporter.write_line(
            f"{row['id']:24} {row['survived']}/{row['tried']} survived, lost {row['lost']}, {row['seconds']:.1f} s: {row['what']}"
        )
    if path := OUTSIDE.get("FAULTS_JSON"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(rows, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------ JupyterLab, Chromium


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running JupyterLab whose kernel ``python3`` is this environment."""
    from rig import Lab

    with Lab(tmp_path_factory.mktemp("lab") / "home", {"python3": Path(sys.executable)}) as running:
        yield running


@pytest.fixture(scope="session")
def floor() -> Path:
    """The environment with Kaggle's versions."""
    found = REPO / ".venv-floor"
    if not (found / ".stamp").exists():
        pytest.fail("no environment with Kaggle's versions; try: make .venv-floor/.stamp")
    return found


@pytest.fixture(scope="session")
def kaggle_lab(floor: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The same JupyterLab with Kaggle's versions of kernel and widgets; its kernel is ``kaggle``."""
    from rig import Lab

    kernels = {"kaggle": floor / "bin" / "python"}
    with Lab(tmp_path_factory.mktemp("kaggle-lab") / "home", kernels, extensions=floor) as running:
        yield running


@pytest.fixture(scope="session")
def colab_lab(floor: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The same with Colab's ipywidgets, which is all that differs between the two in what widgets need; kernel ``colab``."""
    from rig import Lab

    folder = tmp_path_factory.mktemp("colab-lab")
    python, packages, wrapper = floor / "bin" / "python", folder / "packages", folder / "python"
    subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq", "--no-deps",
         "-c", REPO / "constraints" / "colab-freeze.txt", "--target", packages, "ipywidgets", "ipython-genutils"],
        check=True, env=OUTSIDE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}${{PYTHONPATH:+:$PYTHONPATH}}" exec "{python}" "$@"\n')
    wrapper.chmod(0o755)
    with Lab(folder / "home", {"colab": wrapper}, extensions=floor) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium."""
    from rig import Browser

    with Browser() as running:
        yield running


@pytest.fixture
def notebook(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Callable[..., Notebook]]:
    """``notebook(path or cells, kernel="python3", wait=True)``: opens it in JupyterLab; closed with its kernel at the end.

    ``kernel="kaggle"`` or ``"colab"``: with their versions of kernel and widgets, under the same JupyterLab;
    ``app="notebook"``: in Notebook 7.
    """
    opened: list[Notebook] = []

    def open_notebook(
        content: Path | list[str],
        *,
        kernel: str = "python3",
        wait: bool = True,
        app: Literal["lab", "notebook"] = "lab",
    ) -> Notebook:
        from rig import Notebook

        lab = request.getfixturevalue("lab" if kernel == "python3" else f"{kernel}_lab")
        opened.append(Notebook.open(lab, browser, content, kernel=kernel, wait=wait, app=app))
        return opened[-1]

    yield open_notebook
    for one in opened:
        one.close()
